package node

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// underlayOf returns the interface that has the node's address.
func underlayOf(addr netip.Addr) (netlink.Link, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	for _, l := range links {
		addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			return nil, fmt.Errorf("list addresses of %s: %w", l.Attrs().Name, err)
		}
		for _, a := range addrs {
			if ip, ok := netip.AddrFromSlice(a.IP); ok && ip.Unmap() == addr {
				return l, nil
			}
		}
	}
	return nil, fmt.Errorf("address: no interface of this node has %v; set address to one that it has", addr)
}
