package lab

import (
	"net"
	"net/netip"
)

// The address plan of all tests, documents and demonstrations. Nodes are numbered from 1.
//
//	node n         192.168.254.(10+n)/24   fd00:254::(11, 12, … as they read)/64
//	pods of node n 10.244.n.0/24           fd00:10:244:n::/64    .1 and ::1 are the node's own
//	Services       10.96.0.0/16            fd00:10:96::/112      DNS .10, ::a
//	outside        203.0.113.0/24          2001:db8::/64

// NodeAddr4 returns the IPv4 address of node n and the prefix of the node network.
func NodeAddr4(n int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, 254, byte(10 + n)}), 24)
}

// NodeAddr6 returns the IPv6 address of node n and the prefix of the node network. It reads like the IPv4 address:
// node 1 is fd00:254::11.
func NodeAddr6(n int) netip.Prefix {
	last := 10 + n
	a := [16]byte{0xfd, 0x00, 0x02, 0x54}
	a[14], a[15] = byte(last/100), byte(last/10%10<<4|last%10)
	return netip.PrefixFrom(netip.AddrFrom16(a), 64)
}

// PodCIDR4 returns the IPv4 range of node n's pods.
func PodCIDR4(n int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(n), 0}), 24)
}

// PodCIDR6 returns the IPv6 range of node n's pods. It is written with n in hexadecimal, so it reads like the IPv4
// range for the first nine nodes.
func PodCIDR6(n int) netip.Prefix {
	a := [16]byte{0xfd, 0x00, 0x00, 0x10, 0x02, 0x44, byte(n >> 8), byte(n)}
	return netip.PrefixFrom(netip.AddrFrom16(a), 64)
}

// PodCIDRs returns the ranges of all pods, whatever their number of nodes.
func PodCIDRs() []netip.Prefix {
	return []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244}), 16), netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0, 0, 0x10, 0x02, 0x44}), 48)}
}

// ServiceCIDRs returns the ranges of Services' addresses.
func ServiceCIDRs() []netip.Prefix {
	return []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 96}), 16), netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0, 0, 0x10, 0, 0x96}), 112)}
}

// ClusterDNS returns the addresses of the cluster's DNS.
func ClusterDNS() []netip.Addr {
	return []netip.Addr{ClusterDNS4(), netip.AddrFrom16([16]byte{0xfd, 0, 0, 0x10, 0, 0x96, 15: 0x0a})}
}

// ClusterDNS4 returns the IPv4 address of the cluster's DNS.
func ClusterDNS4() netip.Addr { return netip.AddrFrom4([4]byte{10, 96, 0, 10}) }

// NodeMAC returns the Ethernet address of node n's eth0: locally administered, and legible in a capture.
func NodeMAC(n int) net.HardwareAddr {
	return net.HardwareAddr{0x02, 0x6d, 0x77, 0, byte(n >> 8), byte(n)} // 6d 77: "mw"
}

// vtepMAC returns the Ethernet address of node n's VXLAN device for a family, 4 or 6.
func vtepMAC(n, family int) net.HardwareAddr {
	return net.HardwareAddr{0x02, 0x6d, 0x77, byte(family), byte(n >> 8), byte(n)}
}

// bridgeMAC is the Ethernet address of every bridge: no two of them meet.
var bridgeMAC = net.HardwareAddr{0x02, 0x6d, 0x77, 0xb7, 0, 0}

// host returns the address with number h in a range, host bits kept in the prefix.
func host(cidr netip.Prefix, h int) netip.Prefix {
	a := cidr.Addr().AsSlice()
	a[len(a)-2] += byte(h >> 8)
	a[len(a)-1] += byte(h)
	addr, _ := netip.AddrFromSlice(a)
	return netip.PrefixFrom(addr, cidr.Bits())
}
