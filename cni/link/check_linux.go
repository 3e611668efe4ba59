package link

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/cni/netns"
)

// Expected is what Check looks for on a pod's interface; others may have added to it.
type Expected struct {
	// Netns and Name say where.
	Netns, Name string
	// Addrs must be on the interface.
	Addrs []netip.Addr
	// Routes must lead through it; a zero Gateway is a route on the link.
	Routes []Route
	// MTUs are those that are right, in bytes.
	MTUs []int
}

// Route is a route of a pod.
type Route struct {
	Dst     netip.Prefix
	Gateway netip.Addr
}

// Routes returns the routes that a pod gets for its gateways: each gateway on the link, and the rest through it.
func Routes(gateways []netip.Addr) (routes []Route) {
	for _, g := range gateways {
		all := netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		if g.Is4() {
			all = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		}
		routes = append(routes, Route{Dst: netip.PrefixFrom(g, g.BitLen())}, Route{Dst: all, Gateway: g})
	}
	return routes
}

// Check returns an error that says what of the pod's interface is not as it should be.
func Check(e Expected) error {
	return netns.Do(e.Netns, func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("open netlink: %w", err)
		}
		defer h.Close()
		dev, err := h.LinkByName(e.Name)
		if err != nil {
			return fmt.Errorf("find %s: %w", e.Name, err)
		}
		a := dev.Attrs()
		switch {
		case dev.Type() != "tuntap" && dev.Type() != "tun":
			return fmt.Errorf("%s is a %s device and not a tun device", e.Name, dev.Type())
		case a.Flags&net.FlagUp == 0:
			return fmt.Errorf("%s is down", e.Name)
		case !slices.Contains(e.MTUs, a.MTU):
			return fmt.Errorf("%s has an MTU of %d bytes, want %v", e.Name, a.MTU, e.MTUs)
		}
		if err := e.checkAddrs(h, dev); err != nil {
			return err
		}
		return e.checkRoutes(h, dev)
	})
}

func (e *Expected) checkAddrs(h *netlink.Handle, dev netlink.Link) error {
	addrs, err := h.AddrList(dev, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list addresses of %s: %w", e.Name, err)
	}
	for _, want := range e.Addrs {
		if !slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return a.IP.Equal(want.AsSlice()) }) {
			return fmt.Errorf("%s does not have the address %v", e.Name, want)
		}
	}
	return nil
}

func (e *Expected) checkRoutes(h *netlink.Handle, dev netlink.Link) error {
	routes, err := h.RouteList(dev, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list routes of %s: %w", e.Name, err)
	}
	for _, want := range e.Routes {
		if !slices.ContainsFunc(routes, want.is) {
			return fmt.Errorf("no route to %v leads through %s", want.Dst, e.Name)
		}
	}
	return nil
}

// is reports whether the kernel's route is this one. The kernel leaves out the destination of a default route, and we the
// gateway on a pod's second interface.
func (r Route) is(k netlink.Route) bool {
	dst := netip.Prefix{}
	if k.Dst != nil {
		ip, _ := netip.AddrFromSlice(k.Dst.IP)
		bits, _ := k.Dst.Mask.Size()
		dst = netip.PrefixFrom(ip.Unmap(), bits)
	} else if r.Dst.Bits() == 0 && (k.Family == unix.AF_INET) == r.Dst.Addr().Is4() {
		dst = r.Dst
	}
	gw, _ := netip.AddrFromSlice(k.Gw)
	return dst == r.Dst && (gw.Unmap() == r.Gateway || !gw.IsValid())
}
