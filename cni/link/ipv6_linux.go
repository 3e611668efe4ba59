package link

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
)

// turnOnIPv6 makes an interface of the calling thread's namespace, and lo, take IPv6 addresses if it is to get some: container
// runtimes make namespaces in which IPv6 is off, and users of the CNI reference plugins expect that a pod which is given an IPv6
// address has it.
func turnOnIPv6(name string, addrs []netip.Addr) error {
	if !slices.ContainsFunc(addrs, netip.Addr.Is6) {
		return nil
	}
	for _, device := range []string{"lo", name} {
		path := "/proc/sys/net/ipv6/conf/" + device + "/disable_ipv6"
		if sysctl(path) != "1" {
			continue
		}
		if err := os.WriteFile(path, []byte("0"), 0); err != nil {
			return fmt.Errorf("turn on IPv6 of %s in the pod's namespace: %w; make /proc/sys writable, set net.ipv6.conf.%s.disable_ipv6 to 0 there, or give the pod IPv4 alone",
				device, err, device)
		}
	}
	return nil
}
