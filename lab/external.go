package lab

import (
	"errors"
	"io/fs"
	"net/netip"
)

// External is a host that is no node, and the gateway behind which the nodes find it: it has every address of 203.0.113.0/24, and
// 2001:db8::1 to ::9. It routes, so that what goes to addresses that nobody has is told of by ICMP.
//
//	nodes ── 192.168.254.0/24, fd00:254::/64 ── eth0 │ gateway │ lo ── 203.0.113.0/24, 2001:db8::/64
type External struct {
	*Namespace
	// Gateway4 and Gateway6 are its addresses on the node network, the nodes' default routes.
	Gateway4, Gateway6 netip.Addr
}

// externalHosts is how many IPv6 addresses an External has.
const externalHosts = 9

// ExternalAddr4 returns the IPv4 address with number h outside: 203.0.113.h.
func ExternalAddr4(h int) netip.Addr {
	return host(netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, 113, 0}), 24), h).Addr()
}

// ExternalAddr6 returns the IPv6 address with number h outside: 2001:db8::h.
func ExternalAddr6(h int) netip.Addr {
	return host(netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8}), 64), h).Addr()
}

// newExternal makes an External that will have the addresses of a number of the plan on the node network.
func newExternal(number int) (*External, error) {
	ns, err := NewNamespace("external")
	if err != nil {
		return nil, err
	}
	e := &External{Namespace: ns, Gateway4: NodeAddr4(number).Addr(), Gateway6: NodeAddr6(number).Addr()}
	if err := e.prepare(); err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	return e, nil
}

// gatewaySysctls make the gateway forward, and tell of every packet that it cannot: by default Linux limits errors to one destination to one a
// second, and IPv4's are limited twice over by the same tokens, so that who repeats himself faster hears of none.
var gatewaySysctls = []struct{ name, value string }{
	{"net.ipv4.ip_forward", "1"},
	{"net.ipv4.icmp_ratelimit", "0"},
	{"net.ipv6.conf.all.forwarding", "1"},
	{"net.ipv6.icmp.ratelimit", "0"},
}

func (e *External) prepare() error {
	for _, s := range gatewaySysctls {
		if err := e.Sysctl(s.name, s.value); err != nil && !errors.Is(err, fs.ErrNotExist) { // a kernel without IPv6 has but the first ones
			return err
		}
	}
	if err := e.AddAddr("lo", netip.PrefixFrom(ExternalAddr4(1), 24)); err != nil { // on lo the whole range is local
		return err
	}
	for h := 1; HasIPv6() && h <= externalHosts; h++ {
		if err := e.AddAddr("lo", netip.PrefixFrom(ExternalAddr6(h), 128)); err != nil {
			return err
		}
	}
	return nil
}

// route gives a node the default routes that lead to the gateway.
func (e *External) route(n *Namespace) error {
	if err := n.AddRoute(netip.PrefixFrom(netip.IPv4Unspecified(), 0), e.Gateway4, underlayDevice); err != nil || !HasIPv6() {
		return err
	}
	return n.AddRoute(netip.PrefixFrom(netip.IPv6Unspecified(), 0), e.Gateway6, underlayDevice)
}
