package link

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/cni/netns"
)

// SetUpLoopback sets up lo in a namespace, and returns its addresses.
func SetUpLoopback(path string) (addrs []netip.Prefix, err error) {
	err = netns.Do(path, func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("open netlink: %w", err)
		}
		defer h.Close()
		lo, err := h.LinkByName("lo")
		if err != nil {
			return fmt.Errorf("find lo: %w", err)
		}
		if err := h.LinkSetUp(lo); err != nil {
			return fmt.Errorf("set up lo: %w", err)
		}
		has, err := h.AddrList(lo, netlink.FAMILY_ALL)
		if err != nil {
			return fmt.Errorf("list addresses of lo: %w", err)
		}
		for _, a := range has {
			ip, ok := netip.AddrFromSlice(a.IP)
			if bits, _ := a.Mask.Size(); ok {
				addrs = append(addrs, netip.PrefixFrom(ip.Unmap(), bits))
			}
		}
		return nil
	})
	return addrs, err
}

// IsUp reports whether an interface of a namespace is up.
func IsUp(path, name string) (up bool, err error) {
	err = netns.Do(path, func() error {
		dev, err := net.InterfaceByName(name)
		if err != nil {
			return fmt.Errorf("find %s: %w", name, err)
		}
		up = dev.Flags&net.FlagUp != 0
		return nil
	})
	return up, err
}
