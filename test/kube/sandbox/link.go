package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// bridge is the outside's device, at which all nodes' links end.
const bridge = "br0"

// uplink is the name of a node's interface.
const uplink = "eth0"

// MakeOutside gives the namespace a bridge with these addresses, and lets it route.
func MakeOutside(name string, addrs []netip.Prefix) error {
	h, close, err := handle(name)
	if err != nil {
		return err
	}
	defer close()
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridge}}
	if err := h.LinkAdd(br); err != nil {
		return fmt.Errorf("make bridge in %s: %w", name, err)
	}
	if err := configure(h, bridge, addrs, nil); err != nil {
		return err
	}
	return InNetns(name, func() error { return sysctls(routing("0")) })
}

// Connect gives the node's namespace an interface eth0 with these addresses, whose other end is at the outside's bridge, and
// default routes by way of routers, one a family.
func Connect(node, outside string, number int, addrs []netip.Prefix, routers []netip.Prefix) error {
	n, closeNode, err := handle(node)
	if err != nil {
		return err
	}
	defer closeNode()
	o, closeOutside, err := handle(outside)
	if err != nil {
		return err
	}
	defer closeOutside()
	inside, err := netns.GetFromName(node)
	if err != nil {
		return err
	}
	defer inside.Close()
	port := portName(number)
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: port}, PeerName: uplink, PeerNamespace: netlink.NsFd(inside)}
	if err := o.LinkAdd(pair); err != nil {
		return fmt.Errorf("link %s to %s: %w", node, outside, err)
	}
	br, err := o.LinkByName(bridge)
	if err != nil {
		return err
	}
	link, err := o.LinkByName(port)
	if err != nil {
		return err
	}
	if err := o.LinkSetMaster(link, br); err != nil {
		return err
	}
	if err := o.LinkSetUp(link); err != nil {
		return err
	}
	if err := configure(n, uplink, addrs, routers); err != nil {
		return err
	}
	return InNetns(node, func() error { return sysctls(routing("1")) })
}

// portName is the outside's end of a node's link.
func portName(number int) string { return fmt.Sprintf("port%d", number) }

// Disconnected waits until the link of a node is gone, which the kernel takes away some time after the node's namespace.
func Disconnected(outside string, number int) error {
	o, close, err := handle(outside)
	if err != nil {
		return err
	}
	defer close()
	if !eventually(20*time.Second, func() bool {
		_, err = o.LinkByName(portName(number))
		return err != nil
	}) {
		return fmt.Errorf("the link of node %d is still there: a process keeps its network namespace", number)
	}
	if !errors.As(err, new(netlink.LinkNotFoundError)) {
		return err
	}
	return nil
}

// configure brings the loopback and a link up, with addresses that are good at once, and routes.
func configure(h *netlink.Handle, name string, addrs, routers []netip.Prefix) error {
	lo, err := h.LinkByName("lo")
	if err != nil {
		return err
	}
	link, err := h.LinkByName(name)
	if err != nil {
		return err
	}
	for _, l := range []netlink.Link{lo, link} {
		if err := h.LinkSetUp(l); err != nil {
			return fmt.Errorf("set %s up: %w", l.Attrs().Name, err)
		}
	}
	for _, a := range addrs {
		addr := &netlink.Addr{IPNet: ipNet(a)}
		if a.Addr().Is6() {
			addr.Flags = 0x02 // IFA_F_NODAD: nobody else can have it, so it need not be asked for
		}
		if err := h.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("give %s to %s: %w", a, name, err)
		}
	}
	for _, r := range routers {
		if err := h.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: r.Addr().AsSlice()}); err != nil {
			return fmt.Errorf("default route by %s: %w", r.Addr(), err)
		}
	}
	return nil
}

// Route leads a range by way of a neighbour, in the namespace of that name.
func Route(name string, to netip.Prefix, via netip.Addr) error {
	h, close, err := handle(name)
	if err != nil {
		return err
	}
	defer close()
	if err := h.RouteReplace(&netlink.Route{Dst: ipNet(to), Gw: via.AsSlice()}); err != nil {
		return fmt.Errorf("route to %s by %s in %s: %w", to, via, name, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func handle(name string) (*netlink.Handle, func(), error) {
	ns, err := netns.GetFromName(name)
	if err != nil {
		return nil, nil, fmt.Errorf("open network namespace %s: %w", name, err)
	}
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		ns.Close()
		return nil, nil, fmt.Errorf("netlink in %s: %w", name, err)
	}
	return h, func() { h.Close(); ns.Close() }, nil
}

// routing is what a node's and the outside's kernel settings must be. Whether netfilter sees what a bridge carries is said by filtered,
// 0 or 1: on a node, where pods behind a bridge ask Services, it has to; outside it has not. That setting is there only with br_netfilter.
func routing(filtered string) map[string]string {
	return map[string]string{
		"net/ipv4/ip_forward":                 "1",
		"net/ipv6/conf/all/forwarding":        "1",
		"net/bridge/bridge-nf-call-iptables":  filtered,
		"net/bridge/bridge-nf-call-ip6tables": filtered,
	}
}

// sysctls sets what is there of values, in the network namespace of the calling thread.
func sysctls(values map[string]string) error {
	for name, value := range values {
		err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
