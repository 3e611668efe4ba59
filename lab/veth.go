package lab

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
)

// VethEnd is one end of a veth pair.
type VethEnd struct {
	Namespace *Namespace
	Device    string
	MAC       net.HardwareAddr // default the kernel's choice
}

// addVeth makes a pair; tests make it fail as on a kernel that has none.
var addVeth = func(nl *netlink.Handle, pair *netlink.Veth) error { return nl.LinkAdd(pair) }

// Veth joins two namespaces by the kernel's virtual cable and sets both ends up. mtu is in bytes, IP header included.
func Veth(a, b VethEnd, mtu int) error {
	nl, err := a.Namespace.Netlink()
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = a.Device, mtu, a.MAC
	pair := netlink.NewVeth(attrs)
	pair.PeerName, pair.PeerMTU, pair.PeerHardwareAddr = b.Device, uint32(mtu), b.MAC
	pair.PeerNamespace = netlink.NsFd(b.Namespace.handle.File().Fd())
	if err := addVeth(nl, pair); err != nil {
		return fmt.Errorf("join %s in %s and %s in %s by veth: %w", a.Device, a.Namespace.name, b.Device, b.Namespace.name, err)
	}
	if err := a.Namespace.SetUp(a.Device); err != nil {
		return err
	}
	return b.Namespace.SetUp(b.Device)
}
