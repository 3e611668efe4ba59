package link

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/tun"
)

// RouteProtocol is the protocol number (rtm_protocol) of our routes: `ip route show proto 109` lists them, and by it a
// daemon recognises those that a former one left. It is one that nobody has registered (/etc/iproute2/rt_protos).
const RouteProtocol = 109

// hostAlias marks the host's device as ours (ip -d link shows it): a device of the same name without it is somebody else's.
const hostAlias = "middleway host attachment"

// HostConfig describes the host's attachment: a device in the namespace of the process.
type HostConfig struct {
	// Name is the device's. Required.
	Name string
	// Addrs are its addresses, at most one of each family: the host sends from them to everything in Routes. At least one
	// is required.
	Addrs []netip.Addr
	// Routes are the ranges that the host reaches through it. Those of a family without an address are left out.
	Routes []netip.Prefix
	// Own are those of Routes in which nobody else may have a route: the pods' ranges. A more particular route of somebody
	// else within the other ones is let stand.
	Own []netip.Prefix
	// MTU, Queues, MaxSegments and Without are as in Config.
	MTU, Queues, MaxSegments int
	Without                  tun.Offloads
}

// Host is the host's attachment as the kernel took it: without what needs IPv6 where there is none.
type Host struct {
	Name   string
	Index  int // the interface's number; 0 where there is none
	Addrs  []netip.Addr
	Routes []netip.Prefix
}

// OpenHost makes the host's device, or takes up the one that a former daemon left, sets its addresses, and makes its routes
// those of c: what a former daemon routed and c does not is removed, and routes of somebody else are an error. The device
// is not made persistent here. The calling thread has to be in the namespace of the process.
func OpenHost(c HostConfig) (*tun.Device, Host, error) { return openHost(c, tun.Open) }

// OpenHostPortable is OpenHost for a device as of OpenPortable.
func OpenHostPortable(c HostConfig) (*tun.Portable, Host, error) {
	return openHost(c, tun.OpenPortable)
}

func openHost[D io.Closer](c HostConfig, opener func(tun.Config) (D, error)) (dev D, host Host, err error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return dev, host, fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	if err := freeName(h, c.Name); err != nil {
		return dev, host, err
	}
	opened, err := opener(tun.Config{Name: c.Name, Queues: c.Queues, MTU: c.MTU, Without: c.Without})
	if err != nil {
		return dev, host, err
	}
	if host, err = configureHost(h, c); err != nil {
		return dev, host, errors.Join(err, opened.Close())
	}
	return opened, host, nil
}

// freeName makes sure that no interface has the name but one that a former daemon left.
func freeName(h *netlink.Handle, name string) error {
	l, err := h.LinkByName(name)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for %s: %w", name, err)
	}
	if l.Attrs().Alias != hostAlias {
		return fmt.Errorf("an interface %s exists that is not ours (%s); remove it (ip link del %s), or choose another name by hostDevice", name, l.Type(), name)
	}
	return nil
}

func configureHost(h *netlink.Handle, c HostConfig) (host Host, err error) {
	dev, err := setUp(h, c.Name, c.MTU, c.MaxSegments)
	if err != nil {
		return host, err
	}
	host.Name, host.Index = c.Name, dev.Attrs().Index
	if err := h.LinkSetAlias(dev, hostAlias); err != nil {
		return host, fmt.Errorf("mark %s as ours: %w", c.Name, err)
	}
	loosen(c.Name)
	if err := removeOthers(h, dev, c.Addrs); err != nil {
		return host, err
	}
	for _, a := range c.Addrs {
		err := address(h, dev, a)
		if a.Is6() && hasNoIPv6(err) {
			continue
		}
		if err != nil {
			return host, err
		}
		host.Addrs = append(host.Addrs, a)
	}
	if host.Routes, err = routeHost(h, dev, c, host.Addrs); err != nil {
		return host, err
	}
	return host, usable(h, host.Addrs)
}

// hasNoIPv6 reports whether an address could not be set because the kernel has no IPv6 or it is turned off
// (net.ipv6.conf.*.disable_ipv6).
func hasNoIPv6(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EACCES)
}

// loosen lets packets in whose source the host would reach by another interface, where it is strict: a peer's own address
// comes through the tunnel when its host talks to this one (net.ipv4.conf.*.rp_filter; the kernel takes the greater of all
// and the device's, and 2 is loose). Where /proc/sys is read-only such packets are lost, and nothing else.
func loosen(name string) {
	if ReversePathStrict(name) {
		_ = os.WriteFile(sysctlPath(name, "rp_filter"), []byte("2"), 0)
	}
}

// ReversePathStrict reports whether the kernel drops IPv4 packets on an interface whose source it would reach by another.
func ReversePathStrict(name string) bool {
	return max(sysctl(sysctlPath("all", "rp_filter")), sysctl(sysctlPath(name, "rp_filter"))) == "1"
}

// Forwards reports whether the kernel forwards packets of an address' family.
func Forwards(family netip.Addr) bool {
	if family.Is4() {
		return sysctl("/proc/sys/net/ipv4/ip_forward") == "1"
	}
	return sysctl("/proc/sys/net/ipv6/conf/all/forwarding") == "1"
}

func sysctlPath(device, name string) string {
	return filepath.Join("/proc/sys/net/ipv4/conf", device, name)
}

// sysctl returns a setting, "" if there is none.
func sysctl(path string) string {
	b, _ := os.ReadFile(path)
	return strings.TrimSpace(string(b))
}

// routeHost makes our routes through dev those of c, and returns them.
func routeHost(h *netlink.Handle, dev netlink.Link, c HostConfig, addrs []netip.Addr) (routes []netip.Prefix, err error) {
	index := dev.Attrs().Index
	others, ours, err := routesOf(h, index)
	if err != nil {
		return nil, err
	}
	for _, r := range c.Routes {
		from := slices.IndexFunc(addrs, func(a netip.Addr) bool { return a.Is4() == r.Addr().Is4() })
		if from < 0 {
			continue
		}
		if err := collides(h, r, slices.Contains(c.Own, r), others, c.Name); err != nil {
			return nil, err
		}
		route := &netlink.Route{
			LinkIndex: index, Dst: IPNet(r), Src: addrs[from].AsSlice(), Scope: netlink.SCOPE_LINK, Protocol: RouteProtocol,
		}
		if err := h.RouteReplace(route); err != nil {
			return nil, fmt.Errorf("route %v through %s: %w", r, c.Name, err)
		}
		routes = append(routes, r)
	}
	for _, r := range ours {
		if slices.Contains(routes, prefixOf(r.Dst)) {
			continue
		}
		if err := h.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			return nil, fmt.Errorf("remove the former route %v through %s: %w", r.Dst, c.Name, err)
		}
	}
	return routes, nil
}

// routesOf returns the routes of the main table: those of others, and ours through interface index.
func routesOf(h *netlink.Handle, index int) (others, ours []netlink.Route, err error) {
	all, err := h.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, nil, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range all {
		switch {
		case r.LinkIndex != index:
			others = append(others, r)
		case r.Protocol == RouteProtocol:
			ours = append(ours, r)
		}
	}
	return others, ours, nil
}

// collides returns an error if somebody else routes what we are about to: the same range, or, with own, a part of it.
func collides(h *netlink.Handle, r netip.Prefix, own bool, others []netlink.Route, name string) error {
	for _, o := range others {
		dst := prefixOf(o.Dst)
		if dst != r && !(own && dst.Bits() > r.Bits() && r.Contains(dst.Addr())) {
			continue
		}
		by := "no interface"
		if l, err := h.LinkByIndex(o.LinkIndex); err == nil {
			by = l.Attrs().Name
		}
		return fmt.Errorf("route %v through %s: the host has a route to %v already, by %s; remove it (ip route del %v), choose another range, or set hostDevice to none",
			r, name, dst, by, dst)
	}
	return nil
}

// prefixOf returns the range of a route; invalid for a default route in the form without one.
func prefixOf(n *net.IPNet) netip.Prefix {
	p, _ := netip.ParsePrefix(n.String())
	return p
}

// RemoveHost removes the host's device, and with it its routes. That there is none is no error; one that is not ours stays,
// and is one. The calling thread has to be in the namespace of the process.
func RemoveHost(name string) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	if err := freeName(h, name); err != nil {
		return err
	}
	return remove(h, name, hostAlias)
}
