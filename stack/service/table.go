package service

import (
	"cmp"
	"hash/maphash"
	"iter"
	"maps"
	"net/netip"
	"slices"

	"github.com/middleway-net/middleway/stack/packet"
)

// numShards is how many maps hold a table's Services, and as many its addresses. With copies those maps in which something
// changes: of 10,000 Services about 40 entries each.
const numShards = 256

// Table is an immutable set of Services. All methods may be called by any goroutine.
type Table struct {
	ranges   []netip.Prefix
	addrs    [numShards]map[packet.AddrKey][]claim // of an address that has frontends: at least one, sorted
	external [numShards]map[spot][]claim           // of an external frontend: at least one, sorted
	services [numShards]map[string]*held
	len      int
	counted  int // frontends whose ports count connections

	first   *Table // the one that New made
	endings int    // changes since that may end flows
}

// claim is one Service's frontend at an address.
type claim struct {
	proto packet.Proto
	port  uint16
	owner string // "namespace/name"
	leads *Port
}

// compare sorts by protocol and port, and where two Services have the same frontend by their names: the first one serves it,
// whatever the order in which they came, and when it goes the next one does.
func (c claim) compare(to claim) int {
	return cmp.Or(cmp.Compare(c.proto, to.proto), cmp.Compare(c.port, to.port), cmp.Compare(c.owner, to.owner))
}

// held is what a Table keeps of a Service, so that it can be taken out again.
type held struct {
	spots    []spot
	external []spot
	counted  int
}

type spot struct {
	addr  packet.AddrKey
	proto packet.Proto
	port  uint16
}

func spotOf(f Frontend) spot { return spot{packet.KeyOf(f.Addr), f.Proto, f.Port} }

func (s spot) shard() uint64 { return (s.addr.Hash() + uint64(s.port)) % numShards }

// Found says what has a destination.
type Found uint8

// What Lookup finds.
const (
	NotService  Found = iota // no Service's business
	AtPort                   // a Service's frontend
	OtherPort                // an address that has frontends, but none at this port
	Unallocated              // in a range of Services, and nobody's
	AtExternal               // a Service's External frontend
)

// New returns a table without Services. ranges is where the cluster's Services have their addresses.
func New(ranges []netip.Prefix) *Table {
	t := &Table{}
	t.first = t
	for _, r := range ranges {
		t.ranges = append(t.ranges, r.Masked())
	}
	return t
}

// Len returns how many Services there are.
func (t *Table) Len() int { return t.len }

// Ranges returns the ranges that New got. They are borrowed.
func (t *Table) Ranges() []netip.Prefix { return t.ranges }

// CountsConnections reports whether a port's scheduler wants to know how many connections its backends have (Counts).
func (t *Table) CountsConnections() bool { return t.counted > 0 }

// Lookup returns the port at the destination of a flow; it is nil unless one was found.
func (t *Table) Lookup(f *packet.Flow) (*Port, Found) {
	key := f.DstKey()
	claims := t.addrs[key.Hash()%numShards][key]
	if claims == nil {
		if p := t.externalAt(spot{key, f.Proto(), f.DstPort()}); p != nil {
			return p, AtExternal
		}
		if t.InRange(f.Dst()) {
			return nil, Unallocated
		}
		return nil, NotService
	}
	proto, port := f.Proto(), f.DstPort()
	i, _ := slices.BinarySearchFunc(claims, claim{proto: proto, port: port}, claim.compare)
	if i < len(claims) && claims[i].proto == proto && claims[i].port == port {
		return claims[i].leads, AtPort
	}
	return nil, OtherPort
}

// LookupNode returns the port of NodePorts and the like, whose External frontends are at every address of the node, at the destination of
// a flow to one of these; it is nil if there is none. Lookup goes first.
func (t *Table) LookupNode(f *packet.Flow) *Port {
	every := every6
	if f.Is4() {
		every = every4
	}
	return t.externalAt(spot{every, f.Proto(), f.DstPort()})
}

// The addresses of External frontends that stand for every address of the node of their family.
var (
	every4 = packet.KeyOf(netip.IPv4Unspecified())
	every6 = packet.KeyOf(netip.IPv6Unspecified())
)

func (t *Table) externalAt(at spot) *Port {
	if claims := t.external[at.shard()][at]; claims != nil {
		return claims[0].leads
	}
	return nil
}

// External walks over the External frontends and the ports to which they lead, in no order.
func (t *Table) External() iter.Seq2[Frontend, *Port] {
	return func(yield func(Frontend, *Port) bool) {
		for i := range t.external {
			for at, claims := range t.external[i] {
				if !yield(Frontend{at.addr.Addr(), at.proto, at.port}, claims[0].leads) {
					return
				}
			}
		}
	}
}

// InRange reports whether an address lies in a range of Services.
func (t *Table) InRange(a netip.Addr) bool {
	return slices.ContainsFunc(t.ranges, func(r netip.Prefix) bool { return r.Contains(a) })
}

// MayEnd reports whether t may end flows that another table let be: whether Services of UDP changed, or there are new frontends. Of
// TCP and SCTP only new connections follow a change.
func (t *Table) MayEnd(former *Table) bool {
	return t.first != former.first || t.endings != former.endings
}

// With returns a table that differs from t in the Services of the given names, "namespace/name"; nil removes one. It costs what
// it changes. The ports belong to the table from then on.
func (t *Table) With(changed map[string]*Service) *Table {
	n := &next{Table: *t}
	for name, s := range changed {
		if n.mayEnd(name, s) {
			n.endings++
		}
		if s != nil {
			n.prepare(name, s)
		}
		n.remove(name)
		if s != nil {
			n.add(name, s)
		}
	}
	return &n.Table
}

// next is a table that is being made: which maps are its own already.
type next struct {
	Table
	ownAddrs, ownExternal, ownServices [numShards]bool
}

// mayEnd reports whether a Service's change may end flows, see MayEnd.
func (n *next) mayEnd(name string, s *Service) bool {
	udp := func(s spot) bool { return s.proto == packet.UDP }
	if h := n.services[shardOf(name)][name]; h != nil && (slices.ContainsFunc(h.spots, udp) || slices.ContainsFunc(h.external, udp)) {
		return true
	}
	if s == nil {
		return false
	}
	for f := range s.Frontends {
		if f.Proto == packet.UDP || n.claimed(name, f) == nil {
			return true
		}
	}
	for f := range s.External {
		if f.Proto == packet.UDP || n.claimedOutside(name, f) == nil {
			return true
		}
	}
	return false
}

// prepare makes what the schedulers of a Service's ports need, from what they had so far.
func (n *next) prepare(name string, s *Service) {
	prepared := make(map[*Port]bool, len(s.Frontends))
	for f, p := range s.Frontends {
		if !prepared[p] {
			prepared[p] = true
			p.prepare(n.claimed(name, f))
		}
	}
	for f, p := range s.External {
		if !prepared[p] {
			prepared[p] = true
			p.prepare(n.claimedOutside(name, f))
		}
	}
}

// claimedOutside returns the port to which a Service's External frontend leads, or nil.
func (n *next) claimedOutside(name string, f Frontend) *Port {
	at := spotOf(f)
	claims := n.external[at.shard()][at]
	i := slices.IndexFunc(claims, func(c claim) bool { return c.owner == name })
	if i < 0 {
		return nil
	}
	return claims[i].leads
}

// claimed returns the port to which a Service's frontend leads, or nil.
func (n *next) claimed(name string, f Frontend) *Port {
	key := packet.KeyOf(f.Addr)
	claims := n.addrs[key.Hash()%numShards][key]
	i, ok := slices.BinarySearchFunc(claims, claim{proto: f.Proto, port: f.Port, owner: name}, claim.compare)
	if !ok {
		return nil
	}
	return claims[i].leads
}

func (n *next) remove(name string) {
	shard := shardOf(name)
	h := n.services[shard][name]
	if h == nil {
		return
	}
	n.servicesOf(shard)
	delete(n.services[shard], name)
	n.len--
	n.counted -= h.counted
	for _, s := range h.spots {
		n.edit(s.addr, func(claims []claim) []claim {
			return slices.DeleteFunc(claims, func(c claim) bool { return c.proto == s.proto && c.port == s.port && c.owner == name })
		})
	}
	for _, s := range h.external {
		n.editExternal(s, func(claims []claim) []claim {
			return slices.DeleteFunc(claims, func(c claim) bool { return c.owner == name })
		})
	}
}

func (n *next) add(name string, s *Service) {
	h := &held{spots: make([]spot, 0, len(s.Frontends))}
	for f, p := range s.Frontends {
		h.counted += p.counted()
		at := spotOf(f)
		h.spots = append(h.spots, at)
		n.edit(at.addr, insert(claim{at.proto, at.port, name, p}))
	}
	for f, p := range s.External {
		h.counted += p.counted()
		at := spotOf(f)
		h.external = append(h.external, at)
		n.editExternal(at, insert(claim{at.proto, at.port, name, p}))
	}
	n.servicesOf(shardOf(name))[name] = h
	n.len++
	n.counted += h.counted
}

// insert returns what adds a claim to sorted ones.
func insert(c claim) func([]claim) []claim {
	return func(claims []claim) []claim {
		i, _ := slices.BinarySearchFunc(claims, c, claim.compare)
		return slices.Insert(claims, i, c)
	}
}

// edit replaces the claims of an address by edited ones: change gets a copy.
func (n *next) edit(key packet.AddrKey, change func([]claim) []claim) {
	shard := key.Hash() % numShards
	if !n.ownAddrs[shard] {
		n.ownAddrs[shard] = true
		n.addrs[shard] = cloned(n.addrs[shard])
	}
	claims := change(slices.Clone(n.addrs[shard][key]))
	if len(claims) == 0 {
		delete(n.addrs[shard], key)
		return
	}
	n.addrs[shard][key] = claims
}

// editExternal is edit for an External frontend.
func (n *next) editExternal(at spot, change func([]claim) []claim) {
	shard := at.shard()
	if !n.ownExternal[shard] {
		n.ownExternal[shard] = true
		n.external[shard] = cloned(n.external[shard])
	}
	claims := change(slices.Clone(n.external[shard][at]))
	if len(claims) == 0 {
		delete(n.external[shard], at)
		return
	}
	n.external[shard][at] = claims
}

// servicesOf returns a shard's map of Services to be written.
func (n *next) servicesOf(shard uint64) map[string]*held {
	if !n.ownServices[shard] {
		n.ownServices[shard] = true
		n.services[shard] = cloned(n.services[shard])
	}
	return n.services[shard]
}

func cloned[K comparable, V any](m map[K]V) map[K]V {
	if m == nil {
		return map[K]V{}
	}
	return maps.Clone(m)
}

var seed = maphash.MakeSeed()

func shardOf(name string) uint64 { return maphash.String(seed, name) % numShards }

// ports walks over the ports of all frontends; one with several comes as often.
func (t *Table) ports() iter.Seq[*Port] {
	return func(yield func(*Port) bool) {
		for i := range t.addrs {
			for _, claims := range t.addrs[i] {
				for _, c := range claims {
					if !yield(c.leads) {
						return
					}
				}
			}
			for _, claims := range t.external[i] {
				for _, c := range claims {
					if !yield(c.leads) {
						return
					}
				}
			}
		}
	}
}
