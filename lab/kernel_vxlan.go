package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	defaultVNI       = 1    // flannel's
	defaultVXLANPort = 8472 // Linux's and flannel's; IANA's is 4789
	// vxlanOverhead is what flannel takes off the underlay's MTU for both families: outer IPv4 20, UDP 8, VXLAN 8,
	// inner Ethernet 14. Outer IPv6 takes 20 more; see KernelVXLAN.
	vxlanOverhead = 50
)

// VTEP is what a flannel node announces for one family: whose pods are behind which tunnel end.
type VTEP struct {
	PodCIDR netip.Prefix     // its first address is the tunnel device's own
	Node    netip.Addr       // outer address, of the same family as PodCIDR
	MAC     net.HardwareAddr // of the tunnel device
}

// PlanVTEPs returns both families' VTEPs of node n of the address plan.
func PlanVTEPs(n int) []VTEP {
	return []VTEP{
		{PodCIDR4(n), NodeAddr4(n).Addr(), vtepMAC(n, 4)},
		{PodCIDR6(n), NodeAddr6(n).Addr(), vtepMAC(n, 6)},
	}
}

// KernelVXLANConfig describes a KernelVXLAN.
type KernelVXLANConfig struct {
	Own    []VTEP // this node's, one per family
	VNI    int    // default 1
	Port   int    // UDP destination port; default 8472
	Device string // the node's underlay device; default eth0
}

// KernelVXLAN is a node as flannel's vxlan backend sets it up, with the kernel's own VXLAN: what middleway is compared
// with between nodes, and the peer it must understand.
//
//	pods ── cni0 ── route <peer's podCIDR> via <its first address> onlink ── flannel.1 ── eth0 ══ UDP 8472 ══ peers
//
// IPv4 pod traffic goes through flannel.1 over the nodes' IPv4 addresses; IPv6 pod traffic through a second device,
// flannel-v6.1, with the same VNI and port over the nodes' IPv6 addresses. The choice is the route's: the family of the
// inner packet decides, and no packet crosses from one family to the other. So a node without an IPv6 underlay has no
// IPv6 pod network.
//
// As with flannel, pods and bridge have the underlay's MTU less 50 in both families, though outer IPv6 needs 70: the
// kernel lowers flannel-v6.1 to that by itself, and answers larger packets with Packet Too Big.
type KernelVXLAN struct {
	*KernelBridge
	cfg KernelVXLANConfig
}

// NewKernelVXLAN sets up bridge and tunnel devices in a node's namespace, whose underlay device is up and has its
// addresses.
func NewKernelVXLAN(node *Namespace, cfg KernelVXLANConfig) (*KernelVXLAN, error) {
	if cfg.VNI == 0 {
		cfg.VNI = defaultVNI
	}
	if cfg.Port == 0 {
		cfg.Port = defaultVXLANPort
	}
	if cfg.Device == "" {
		cfg.Device = underlayDevice
	}
	_, underlay, err := node.link(cfg.Device)
	if err != nil {
		return nil, err
	}
	mtu := underlay.Attrs().MTU - vxlanOverhead
	var cidrs []netip.Prefix
	for _, own := range cfg.Own {
		cidrs = append(cidrs, own.PodCIDR.Masked())
	}
	bridge, err := NewKernelBridge(node, mtu, cidrs...)
	if err != nil {
		return nil, err
	}
	v := &KernelVXLAN{KernelBridge: bridge, cfg: cfg}
	for _, own := range cfg.Own {
		if err := v.addDevice(own, underlay.Attrs().Index, mtu); err != nil {
			v.Close()
			return nil, err
		}
	}
	return v, nil
}

// device returns the name of the tunnel device of an address' family.
func (v *KernelVXLAN) device(a netip.Addr) string {
	if a.Is6() {
		return fmt.Sprintf("flannel-v6.%d", v.cfg.VNI)
	}
	return fmt.Sprintf("flannel.%d", v.cfg.VNI)
}

func (v *KernelVXLAN) addDevice(own VTEP, underlay, mtu int) error {
	nl, err := v.node.Netlink()
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = v.device(own.Node), mtu, own.MAC
	device := &netlink.Vxlan{
		LinkAttrs:    attrs,
		VxlanId:      v.cfg.VNI,
		VtepDevIndex: underlay,
		SrcAddr:      own.Node.AsSlice(),
		Port:         v.cfg.Port,
		Learning:     false,
	}
	if err := nl.LinkAdd(device); err != nil {
		return fmt.Errorf("namespace %s: make vxlan device %s: %w", v.node.name, attrs.Name, err)
	}
	base := own.PodCIDR.Masked().Addr()
	if err := v.node.AddAddr(attrs.Name, netip.PrefixFrom(base, base.BitLen())); err != nil {
		return err
	}
	return v.node.SetUp(attrs.Name)
}

// AddPeer makes the node send to another node's pods, as flannel does when a node appears: neighbour, forwarding entry
// and, last, route, so that the kernel never asks by ARP. Nothing is learned from what the peer sends.
func (v *KernelVXLAN) AddPeer(peer ...VTEP) error {
	for _, p := range peer {
		nl, device, err := v.node.link(v.device(p.Node))
		if err != nil {
			return err
		}
		neighbour, forwarding, route := v.entries(p, device.Attrs().Index)
		err = errors.Join(nl.NeighSet(neighbour), nl.NeighSet(forwarding), nl.RouteReplace(route))
		if err != nil {
			return fmt.Errorf("namespace %s: add peer %s for %s: %w", v.node.name, p.Node, p.PodCIDR, err)
		}
	}
	return nil
}

// RemovePeer undoes AddPeer.
func (v *KernelVXLAN) RemovePeer(peer ...VTEP) error {
	for _, p := range peer {
		nl, device, err := v.node.link(v.device(p.Node))
		if err != nil {
			return err
		}
		neighbour, forwarding, route := v.entries(p, device.Attrs().Index)
		err = errors.Join(nl.RouteDel(route), nl.NeighDel(forwarding), nl.NeighDel(neighbour))
		if err != nil {
			return fmt.Errorf("namespace %s: remove peer %s for %s: %w", v.node.name, p.Node, p.PodCIDR, err)
		}
	}
	return nil
}

// entries returns the three entries that stand for a peer.
func (v *KernelVXLAN) entries(p VTEP, device int) (neighbour, forwarding *netlink.Neigh, route *netlink.Route) {
	base := net.IP(p.PodCIDR.Masked().Addr().AsSlice())
	neighbour = &netlink.Neigh{
		LinkIndex:    device,
		State:        netlink.NUD_PERMANENT,
		Type:         unix.RTN_UNICAST,
		IP:           base,
		HardwareAddr: p.MAC,
	}
	forwarding = &netlink.Neigh{
		LinkIndex:    device,
		State:        netlink.NUD_PERMANENT,
		Family:       unix.AF_BRIDGE,
		Flags:        netlink.NTF_SELF,
		IP:           p.Node.AsSlice(),
		HardwareAddr: p.MAC,
	}
	route = &netlink.Route{
		LinkIndex: device,
		Dst:       ipNet(p.PodCIDR.Masked()),
		Gw:        base,
		Flags:     int(netlink.FLAG_ONLINK),
	}
	return neighbour, forwarding, route
}

// Close removes pods, bridge and tunnel devices. The node's namespace stays open.
func (v *KernelVXLAN) Close() error {
	var errs []error
	for _, own := range v.cfg.Own {
		errs = append(errs, deleteLink(v.node, v.device(own.Node)))
	}
	return errors.Join(append(errs, v.KernelBridge.Close())...)
}
