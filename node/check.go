package node

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/middleway-net/middleway/cni"
	"github.com/middleway-net/middleway/node/underlay"
	"github.com/middleway-net/middleway/stack/tun"
	"github.com/middleway-net/middleway/tunnel/udp"
	"github.com/middleway-net/middleway/tunnel/vxlan"
	"github.com/middleway-net/middleway/unixsock"
)

// Limits of the configuration.
const (
	minMTU         = 1280                             // the least that IPv6 takes (RFC 8200, section 5)
	minMTU4        = 576                              // what every IPv4 host accepts (RFC 791, section 3.2); only where the underlay leaves no more
	maxMTU         = udp.MaxTrainLen - vxlan.Overhead // what one datagram holds
	minFlowEntries = 512                              // what package flow makes of less
	maxFlowEntries = 1 << 26

	minInterval = 10 * time.Millisecond // of looking for pods that have gone
)

// check finds the first thing that cannot work, and says which field it is and what it should be.
func (c *Config) check() error {
	switch {
	case c.Name == "":
		return errors.New("name: a name for the node is needed, for example node-1")
	case !isName(c.Name):
		return fmt.Errorf("name: %q is not %s", c.Name, aName)
	case c.Address.IsValid() && !isNodeAddress(c.Address):
		return fmt.Errorf("address: %v is not an address like 192.168.254.11; without the field the node finds its own", c.Address)
	case c.PublicAddress.IsValid() && !isNodeAddress(c.PublicAddress):
		return fmt.Errorf("publicAddress: %v is not an address like 192.168.254.11; without the field it is that of the node itself", c.PublicAddress)
	case c.PublicAddress.IsValid() && c.Address.IsValid() && c.PublicAddress.Is4() != c.Address.Is4():
		return fmt.Errorf("publicAddress: %v is not of the family of address, %v; packets keep their family on the way", c.PublicAddress, c.Address)
	case !filepath.IsAbs(c.RunDir):
		return fmt.Errorf("runDir: %q is not an absolute path like /run/middleway", c.RunDir)
	case !filepath.IsAbs(c.CNI.Socket):
		return fmt.Errorf("cni.socket: %q is not an absolute path like %s", c.CNI.Socket, cni.DefaultSocket)
	case c.CNI.Conflist != "" && (!filepath.IsAbs(c.CNI.Conflist) || filepath.Ext(c.CNI.Conflist) != ".conflist"):
		return fmt.Errorf("cni.conflist: %q is not an absolute path like /etc/cni/net.d/10-middleway.conflist", c.CNI.Conflist)
	case c.MTU != 0 && (c.MTU < c.leastMTU() || c.MTU > maxMTU):
		return fmt.Errorf("mtu: %d is not between %d and %d bytes", c.MTU, c.leastMTU(), maxMTU)
	case c.Workers < 0 || c.Workers > 256:
		return fmt.Errorf("workers: %d is not between 1 and 256", c.Workers)
	case c.FlowEntries != 0 && (c.FlowEntries < minFlowEntries || c.FlowEntries > maxFlowEntries):
		return fmt.Errorf("flowEntries: %d is not between %d and %d", c.FlowEntries, minFlowEntries, maxFlowEntries)
	case c.EchoPort < -1 || c.EchoPort > 65535:
		return fmt.Errorf("echoPort: %d is no port; -1 turns the service off", c.EchoPort)
	case time.Duration(c.CNI.Interval) < minInterval:
		return fmt.Errorf("cni.interval: %v is less than %v", time.Duration(c.CNI.Interval), minInterval)
	case c.PortableDevices && c.Offloads.device() != (tun.Offloads{}):
		return errors.New("offloads: with portableDevices checksum, tso and uso cannot be turned off; leave them out, or portableDevices")
	case c.VXLAN.VNI > vxlan.MaxVNI:
		return fmt.Errorf("vxlan.vni: %d is more than 24 bits (%d)", c.VXLAN.VNI, vxlan.MaxVNI)
	}
	const outside = "/run/user/1000/middleway-sockets"
	if err := cmp.Or(checkSocket("sockets", c.Sockets, outside), checkSocket("outsideSockets", c.OutsideSockets, outside), checkSocket("fdStore", c.FDStore, "/run/middleway/fdstore.sock")); err != nil {
		return err
	}
	if err := c.Offloads.check(); err != nil {
		return err
	}
	if c.HTTP != noHTTP {
		if _, err := net.ResolveTCPAddr("tcp", c.HTTP); err != nil {
			return fmt.Errorf("http: %q is not an address like %s or :9473; none turns the server off", c.HTTP, DefaultHTTP)
		}
	}
	if err := c.checkUnderlay(); err != nil {
		return err
	}
	if err := c.Kubernetes.check(); err != nil {
		return err
	}
	checks := []func() error{c.checkPodCIDRs, c.checkPeers, c.checkHost, c.checkServices, c.checkNodePorts, c.checkDNS, c.checkPods}
	if len(c.PodCIDRs) == 0 && c.Kubernetes.used() { // they, and where pods may be, are not known yet
		checks = []func() error{c.checkPeers, c.checkHost, c.checkServices, c.checkNodePorts, c.checkDNS}
	}
	for _, check := range checks {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// isNodeAddress reports whether other nodes can send to an address.
func isNodeAddress(a netip.Addr) bool {
	return !a.IsUnspecified() && !a.IsMulticast() && !a.Is4In6() && a.Zone() == ""
}

// checkSocket checks the path of a unix socket that another process serves. example is one that would do.
func checkSocket(field, path, example string) error {
	switch {
	case path != "" && !filepath.IsAbs(path):
		return fmt.Errorf("%s: %q is not an absolute path like %s", field, path, example)
	case len(path) > unixsock.MaxPath:
		return fmt.Errorf("%s: %s is longer than %d bytes; choose a shorter path", field, path, unixsock.MaxPath)
	}
	return nil
}

// maxDevice is the longest name of an interface, in bytes (IFNAMSIZ less the end).
const maxDevice = 15

// checkHost checks the nodes' addresses, and that the host does not reach them through its attachment: what the tunnel
// sends would come back into it.
func (c *Config) checkHost() error {
	if len(c.HostDevice) > maxDevice || strings.ContainsAny(c.HostDevice, "%/: \t\n\x00") {
		return fmt.Errorf("hostDevice: %q is not an interface name of 1 to %d bytes without %%, /, : and space; none leaves the host without one", c.HostDevice, maxDevice)
	}
	owners := map[netip.Addr]string{}
	if err := c.checkNodeAddrs("nodeAddresses", "this node", c.NodeAddresses, owners); err != nil {
		return err
	}
	for i, p := range c.Peers {
		where := fmt.Sprintf("peers[%d]", i)
		if err := c.checkNodeAddrs(where+".nodeAddresses", where, p.NodeAddresses, owners); err != nil {
			return err
		}
	}
	for _, r := range c.podRanges() {
		if a, ok := c.nodeWithin(r); ok {
			return addressAmongPods(a, r)
		}
	}
	for i, r := range c.ClusterCIDRs {
		where := fmt.Sprintf("clusterCIDRs[%d]", i)
		if err := checkRange(where, r); err != nil {
			return err
		}
		if a, ok := c.nodeWithin(r); ok {
			return fmt.Errorf("%s: %v contains %v of a node, which the host must reach by the underlay; leave it out, or name smaller ranges", where, r, a)
		}
	}
	return nil
}

func addressAmongPods(a netip.Addr, r netip.Prefix) error {
	return fmt.Errorf("address: %v of a node lies within %v, the range of a node's pods; pods need a range of their own", a, r)
}

// checkNodeAddrs checks the addresses of one node and enters them in owners.
func (c *Config) checkNodeAddrs(field, owner string, addrs []netip.Addr, owners map[netip.Addr]string) error {
	for _, a := range addrs {
		if !reachable(a) {
			return fmt.Errorf("%s: %v is not an address by which pods can reach a node; leave it out", field, a)
		}
		if other := owners[a]; other != "" {
			return fmt.Errorf("%s: %v is named twice, %s has it; every node needs addresses of its own", field, a, other)
		}
		owners[a] = owner
	}
	return nil
}

// reachable reports whether pods can send to an address: it is neither loopback, link-local nor multicast.
func reachable(a netip.Addr) bool { return a.IsGlobalUnicast() && !a.Is4In6() && a.Zone() == "" }

// nodeWithin returns an address of a node that lies within r.
func (c *Config) nodeWithin(r netip.Prefix) (netip.Addr, bool) {
	addrs := append([]netip.Addr{c.Address}, c.NodeAddresses...)
	for _, p := range c.Peers {
		addrs = append(append(addrs, p.Address), p.NodeAddresses...)
	}
	for _, a := range addrs {
		if r.Contains(a) {
			return a, true
		}
	}
	return netip.Addr{}, false
}

func (c *Config) checkUnderlay() error {
	if c.Address.IsValid() && c.Underlay != (underlay.Config{}) {
		return fmt.Errorf("underlay: address is given as well (%v), so there is nothing to find; leave one of the two out", c.Address)
	}
	if err := c.Underlay.Check(); err != nil {
		return fmt.Errorf("underlay.%w", err)
	}
	if c.VXLAN.MAC == "" { // it follows from the address, which is not known yet
		return nil
	}
	if _, err := vxlan.ParseMAC(c.VXLAN.MAC); err != nil {
		return fmt.Errorf("vxlan.mac: %w", err)
	}
	return nil
}

// leastMTU returns what every interface of the pods' families has to take.
func (c *Config) leastMTU() int {
	if c.hasIPv6() {
		return minMTU
	}
	return minMTU4
}

// hasIPv6 reports whether there are IPv6 pods.
func (c *Config) hasIPv6() bool {
	return slices.ContainsFunc(c.PodCIDRs, func(p netip.Prefix) bool { return p.Addr().Is6() })
}

func (c *Config) checkPodCIDRs() error { return checkCIDRs("podCIDRs", c.PodCIDRs) }

// checkCIDRs checks a node's ranges of pods.
func checkCIDRs(field string, cidrs []netip.Prefix) error {
	if len(cidrs) == 0 {
		return fmt.Errorf("%s: at least one range is needed, for example 10.244.1.0/24", field)
	}
	for i, p := range cidrs {
		if err := checkRange(fmt.Sprintf("%s[%d]", field, i), p); err != nil {
			return err
		}
		switch {
		case p.Bits() > p.Addr().BitLen()-2:
			return fmt.Errorf("%s[%d]: %v is too small for a gateway and a pod; choose a larger range", field, i, p)
		case i > 1 || i == 1 && p.Addr().Is4() == cidrs[0].Addr().Is4():
			return fmt.Errorf("%s[%d]: %v is one too many, at most one range of each family is possible; leave it out", field, i, p)
		}
	}
	return nil
}

// notRanges are no addresses by which one host of a network reaches another (RFC 6890).
var notRanges = []struct {
	netip.Prefix
	what string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "addresses of this host"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback addresses"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local addresses"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast addresses"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved addresses"},
	{netip.MustParsePrefix("::/127"), "the unspecified and the loopback address"},
	{netip.MustParsePrefix("fe80::/10"), "link-local addresses"},
	{netip.MustParsePrefix("ff00::/8"), "multicast addresses"},
}

// checkRange checks that a range is one of addresses that a pod or a Service can have.
func checkRange(field string, r netip.Prefix) error {
	example := "10.244.1.0/24"
	if r.IsValid() && r.Addr().Is6() {
		example = "fd00:10:244:1::/64"
	}
	switch {
	case !r.IsValid() || r.Addr().Is4In6():
		return fmt.Errorf("%s: %v is not a range like %s", field, r, example)
	case r.Bits() == 0:
		return fmt.Errorf("%s: %v is every address there is; choose a range like %s", field, r, example)
	case r != r.Masked():
		return fmt.Errorf("%s: %v is not a range but an address in one; did you mean %v?", field, r, r.Masked())
	}
	for _, not := range notRanges {
		if r.Overlaps(not.Prefix) {
			return fmt.Errorf("%s: %v overlaps %v, which are %s; choose a range like %s", field, r, not.Prefix, not.what, example)
		}
	}
	return nil
}

func (c *Config) checkPeers() error {
	ranges := slices.Clone(c.PodCIDRs)
	addrs, names := map[netip.Addr]int{}, map[string]int{}
	for i, p := range c.Peers {
		where := fmt.Sprintf("peers[%d]", i)
		if err := c.checkPeer(where, &p); err != nil {
			return err
		}
		if other, twice := addrs[p.Address]; twice {
			return fmt.Errorf("%s.address: %v is the address of peers[%d] already; every node needs one of its own", where, p.Address, other)
		}
		if other, twice := names[p.label()]; twice {
			return fmt.Errorf("%s.name: %s is the name of peers[%d] already; every node needs one of its own", where, p.label(), other)
		}
		addrs[p.Address], names[p.label()] = i, i
		for j, r := range p.PodCIDRs {
			for _, other := range ranges {
				if r.Overlaps(other) {
					return fmt.Errorf("%s.podCIDRs[%d]: %v overlaps %v of another node; every node needs a range of its own", where, j, r, other)
				}
			}
		}
		ranges = append(ranges, p.PodCIDRs...)
	}
	return nil
}

// checkPeer checks what concerns no other peer.
func (c *Config) checkPeer(where string, p *Peer) error {
	switch {
	case !p.Address.IsValid():
		return fmt.Errorf("%s.address: the peer's address is needed, for example 192.168.254.12", where)
	case !isNodeAddress(p.Address):
		return fmt.Errorf("%s.address: %v is not an address like 192.168.254.12", where, p.Address)
	case c.Address.IsValid() && p.Address.Is4() != c.Address.Is4():
		return fmt.Errorf("%s.address: %v is not of the family of this node's, %v; give the peer's address of that family", where, p.Address, c.Address)
	case !c.Address.IsValid() && p.Address.Is6() != c.underlayV6():
		return fmt.Errorf("%s.address: %v is not of the family between the nodes; underlay.ipv6 says which it is", where, p.Address)
	case p.Address == c.public():
		return fmt.Errorf("%s.address: %v is this node itself; leave it out", where, p.Address)
	case p.Name != "" && !isName(p.Name):
		return fmt.Errorf("%s.name: %q is not %s", where, p.Name, aName)
	case p.Name == c.Name:
		return fmt.Errorf("%s.name: %s is this node's own name; leave the peer out if it is this node, else every node needs a name of its own", where, p.Name)
	}
	if _, err := vxlan.ParseMAC(p.MAC); err != nil {
		return fmt.Errorf("%s.mac: %w", where, err)
	}
	return checkCIDRs(where+".podCIDRs", p.PodCIDRs)
}

// label is what a peer is called: by its name, or else by its address.
func (p *Peer) label() string { return cmp.Or(p.Name, p.Address.String()) }

// nodeName is a DNS subdomain (RFC 1123), which the names of Kubernetes' nodes are.
var nodeName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)

const (
	maxName = 253 // bytes
	aName   = "a node's name as Kubernetes has them: at most 253 lower-case letters, digits, - and ., beginning and ending with a letter or digit"
)

func isName(s string) bool { return len(s) <= maxName && nodeName.MatchString(s) }

func (c *Config) checkPods() error {
	names, owners := map[string]int{}, map[netip.Addr]string{}
	for _, cidr := range c.PodCIDRs {
		owners[Gateway(cidr)] = "the node (gateway)"
		owners[HostAddr(cidr)] = "the host (network address)"
	}
	for i, p := range c.Pods {
		where := fmt.Sprintf("pods[%d]", i)
		other, twice := names[p.Name]
		switch {
		case p.Name == "" || strings.ContainsFunc(p.Name, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }):
			return fmt.Errorf("%s.name: %q is not a name like default/web", where, p.Name)
		case twice:
			return fmt.Errorf("%s.name: %s is the name of pods[%d] already; every pod needs one of its own", where, p.Name, other)
		case p.Netns == "":
			return fmt.Errorf("%s.netns: the path of the pod's network namespace is needed", where)
		case len(p.Addresses) == 0 || len(p.Addresses) > 2 || len(p.Addresses) == 2 && p.Addresses[0].Is4() == p.Addresses[1].Is4():
			return fmt.Errorf("%s.addresses: one address of each family, or of one, is needed", where)
		}
		names[p.Name] = i
		for _, a := range p.Addresses {
			if !slices.ContainsFunc(c.PodCIDRs, func(r netip.Prefix) bool { return r.Contains(a) }) {
				return fmt.Errorf("%s.addresses: %v lies outside podCIDRs %v", where, a, c.PodCIDRs)
			}
			if other := owners[a]; other != "" {
				return fmt.Errorf("%s.addresses: %v belongs to %s", where, a, other)
			}
			owners[a] = p.Name
		}
	}
	return nil
}
