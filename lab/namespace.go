package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/cni/netns"
)

// Namespace is a network namespace that stands for a node or a pod. It has no name outside this process and ends, with
// its devices, when it is closed and no process is in it any more.
type Namespace struct {
	name   string
	handle *netns.Handle

	mu      sync.Mutex
	netlink *netlink.Handle // nil until it is asked for
}

// quietSysctls make a namespace the same on every machine and its addresses usable at once. Names that a kernel does
// not have are skipped.
var quietSysctls = []struct{ name, value string }{
	{"net.ipv4.conf.all.rp_filter", "0"}, // the kernel takes the greater of all and the device
	{"net.ipv4.conf.default.rp_filter", "0"},
	{"net.ipv6.conf.all.accept_dad", "0"}, // no duplicate address detection: it takes a second
	{"net.ipv6.conf.default.accept_dad", "0"},
	{"net.ipv6.conf.default.dad_transmits", "0"},
	{"net.ipv6.conf.default.router_solicitations", "0"},
	{"net.ipv6.conf.default.accept_ra", "0"},
}

// HasIPv6 reports whether the kernel has IPv6 at all: it knows the address family.
func HasIPv6() bool {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		_ = unix.Close(fd)
	}
	return !errors.Is(err, unix.EAFNOSUPPORT)
}

// NewNamespace makes a network namespace with lo up. The name is for messages only. Reverse path filters, duplicate
// address detection and router solicitation are off in it.
func NewNamespace(name string) (*Namespace, error) {
	handle, err := netns.New()
	if err != nil {
		return nil, fmt.Errorf("namespace %s: %w", name, err)
	}
	n := &Namespace{name: name, handle: handle}
	if err := n.prepare(); err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

func (n *Namespace) prepare() error {
	for _, s := range quietSysctls {
		if err := n.Sysctl(s.name, s.value); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return n.SetUp("lo")
}

// Name returns the name given to NewNamespace.
func (n *Namespace) Name() string { return n.name }

// Path returns where child processes, a CNI plugin for example, find the namespace while it is open: /proc/PID/fd/N.
func (n *Namespace) Path() string { return n.handle.Path() }

// Do runs f on a thread inside the namespace. See netns.Handle.Do for what f may not do.
func (n *Namespace) Do(f func() error) error { return n.handle.Do(f) }

// Close lets go of the namespace; the handle returned by Netlink must not be used afterwards.
func (n *Namespace) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.netlink != nil {
		n.netlink.Close()
		n.netlink = nil
	}
	return n.handle.Close()
}

// Netlink returns a handle whose requests act on the namespace. It belongs to the namespace and may be used by several
// goroutines.
func (n *Namespace) Netlink() (*netlink.Handle, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.netlink != nil {
		return n.netlink, nil
	}
	err := n.Do(func() error {
		var err error
		n.netlink, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("namespace %s: open netlink socket: %w", n.name, err)
	}
	return n.netlink, nil
}

// link returns the device called name together with the handle that changes it.
func (n *Namespace) link(name string) (*netlink.Handle, netlink.Link, error) {
	nl, err := n.Netlink()
	if err != nil {
		return nil, nil, err
	}
	link, err := nl.LinkByName(name)
	if err != nil {
		return nil, nil, fmt.Errorf("namespace %s: find device %s: %w", n.name, name, err)
	}
	return nl, link, nil
}

// SetUp sets a device up.
func (n *Namespace) SetUp(device string) error {
	nl, link, err := n.link(device)
	if err != nil {
		return err
	}
	if err := nl.LinkSetUp(link); err != nil {
		return fmt.Errorf("namespace %s: set up %s: %w", n.name, device, err)
	}
	return nil
}

// AddAddr gives a device an address, with the prefix as its subnet. An IPv6 address is usable at once.
func (n *Namespace) AddAddr(device string, addr netip.Prefix) error {
	nl, link, err := n.link(device)
	if err != nil {
		return err
	}
	a := &netlink.Addr{IPNet: ipNet(addr)}
	if addr.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	if err := nl.AddrAdd(link, a); err != nil {
		return fmt.Errorf("namespace %s: add address %s to %s: %w", n.name, addr, device, err)
	}
	return nil
}

// AddRoute adds a route to dst through a device: by gateway, or on the link if gateway is the zero Addr.
func (n *Namespace) AddRoute(dst netip.Prefix, gateway netip.Addr, device string) error {
	nl, link, err := n.link(device)
	if err != nil {
		return err
	}
	r := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(dst.Masked())}
	if gateway.IsValid() {
		r.Gw = gateway.AsSlice()
	} else {
		r.Scope = netlink.SCOPE_LINK
	}
	if err := nl.RouteAdd(r); err != nil {
		return fmt.Errorf("namespace %s: add route %s via %s dev %s: %w", n.name, dst, gateway, device, err)
	}
	return nil
}

// Sysctl sets a kernel setting of the namespace: net.ipv4.ip_forward, or net/ipv4/conf/flannel.1/forwarding where a
// part of the name contains dots.
func (n *Namespace) Sysctl(name, value string) error {
	path := name
	if !strings.Contains(name, "/") {
		path = strings.ReplaceAll(name, ".", "/")
	}
	// /proc/sys/net shows the namespace of the thread that looks.
	err := n.Do(func() error { return os.WriteFile("/proc/sys/"+path, []byte(value), 0) })
	if err != nil {
		return fmt.Errorf("namespace %s: set sysctl %s to %s: %w", n.name, name, value, err)
	}
	return nil
}

// ipNet converts a prefix, host bits kept, into the form netlink takes.
func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
