// Package fib finds where a destination address is: the longest matching prefix of an immutable table.
//
// The stack asks it for the first packet of a flow, and for packets that belong to none.
package fib

import (
	"fmt"
	"net/netip"

	"github.com/gaissmai/bart"
)

// Kind says what has an address.
type Kind uint8

// Kinds of destinations. The zero Kind means that nothing has it.
const (
	None       Kind = iota
	Attachment      // a pod on this node
	Peer            // another node, through the tunnel
	Node            // the node itself: its netstack
	Vacant          // nobody, in a range that this node has for its pods
	Inside          // nobody, in a range of the cluster: never outside
)

// Destination is where a prefix leads.
type Destination struct {
	Kind       Kind
	Attachment uint32     // valid iff Kind is Attachment
	Peer       netip.Addr // the peer's underlay address; valid iff Kind is Peer
	// Host: the addresses are the peer's own, and none of its pods'. Valid iff Kind is Peer.
	Host bool
	// Returns: what the peer's pods send to this node's own addresses comes through the tunnel, and not by the underlay. Valid iff Kind
	// is Peer.
	Returns bool
}

// String returns the destination as a trace prints it.
func (d Destination) String() string {
	switch d.Kind {
	case Attachment:
		return fmt.Sprintf("attachment %d", d.Attachment)
	case Peer:
		return fmt.Sprintf("peer %v", d.Peer)
	case Node:
		return "node"
	case Vacant:
		return "vacant"
	case Inside:
		return "inside, nobody's"
	}
	return "none"
}

// Route leads the addresses of a prefix to a destination.
type Route struct {
	Prefix      netip.Prefix
	Destination Destination
}

// Table is an immutable set of routes. The zero Table has none.
type Table struct {
	routes bart.Table[Destination]
}

// Compile makes a table. Of two routes for one prefix the later one stands. Prefixes are masked; an invalid one, or an
// IPv4-mapped IPv6 one, is an error.
func Compile(routes []Route) (*Table, error) {
	t := &Table{}
	for _, r := range routes {
		if !r.Prefix.IsValid() || r.Prefix.Addr().Is4In6() {
			return nil, fmt.Errorf("route %v: not an IPv4 or IPv6 prefix", r.Prefix)
		}
		t.routes.Insert(r.Prefix.Masked(), r.Destination)
	}
	return t, nil
}

// Route returns the route by which Lookup decides; its prefix is not valid if there is none.
func (t *Table) Route(a netip.Addr) Route {
	if !a.IsValid() {
		return Route{}
	}
	prefix, d, _ := t.routes.LookupPrefixLPM(netip.PrefixFrom(a, a.BitLen()))
	return Route{Prefix: prefix, Destination: d}
}

// Lookup returns the destination of the longest prefix that contains a; its Kind is None if there is none.
func (t *Table) Lookup(a netip.Addr) Destination {
	d, _ := t.routes.Lookup(a)
	return d
}
