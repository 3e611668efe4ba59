package node

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// missingIPv6 says why this process's network namespace has no IPv6; "" if it has.
func missingIPv6() string {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		return "the kernel has no IPv6"
	}
	if err == nil {
		_ = unix.Close(fd)
	}
	const setting = "net.ipv6.conf.all.disable_ipv6"
	if b, _ := os.ReadFile("/proc/sys/" + strings.ReplaceAll(setting, ".", "/")); strings.TrimSpace(string(b)) == "1" {
		return "IPv6 is turned off on this node (" + setting + "=1)"
	}
	return ""
}

// leaveOutIPv6 makes the node one of IPv4 alone where there is no IPv6.
func (n *Node) leaveOutIPv6() error {
	missing := missingIPv6()
	if missing == "" {
		return nil
	}
	both := len(n.config.PodCIDRs) > 1
	if err := n.config.leaveOutIPv6(missing); err != nil {
		return err
	}
	if both {
		n.note(missing + ": pods get IPv4 only")
	}
	return nil
}

// leaveOutIPv6 leaves what is IPv4 of the configuration, without changing memory that others see. missing says why.
func (c *Config) leaveOutIPv6(missing string) error {
	if c.Sockets == "" && c.underlayV6() {
		return fmt.Errorf("address: IPv6 is wanted between the nodes, but %s; use IPv4 addresses, or turn IPv6 on", missing)
	}
	cidrs := only4(c.PodCIDRs, netip.Prefix.Addr)
	if len(cidrs) == 0 {
		return fmt.Errorf("podCIDRs: %v is IPv6, but %s; add an IPv4 range like 10.244.1.0/24, or turn IPv6 on", c.PodCIDRs, missing)
	}
	if err := c.pods4(missing); err != nil {
		return err
	}
	c.PodCIDRs, c.ClusterCIDRs = cidrs, only4(c.ClusterCIDRs, netip.Prefix.Addr)
	c.Services.CIDRs = only4(c.Services.CIDRs, netip.Prefix.Addr)
	c.DNS.Addresses = only4(c.DNS.Addresses, netip.Addr.Unmap)
	c.NodeAddresses = only4(c.NodeAddresses, netip.Addr.Unmap)
	var peers []Peer
	for _, p := range c.Peers {
		p.PodCIDRs, p.NodeAddresses = only4(p.PodCIDRs, netip.Prefix.Addr), only4(p.NodeAddresses, netip.Addr.Unmap)
		if len(p.PodCIDRs) > 0 { // else nothing behind it can be reached
			peers = append(peers, p)
		}
	}
	c.Peers = peers
	return nil
}

// pods4 leaves the pods their IPv4 addresses.
func (c *Config) pods4(missing string) error {
	pods := make([]Pod, len(c.Pods))
	for i, p := range c.Pods {
		pods[i] = p
		if pods[i].Addresses = only4(p.Addresses, netip.Addr.Unmap); len(pods[i].Addresses) == 0 {
			return fmt.Errorf("pods[%d].addresses: %v is IPv6, but %s; give the pod an IPv4 address, or turn IPv6 on", i, p.Addresses, missing)
		}
	}
	c.Pods = pods
	return nil
}

// only4 returns those of the addresses or ranges that are IPv4, in memory of their own.
func only4[T any](all []T, addr func(T) netip.Addr) (some []T) {
	for _, a := range all {
		if addr(a).Is4() {
			some = append(some, a)
		}
	}
	return some
}

// note keeps a sentence for the status, and logs it.
func (n *Node) note(text string) {
	n.notes = append(n.notes, text)
	n.log.Warn(text)
}
