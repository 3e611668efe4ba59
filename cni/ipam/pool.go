package ipam

import (
	"fmt"
	"net/netip"
)

// pool is the range of one family. It gives out the next address after the one given last, so that an address rests as
// long as the others last before it comes to another pod: peers, and clients with open connections, may still mean the
// former one.
type pool struct {
	cidr netip.Prefix
	last netip.Addr // given out last; the network's own before the first
}

// next returns the first usable address after a, from the range's beginning again after its end.
func (p pool) next(a netip.Addr) netip.Addr {
	for {
		if a = a.Next(); !p.cidr.Contains(a) {
			a = p.cidr.Addr()
		}
		if p.usable(a) {
			return a
		}
	}
}

// usable tells whether a pod may have an address of the range: not the network's own (the host's, and IPv6's anycast
// address of routers), not the gateway, and not IPv4's broadcast address.
func (p pool) usable(a netip.Addr) bool {
	network := p.cidr.Addr()
	return p.cidr.Contains(a) && a != network && a != network.Next() && (a.Is6() || p.cidr.Contains(a.Next()))
}

// free returns the next address that is not taken.
func (p pool) free(taken func(netip.Addr) bool) (netip.Addr, error) {
	start := p.next(p.last)
	for a := start; ; {
		if !taken(a) {
			return a, nil
		}
		if a = p.next(a); a == start {
			return netip.Addr{}, fmt.Errorf("%w: all of %v are taken; delete pods of this node, or give it a larger podCIDR", ErrExhausted, p.cidr)
		}
	}
}
