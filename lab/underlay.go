package lab

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// underlayDevice is the name of every node's device on the node network.
const underlayDevice = defaultDevice

// UnderlayConfig describes the network between the nodes.
type UnderlayConfig struct {
	MTU       int    // bytes, IP header included; default 1500
	Faults    Faults // any fault makes the underlay a Link
	Userspace bool   // a Link even without faults, so that some can be set later
}

// Underlay is the node network: every node's namespace has a device eth0 with the addresses of the plan, node 1 the
// first one given. It is a Link if faults are asked for or the kernel has no veth, else the kernel's own.
type Underlay struct {
	link   *Link      // nil if the kernel joins the nodes
	veth   bool       // two nodes are joined directly
	bridge *Namespace // hidden namespace of the bridge, nil if there is none
	nodes  []*Namespace
}

// NewUnderlay joins the nodes.
func NewUnderlay(cfg UnderlayConfig, nodes ...*Namespace) (*Underlay, error) {
	if cfg.MTU == 0 {
		cfg.MTU = defaultMTU
	}
	if !cfg.Userspace && !cfg.Faults.any() {
		u, err := Bridge(cfg.MTU, nodes...)
		if !errors.Is(err, unix.EOPNOTSUPP) {
			return u, err
		}
	}
	link, err := NewLink(LinkConfig{MTU: cfg.MTU, Device: underlayDevice, Faults: cfg.Faults}, nodes...)
	if err != nil {
		return nil, err
	}
	u := &Underlay{link: link, nodes: nodes}
	if err := u.addAddrs(); err != nil {
		u.Close()
		return nil, err
	}
	return u, nil
}

// Bridge joins the nodes by the kernel: two by a veth pair from one to the other, others by veth pairs to a bridge in a
// hidden namespace. It is unix.EOPNOTSUPP by errors.Is if the kernel has no veth or no bridge.
func Bridge(mtu int, nodes ...*Namespace) (*Underlay, error) {
	u := &Underlay{nodes: nodes}
	join := u.joinByBridge
	if len(nodes) == 2 {
		join = u.joinByVeth
	}
	err := join(mtu)
	if err == nil {
		err = u.addAddrs()
	}
	if err != nil {
		u.Close()
		return nil, err
	}
	return u, nil
}

func (u *Underlay) joinByVeth(mtu int) error {
	a := VethEnd{Namespace: u.nodes[0], Device: underlayDevice, MAC: NodeMAC(1)}
	b := VethEnd{Namespace: u.nodes[1], Device: underlayDevice, MAC: NodeMAC(2)}
	err := Veth(a, b, mtu)
	u.veth = err == nil
	return err
}

func (u *Underlay) joinByBridge(mtu int) error {
	var err error
	if u.bridge, err = NewNamespace("bridge"); err != nil {
		return err
	}
	if err := addBridge(u.bridge, "br0", mtu); err != nil {
		return err
	}
	for i, node := range u.nodes {
		end := VethEnd{Namespace: node, Device: underlayDevice, MAC: NodeMAC(i + 1)}
		if err := joinBridge(u.bridge, "br0", fmt.Sprintf("port%d", i+1), end, mtu); err != nil {
			return err
		}
	}
	return nil
}

func (u *Underlay) addAddrs() error {
	for i, node := range u.nodes {
		if err := node.AddAddr(underlayDevice, NodeAddr4(i+1)); err != nil {
			return err
		}
		if !HasIPv6() {
			continue
		}
		if err := node.AddAddr(underlayDevice, NodeAddr6(i+1)); err != nil {
			return err
		}
	}
	return nil
}

// Link returns the link that joins the nodes, to set its faults; nil if the kernel joins them.
func (u *Underlay) Link() *Link { return u.link }

// Close takes the nodes' devices away.
func (u *Underlay) Close() error {
	switch {
	case u.link != nil:
		return u.link.Close()
	case u.bridge != nil:
		return u.bridge.Close()
	case !u.veth:
		return nil
	}
	u.veth = false
	nl, link, err := u.nodes[0].link(underlayDevice)
	if err != nil {
		return err
	}
	return nl.LinkDel(link) // the other end goes with it
}

// addBridge makes a kernel bridge and sets it up. Its address is fixed: without one it would take the least of its
// ports', and neighbours would lose it whenever a port comes.
func addBridge(n *Namespace, name string, mtu int) error {
	nl, err := n.Netlink()
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = name, mtu, bridgeMAC
	if err := nl.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return fmt.Errorf("namespace %s: make bridge %s: %w", n.name, name, err)
	}
	return n.SetUp(name)
}

// joinBridge connects end to a bridge by a veth pair whose other end is the bridge's port.
func joinBridge(n *Namespace, bridge, port string, end VethEnd, mtu int) error {
	if err := Veth(VethEnd{Namespace: n, Device: port}, end, mtu); err != nil {
		return err
	}
	nl, master, err := n.link(bridge)
	if err != nil {
		return err
	}
	_, link, err := n.link(port)
	if err != nil {
		return err
	}
	if err := nl.LinkSetMaster(link, master); err != nil {
		return fmt.Errorf("namespace %s: make %s a port of %s: %w", n.name, port, bridge, err)
	}
	return nil
}
