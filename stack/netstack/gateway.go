package netstack

import "net/netip"

// Gateway returns the first of the node's addresses of a family, from which ICMP errors are sent. It is not valid if there is
// none.
func (n *Netstack) Gateway(is4 bool) netip.Addr {
	for _, a := range n.addrs {
		if a.Is4() == is4 {
			return a
		}
	}
	return netip.Addr{}
}
