package underlay

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Interfaces returns the interfaces of the process's network namespace with their addresses, in the kernel's order.
func Interfaces() ([]Interface, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	interfaces := make([]Interface, 0, len(links))
	for _, l := range links {
		attrs := l.Attrs()
		i := Interface{
			Name: attrs.Name, Index: attrs.Index, MTU: attrs.MTU,
			Up: attrs.RawFlags&unix.IFF_UP != 0, Loopback: attrs.RawFlags&unix.IFF_LOOPBACK != 0,
		}
		for _, a := range addrs {
			if a.LinkIndex == attrs.Index {
				i.Addrs = append(i.Addrs, addrOf(a))
			}
		}
		interfaces = append(interfaces, i)
	}
	return interfaces, nil
}

// passing are the flags of addresses that are not to be relied on. IPv4 has a flag of the value of temporary for secondary
// addresses, which stay.
const passing = unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED | unix.IFA_F_DEPRECATED

func addrOf(a netlink.Addr) Addr {
	ip, _ := netip.AddrFromSlice(a.IP)
	ip = ip.Unmap()
	ones, _ := a.Mask.Size()
	temporary := ip.Is6() && a.Flags&unix.IFA_F_TEMPORARY != 0
	lasting := a.Scope <= unix.RT_SCOPE_SITE && a.Flags&passing == 0 && !temporary
	return Addr{Prefix: netip.PrefixFrom(ip, ones), Passing: !lasting}
}

// discardPort is where nothing is sent to: asking for a way takes a port.
const discardPort = 9

// Toward asks the kernel for the way to an address, in the namespace in which socket makes its sockets. Nothing is sent. The
// error is unix.ENETUNREACH, by errors.Is, if there is none.
func Toward(socket func(domain, typ, proto int) (int, error), dst netip.Addr) (p Path, err error) {
	domain, level, option := unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_MTU
	var to unix.Sockaddr
	if dst.Is4() {
		domain, level, option = unix.AF_INET, unix.IPPROTO_IP, unix.IP_MTU
		to = &unix.SockaddrInet4{Port: discardPort, Addr: dst.As4()}
	} else {
		to = &unix.SockaddrInet6{Port: discardPort, Addr: dst.As16()}
	}
	fd, err := socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP)
	if err != nil {
		return p, fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, to); err != nil {
		return p, fmt.Errorf("route to %v: %w", dst, err)
	}
	if p.MTU, err = unix.GetsockoptInt(fd, level, option); err != nil {
		return p, fmt.Errorf("ask for the MTU toward %v: %w", dst, err)
	}
	own, err := unix.Getsockname(fd)
	if err != nil {
		return p, fmt.Errorf("ask for the source toward %v: %w", dst, err)
	}
	switch own := own.(type) {
	case *unix.SockaddrInet4:
		p.Source = netip.AddrFrom4(own.Addr)
	case *unix.SockaddrInet6:
		p.Source = netip.AddrFrom16(own.Addr)
	}
	return p, nil
}
