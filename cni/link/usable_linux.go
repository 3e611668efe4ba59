package link

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// usableTimeout bounds the wait for IPv6 addresses, which takes some milliseconds.
const usableTimeout = 5 * time.Second

// usable returns when the kernel takes packets to all addresses. It enters the local route of an IPv6 address a moment
// after the address, in a work queue (addrconf_dad_work), and drops what comes in between.
func usable(h *netlink.Handle, addrs []netip.Addr) error {
	deadline := time.Now().Add(usableTimeout)
	for _, a := range addrs {
		for a.Is6() && !isLocal(h, a) {
			if time.Now().After(deadline) {
				return fmt.Errorf("the kernel does not take packets to %v within %v of giving the address", a, usableTimeout)
			}
			time.Sleep(time.Millisecond)
		}
	}
	return nil
}

func isLocal(h *netlink.Handle, a netip.Addr) bool {
	routes, err := h.RouteGet(a.AsSlice())
	return err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL
}
