package node

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/middleway-net/middleway/cni"
	"github.com/middleway-net/middleway/node/underlay"
	"github.com/middleway-net/middleway/tunnel/vxlan"
)

// Config configures a node. It is read from YAML; every field that is not named there has the default told here.
type Config struct {
	// Name of the node, as Kubernetes calls it: lower-case letters, digits, - and . (RFC 1123). Required.
	Name string `json:"name"`
	// Address of the node on the underlay, by which peers know it. Default: found as Underlay says.
	Address netip.Addr `json:"address,omitzero"`
	// PublicAddress is the address by which peers reach the node where that is not Address: something in between translates it, as a
	// port driver of a rootless container does. It is announced to the cluster, and VXLAN.MAC is made from it. Default: in a cluster the
	// Node's annotation flannel.alpha.coreos.com/public-ip-overwrite (public-ipv6-overwrite), else Address.
	PublicAddress netip.Addr `json:"publicAddress,omitzero"`
	// Underlay says how Address is found when it is not given. Default: on the interface of the default route.
	Underlay underlay.Config `json:"underlay,omitzero"`
	// Sockets is the absolute path of the unix socket at which `middleway sockets` serves outside of a rootless node's namespaces: the
	// tunnel's sockets come from there, and Address and Underlay are about that side. Default: the sockets are the daemon's own.
	Sockets string `json:"sockets,omitempty"`
	// OutsideSockets is a path like Sockets, of the side from which what is outside of the cluster is reached, and which reaches
	// NodePorts: the sockets of Egress and NodePorts come from there, whereas those of the tunnel need not. Default Sockets.
	OutsideSockets string `json:"outsideSockets,omitempty"`
	// FDStore is the absolute path of the unix socket at which `middleway fdstore` keeps the sockets of NodePorts and host ports of TCP, so
	// that their clients wait for the next daemon, and are not refused, if this one is killed. Default: nobody keeps them.
	FDStore string `json:"fdStore,omitempty"`
	// PodCIDRs are the ranges of the node's pods, at most one of each family. The first address after the network's own is
	// the gateway of the pods. Required, unless Kubernetes tells them.
	PodCIDRs []netip.Prefix `json:"podCIDRs"`
	// NodeAddresses are the node's own addresses as pods know them. Packets to them, and to every other address that the
	// host has, go to the host. Default Address.
	NodeAddresses []netip.Addr `json:"nodeAddresses,omitempty"`
	// HostDevice is the name of the host's attachment, the device through which the host reaches pods of all nodes, and they
	// the host; "none": without. It has the first address of each of PodCIDRs. Default mw0.
	HostDevice string `json:"hostDevice,omitempty"`
	// ClusterCIDRs are further ranges that the host reaches through its attachment, for example all pods' and Services',
	// beside the PodCIDRs of the node and of its peers. Default none.
	ClusterCIDRs []netip.Prefix `json:"clusterCIDRs,omitempty"`
	// MTU of the pods, in bytes, IP header included. Default: that of the interface with Address, less what the tunnel adds
	// (50 with IPv4 outside, 70 with IPv6).
	MTU int `json:"mtu,omitempty"`
	// Workers is how many threads of control move packets. Default: the number of processors, at most 8.
	Workers int `json:"workers,omitempty"`
	// Spin is how long a worker polls before it sleeps, for example "50us". Default 50us; a negative one: not at all.
	Spin Duration `json:"spin,omitempty"`
	// FlowEntries is the size of the flow table; a flow takes two entries of 128 bytes. At least 512, and rounded up to a power
	// of two. Default 65536.
	FlowEntries int `json:"flowEntries,omitempty"`
	// RunDir holds what a restarted daemon takes up again, and the status socket: an absolute path, best in a tmpfs. Default
	// /run/middleway; of an ordinary user middleway in $XDG_RUNTIME_DIR, and without that one of theirs among the temporary files.
	RunDir string `json:"runDir,omitempty"`
	// PortableDevices drives the pods' devices through golang.zx2c4.com/wireguard/tun, with one queue each and super-packets
	// split and merged: slower, for comparison and for kernels whose offloads are in doubt. Pods attached before must have
	// been attached the same way. Default false.
	PortableDevices bool `json:"portableDevices,omitempty"`
	// Offloads says which offloads are used. Default: all that kernel and peers have, found out at the start.
	Offloads Offloads `json:"offloads,omitzero"`
	// EchoPort is where the gateway addresses serve echo over UDP and TCP (RFC 862). Default 7; -1: not at all.
	EchoPort int `json:"echoPort,omitempty"`
	// HTTP is the address on which /healthz, /readyz and /metrics are served, for example ":9473" for all addresses. Default
	// 127.0.0.1:9473; "none": not at all.
	HTTP string `json:"http,omitempty"`
	// CNI configures the door for the CNI plugin, which attaches pods while the node runs.
	CNI CNI `json:"cni,omitempty"`
	// VXLAN configures the tunnel.
	VXLAN VXLAN `json:"vxlan,omitempty"`
	// Peers are the other nodes. Default: those that Kubernetes tells.
	Peers []Peer `json:"peers,omitempty"`
	// Kubernetes says where the cluster's objects come from. Default: there is no cluster.
	Kubernetes Kubernetes `json:"kubernetes,omitzero"`
	// Services configures the cluster's Services.
	Services Services `json:"services,omitzero"`
	// Egress configures how pods reach what is outside of the cluster.
	Egress Egress `json:"egress,omitzero"`
	// NodePorts configures where clients from outside of the cluster reach Services and pods.
	NodePorts NodePorts `json:"nodePorts,omitzero"`
	// DNS configures the cluster's DNS.
	DNS DNS `json:"dns,omitzero"`
	// Pods are pods of this node that no CNI plugin attaches.
	Pods []Pod `json:"pods,omitempty"`

	// Version of the program, for the metrics. It is no field of the file.
	Version string `json:"-"`
	// PodNamespace and PodName are the pod in which this process runs, whose Events tell what is wrong, as the node's do. They are no fields
	// of the file. Default: none is known.
	PodNamespace string `json:"-"`
	PodName      string `json:"-"`
}

// CNI configures the daemon's side of the CNI plugin.
type CNI struct {
	// Socket is the absolute path of the unix socket at which the plugin asks; the network configuration names it too. Tombstones lie
	// in the directory beside it. Default: cni.sock in RunDir.
	Socket string `json:"socket,omitempty"`
	// Interval is how often the daemon looks for pods whose network namespace has gone without a DEL, and for what was
	// deleted while it did not answer. Default 1m, at least 10ms.
	Interval Duration `json:"interval,omitempty"`
	// Conflist is the absolute path at which the daemon writes the network configuration that has the container runtime attach pods by the
	// plugin, once it serves, and again whenever that is another or has gone. Its directory is that of the runtime's configurations, of which
	// the first by name counts. Default: somebody else writes one.
	Conflist string `json:"conflist,omitempty"`
}

// VXLAN configures the tunnel between nodes.
type VXLAN struct {
	// VNI is the network identifier, 1 to 16777215. Default 1.
	VNI vxlan.VNI `json:"vni,omitempty"`
	// Port is the UDP port. Default 8472.
	Port uint16 `json:"port,omitempty"`
	// MAC is the address of this node's VTEP. Default: made from Address, or PublicAddress.
	MAC string `json:"mac,omitempty"`
	// AnySource: what peers send seems to come from another address than theirs, as behind a port driver. Each middleway peer is given a
	// secret, with which it marks what it sends, and is known by that as well as by its address. Whoever sees the packets can then send
	// as the peer from anywhere, not from its address alone. Default false.
	AnySource bool `json:"anySource,omitempty"`
}

// Peer is another node.
type Peer struct {
	// Name is for messages and metrics, and like that of the node. Default Address.
	Name string `json:"name,omitempty"`
	// Address on the underlay. Required.
	Address netip.Addr `json:"address"`
	// PodCIDRs are the ranges of its pods. Required.
	PodCIDRs []netip.Prefix `json:"podCIDRs"`
	// NodeAddresses are its own addresses as pods know them: packets to them go through the tunnel, and its host may send
	// from them. Default Address.
	NodeAddresses []netip.Addr `json:"nodeAddresses,omitempty"`
	// MAC is the address of its VTEP. Default: made from Address, as the peer does.
	MAC string `json:"mac,omitempty"`
	// Kernel: the peer is a kernel's VXLAN device, for example flannel's. It gets one datagram a packet, complete checksums,
	// and may send packets that its kernel left unfinished. Default false: the peer is a middleway node, with which this one
	// finds out what gets through between them.
	Kernel bool `json:"kernel,omitempty"`
	// Trains says that a kernel peer was seen to take trains of datagrams (UDP_SEGMENT), which is faster. A middleway peer
	// always gets them, and a kernel peer on this machine once it has handed over a super-packet itself. Default false.
	Trains bool `json:"trains,omitempty"`
}

// Pod is a pod of this node.
type Pod struct {
	// Name is for messages, for example "default/web". Required.
	Name string `json:"name"`
	// Netns is the path of its network namespace, for example /proc/4711/ns/net. Required.
	Netns string `json:"netns"`
	// Addresses are the pod's, at most one of each family, inside the node's PodCIDRs. Required.
	Addresses []netip.Addr `json:"addresses"`
}

// Duration is a time.Duration that is written like "50us" or "1m30s".
type Duration time.Duration

// UnmarshalText reads "50us". A bare number is refused, since it does not say its unit.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%q is not a duration like 50us or 1m30s", b)
	}
	*d = Duration(v)
	return nil
}

// MarshalText writes the duration as it is read.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// ReadConfig reads a configuration file, lets change edit it (nil: not at all), and checks the result. With an empty path
// change makes the whole configuration. An unknown field is an error.
func ReadConfig(path string, change func(*Config)) (Config, error) {
	if path == "" {
		return parseConfig(nil, change)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w; `middleway node --help` shows what stands in it", err)
	}
	c, err := parseConfig(b, change)
	if err != nil {
		return Config{}, fmt.Errorf("configuration %s: %w", path, err)
	}
	return c, nil
}

// ParseConfig reads and checks a configuration.
func ParseConfig(b []byte) (Config, error) { return parseConfig(b, nil) }

func parseConfig(b []byte, change func(*Config)) (c Config, err error) {
	if err := decode(b, &c); err != nil {
		return Config{}, err
	}
	if change != nil {
		change(&c)
	}
	c.setDefaults()
	return c, c.check()
}

func (c *Config) setDefaults() {
	if c.RunDir == "" {
		c.RunDir = DefaultRunDir()
	}
	if c.CNI.Socket == "" {
		c.CNI.Socket = filepath.Join(c.RunDir, "cni.sock")
	}
	if c.CNI.Interval == 0 {
		c.CNI.Interval = Duration(cni.DefaultInterval)
	}
	if c.EchoPort == 0 {
		c.EchoPort = 7
	}
	if c.HTTP == "" {
		c.HTTP = DefaultHTTP
	}
	if c.HostDevice == "" {
		c.HostDevice = DefaultHostDevice
	}
	if c.OutsideSockets == "" {
		c.OutsideSockets = c.Sockets
	}
	c.setServices()
	c.DNS.setDefaults(c.Services.CIDRs)
	if c.Address.IsValid() && !c.Kubernetes.used() { // which may know better what follows from it
		c.setAddress(c.Address)
	}
	for i := range c.Peers {
		p := &c.Peers[i]
		if !p.Address.IsValid() {
			continue
		}
		if p.MAC == "" {
			p.MAC = DefaultMAC(p.Address).String()
		}
		p.NodeAddresses = nodeAddresses(p.NodeAddresses, p.Address)
	}
}

// setAddress sets the address, and the defaults that follow from it.
func (c *Config) setAddress(a netip.Addr) {
	c.Address = a
	c.NodeAddresses = nodeAddresses(c.NodeAddresses, c.public())
	if c.VXLAN.MAC == "" {
		c.VXLAN.MAC = DefaultMAC(c.public()).String()
	}
}

// public returns the address by which peers know this node.
func (c *Config) public() netip.Addr {
	if c.PublicAddress.IsValid() {
		return c.PublicAddress
	}
	return c.Address
}

// underlayV6 reports whether the nodes reach each other by IPv6.
func (c *Config) underlayV6() bool {
	if c.Address.IsValid() {
		return c.Address.Is6()
	}
	return c.Underlay.V6()
}

// nodeAddresses returns the addresses of a node as pods know it: those given, else the one on the underlay.
func nodeAddresses(given []netip.Addr, address netip.Addr) []netip.Addr {
	if len(given) == 0 && reachable(address) {
		return []netip.Addr{address}
	}
	return given
}

// DefaultMAC returns the VTEP address of the node with the given underlay address: locally administered, and the same
// wherever it is made.
func DefaultMAC(node netip.Addr) vxlan.MAC {
	sum := sha256.Sum256([]byte("middleway vtep " + node.String()))
	mac := vxlan.MAC(sum[:6])
	mac[0] = mac[0]&^1 | 2
	return mac
}

// HostAddr returns the address of a podCIDR that the host has on its attachment: the network's own, as flannel's device has.
func HostAddr(podCIDR netip.Prefix) netip.Addr { return podCIDR.Masked().Addr() }

// podRanges returns the ranges of all nodes' pods.
func (c *Config) podRanges() []netip.Prefix {
	ranges := slices.Clone(c.PodCIDRs)
	for _, p := range c.Peers {
		ranges = append(ranges, p.PodCIDRs...)
	}
	return ranges
}

// peerAddrs returns the peers' own addresses as ranges. Where the tunnel's sockets are a parent's, the host has no other way to
// them than through its attachment, and the tunnel itself does not take that way.
func (c *Config) peerAddrs() (ranges []netip.Prefix) {
	for _, p := range c.Peers {
		for _, a := range p.NodeAddresses {
			ranges = append(ranges, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return ranges
}

// ranges returns what is behind the peer: its pods and itself.
func (p *Peer) ranges() []netip.Prefix {
	ranges := slices.Clone(p.PodCIDRs)
	for _, a := range p.NodeAddresses {
		ranges = append(ranges, netip.PrefixFrom(a, a.BitLen()))
	}
	return ranges
}

// hostAddrs returns the peer's own addresses, as far as they are known: those that pods know, and of the ranges of its pods what its
// device of the tunnel and its pods' gateway have.
func (p *Peer) hostAddrs() []netip.Addr {
	addrs := slices.Clone(p.NodeAddresses)
	for _, r := range p.PodCIDRs {
		addrs = append(addrs, HostAddr(r), Gateway(r))
	}
	return addrs
}

// RandomVNI returns a network identifier at random, for a cluster that shares a network with others.
func RandomVNI() vxlan.VNI { return 1 + rand.N[vxlan.VNI](vxlan.MaxVNI) }

// Gateway returns the address of a podCIDR that the node answers: the first after the network's own.
func Gateway(podCIDR netip.Prefix) netip.Addr { return podCIDR.Masked().Addr().Next() }
