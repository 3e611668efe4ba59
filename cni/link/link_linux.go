// Package link is the kernel's side of an attachment: the TUN device in the pod's network namespace, or in the host's, with
// its addresses and routes. The node daemon opens those of the configuration's pods and of the host, and those that a former
// daemon left; the CNI plugin makes others (Make) and hands their open queues to the daemon, which adopts them (Adopt).
package link

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/cni/netns"
	"github.com/middleway-net/middleway/stack/tun"
)

// Config describes a pod's interface.
type Config struct {
	// Netns is the path of the pod's network namespace. Required.
	Netns string
	// Name is the interface's name. Default "eth0".
	Name string
	// Addrs are the pod's addresses, at most one of each family. At least one is required.
	Addrs []netip.Addr
	// Gateways are the next hops, one for each family of Addrs: the node's netstack answers for them.
	Gateways []netip.Addr
	// MTU is in bytes, IP header included. Required.
	MTU int
	// Queues is how many queues the device gets. Default 1.
	Queues int
	// Alias is written on a device that Make makes: Remove knows by it what it may remove.
	Alias string
	// Index, where it is not 0, is the interface's number: a device that is there with this number is taken up, and none is
	// made. Without it the result is ErrGone.
	Index int
	// MaxSegments bounds the segments of a super-packet, so that one fits one send to a peer. 0: the kernel's bound.
	MaxSegments int
	// Without are offloads that the device is not to use. Default: it uses all that the kernel has.
	Without tun.Offloads
}

const defaultName = "eth0"

// queueLength is the device's transmit queue in packets. Each may be a super-packet: with the default of 500 a slow node
// would let 30 MB wait.
const queueLength = 200

// addrGenModeNone keeps the kernel from giving the device a link-local address, and from sending multicast from it.
const addrGenModeNone = 1

// Open makes the device in the pod's namespace, or takes up the one that a former daemon left there, and sets its
// addresses and routes. The device is not made persistent here: a start that fails later leaves nothing behind, and what
// was persistent before stays.
func Open(c Config) (*tun.Device, error) { return open(c, tun.Open) }

// OpenPortable is Open for a device with a single queue that golang.zx2c4.com/wireguard/tun drives.
func OpenPortable(c Config) (*tun.Portable, error) { return open(c, tun.OpenPortable) }

func open[D io.Closer](c Config, opener func(tun.Config) (D, error)) (dev D, err error) {
	if c.Name == "" {
		c.Name = defaultName
	}
	err = netns.Do(c.Netns, func() error {
		if err := expect(c); err != nil {
			return err
		}
		opened, err := opener(tun.Config{Name: c.Name, Queues: c.Queues, MTU: c.MTU, Without: c.Without})
		if err != nil {
			return err
		}
		// If the device went in between, the kernel has made another one, which ends with its queues.
		err = expect(c)
		if err == nil {
			err = configure(c)
		}
		if err != nil {
			return errors.Join(err, opened.Close())
		}
		dev = opened
		return nil
	})
	return dev, err
}

// configure sets up the device in the namespace of the calling thread, whatever a former daemon left of it.
func configure(c Config) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	dev, err := setUp(h, c.Name, c.MTU, c.MaxSegments)
	if err != nil {
		return err
	}
	if err := setAlias(h, dev, c.Alias); err != nil {
		return fmt.Errorf("set alias of %s: %w", c.Name, err)
	}
	if err := setUpLoopback(h); err != nil {
		return fmt.Errorf("set up lo: %w", err)
	}
	if err := turnOnIPv6(c.Name, c.Addrs); err != nil {
		return err
	}
	if err := removeOthers(h, dev, c.Addrs); err != nil {
		return err
	}
	for _, a := range c.Addrs {
		if err := address(h, dev, a); err != nil {
			return err
		}
	}
	for _, g := range c.Gateways {
		if err := gateway(h, dev, g); err != nil {
			return err
		}
	}
	return usable(h, c.Addrs)
}

// setUp finds a device that was opened, sets its limits, and sets it up.
func setUp(h *netlink.Handle, name string, mtu, maxSegments int) (netlink.Link, error) {
	dev, err := h.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", name, err)
	}
	_ = h.LinkSetIP6AddrGenMode(dev, addrGenModeNone) // fails without IPv6 in the kernel
	steps := []struct {
		what string
		do   func() error
	}{
		{"set MTU", func() error { return h.LinkSetMTU(dev, mtu) }},
		{"set queue length", func() error { return h.LinkSetTxQLen(dev, queueLength) }},
		{"limit segments", func() error { return limitSegments(h, dev, maxSegments) }},
		{"set up", func() error { return h.LinkSetUp(dev) }},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			return nil, fmt.Errorf("%s of %s: %w", s.what, name, err)
		}
	}
	return dev, nil
}

func setAlias(h *netlink.Handle, dev netlink.Link, alias string) error {
	if alias == "" {
		return nil
	}
	return h.LinkSetAlias(dev, alias)
}

func limitSegments(h *netlink.Handle, dev netlink.Link, n int) error {
	if n == 0 {
		return nil
	}
	return h.LinkSetGSOMaxSegs(dev, n)
}

func setUpLoopback(h *netlink.Handle) error {
	lo, err := h.LinkByName("lo")
	if err != nil {
		return err
	}
	return h.LinkSetUp(lo)
}

// removeOthers takes away addresses that a former daemon gave to a device and that it no longer has: its kernel would send
// from them, and the source check would drop that.
func removeOthers(h *netlink.Handle, dev netlink.Link, keep []netip.Addr) error {
	addrs, err := h.AddrList(dev, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list addresses of %s: %w", dev.Attrs().Name, err)
	}
	for _, a := range addrs {
		ip, ok := netip.AddrFromSlice(a.IP)
		if ip = ip.Unmap(); !ok || ip.IsLinkLocalUnicast() || slices.Contains(keep, ip) {
			continue
		}
		if err := h.AddrDel(dev, &a); err != nil {
			return fmt.Errorf("remove address %v from %s: %w", ip, dev.Attrs().Name, err)
		}
	}
	return nil
}

func address(h *netlink.Handle, dev netlink.Link, a netip.Addr) error {
	addr := &netlink.Addr{IPNet: HostNet(a)}
	if a.Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := h.AddrReplace(dev, addr); err != nil {
		return fmt.Errorf("give address %v to %s: %w", a, dev.Attrs().Name, err)
	}
	return nil
}

// gateway routes everything of the gateway's family to it, and the gateway itself to the device.
func gateway(h *netlink.Handle, dev netlink.Link, g netip.Addr) error {
	priority, first, err := priorityOf(h, dev, g)
	if err != nil {
		return err
	}
	index := dev.Attrs().Index
	direct := &netlink.Route{LinkIndex: index, Dst: HostNet(g), Scope: netlink.SCOPE_LINK, Priority: priority}
	rest := &netlink.Route{LinkIndex: index, Dst: anyNet(g), Gw: g.AsSlice(), Flags: int(netlink.FLAG_ONLINK), Priority: priority}
	if !first { // IPv6 refuses a gateway that another interface leads to; a tun device needs none
		rest.Gw, rest.Flags, rest.Scope = nil, 0, netlink.SCOPE_LINK
	}
	for _, r := range []*netlink.Route{direct, rest} {
		if err := h.RouteReplace(r); err != nil {
			return fmt.Errorf("route %v through %v: %w", r.Dst, dev.Attrs().Name, err)
		}
	}
	return nil
}

// priorityOf returns the priority of our routes, the lower the better: the kernel's usual one, or a worse one of their own
// where another interface of the pod has the default route, which stays the pod's way out; then first is false.
func priorityOf(h *netlink.Handle, dev netlink.Link, g netip.Addr) (priority int, first bool, err error) {
	family, usual := netlink.FAMILY_V4, 0
	if g.Is6() {
		family, usual = netlink.FAMILY_V6, 1024 // IP6_RT_PRIO_USER, which stands for 0
	}
	routes, err := h.RouteList(nil, family)
	if err != nil {
		return 0, false, fmt.Errorf("list routes: %w", err)
	}
	index := dev.Attrs().Index
	for _, r := range routes {
		if r.LinkIndex != index && isAny(r.Dst) && r.Priority <= usual {
			return usual + index, false, nil
		}
	}
	return usual, true, nil
}

// isAny reports whether a route's destination is everything, which the kernel leaves out.
func isAny(dst *net.IPNet) bool {
	if dst == nil {
		return true
	}
	bits, _ := dst.Mask.Size()
	return bits == 0
}

// HostNet returns an address as a range of its own, as IPNet does.
func HostNet(a netip.Addr) *net.IPNet { return IPNet(netip.PrefixFrom(a, a.BitLen())) }

// IPNet returns a prefix, host bits kept, as netlink and CNI's results have it.
func IPNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func anyNet(family netip.Addr) *net.IPNet {
	zero := make(net.IP, family.BitLen()/8)
	return &net.IPNet{IP: zero, Mask: net.CIDRMask(0, family.BitLen())}
}
