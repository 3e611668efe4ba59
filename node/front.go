package node

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/middleway-net/middleway/node/underlay"
)

// Egress configures the way of this node's pods to what is outside of the cluster: TCP, UDP and ICMP echo through ordinary sockets
// of the node, which have its address.
type Egress struct {
	// Off: pods reach nothing outside of the cluster. Default false.
	Off bool `json:"off,omitempty"`
}

// NodePorts configures the listeners of this node: NodePorts of Services, their externalIPs, and host ports of pods.
type NodePorts struct {
	// Off: NodePorts and externalIPs of Services are another program's. Default false, but true with services.besideKubeProxy. Host ports
	// are served all the same, where the container runtime asks for them.
	Off bool `json:"off,omitempty"`
	// Addresses are where NodePorts are, and host ports without an address: primary stands for the addresses by which the cluster knows
	// the node, a range for those addresses of its interfaces that lie in it. Default primary, 127.0.0.1/32 and ::1/128. Link-local
	// addresses and those of pods' networks are left out.
	Addresses []FrontRange `json:"addresses,omitempty"`
	// OutsideAddresses are the same on the side of OutsideSockets. Default Addresses.
	OutsideAddresses []FrontRange `json:"outsideAddresses,omitempty"`
}

// FrontRange is a range of addresses, or, as the zero FrontRange, the node's primary ones.
type FrontRange struct{ netip.Prefix }

// primary is what the configuration calls the zero FrontRange, as kube-proxy does (--nodeport-addresses).
const primary = "primary"

// UnmarshalText reads "primary" or "192.168.254.0/24".
func (r *FrontRange) UnmarshalText(b []byte) (err error) {
	if string(b) == primary {
		*r = FrontRange{}
		return nil
	}
	r.Prefix, err = netip.ParsePrefix(string(b))
	return err
}

// MarshalText writes the range as it is read.
func (r FrontRange) MarshalText() ([]byte, error) {
	if r == (FrontRange{}) {
		return []byte(primary), nil
	}
	return r.Prefix.MarshalText()
}

// defaultFronts are where NodePorts are by default: where the cluster knows the node, and for the node's own programs.
var defaultFronts = []FrontRange{
	{},
	{netip.PrefixFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 32)},
	{netip.PrefixFrom(netip.IPv6Loopback(), 128)},
}

// checkNodePorts checks the ranges of NodePorts.
func (c *Config) checkNodePorts() error {
	return cmp.Or(checkFronts("nodePorts.addresses", c.NodePorts.Addresses), checkFronts("nodePorts.outsideAddresses", c.NodePorts.OutsideAddresses))
}

func checkFronts(field string, ranges []FrontRange) error {
	for i, r := range ranges {
		where := fmt.Sprintf("%s[%d]", field, i)
		switch {
		case r == (FrontRange{}):
		case r.Addr().Is4In6() || r.Masked() != r.Prefix:
			return fmt.Errorf("%s: %v is not a range; write its first address, as in %v", where, r.Prefix, r.Masked())
		case r.Addr().IsMulticast() || r.Addr().IsLinkLocalUnicast():
			return fmt.Errorf("%s: %v has no address that clients could name; leave it out", where, r.Prefix)
		}
	}
	return nil
}

// withNodePorts reports whether this node serves NodePorts and externalIPs of Services.
func (c *Config) withNodePorts() bool { return !c.NodePorts.Off && !c.Services.BesideKubeProxy }

// fronts returns where NodePorts are: the addresses of interfaces in ranges, by default defaultFronts, sorted. Those in the ranges except
// are of pods' networks.
func fronts(ranges []FrontRange, interfaces []underlay.Interface, primaries []netip.Addr, except []netip.Prefix) []netip.Addr {
	if len(ranges) == 0 {
		ranges = defaultFronts
	}
	var addrs []netip.Addr
	for _, r := range ranges {
		if r == (FrontRange{}) {
			addrs = append(addrs, ownOf(primaries, interfaces)...)
		} else {
			addrs = append(addrs, within(r.Prefix, interfaces)...)
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.DeleteFunc(slices.Compact(addrs), func(a netip.Addr) bool {
		return a.IsLinkLocalUnicast() || slices.ContainsFunc(except, func(r netip.Prefix) bool { return r.Contains(a) })
	})
}

// ownOf returns those of addrs that interfaces have.
func ownOf(addrs []netip.Addr, interfaces []underlay.Interface) (own []netip.Addr) {
	for _, a := range addrs {
		if _, err := underlay.ByAddress(a, interfaces); err == nil {
			own = append(own, a)
		}
	}
	return own
}

// within returns the addresses of interfaces in a range.
func within(r netip.Prefix, interfaces []underlay.Interface) (addrs []netip.Addr) {
	for _, i := range interfaces {
		for _, a := range i.Addrs {
			if i.Up && r.Contains(a.Prefix.Addr()) {
				addrs = append(addrs, a.Prefix.Addr())
			}
		}
	}
	return addrs
}
