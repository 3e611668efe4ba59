package fib

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
)

// Shorthand of the rows.

func route(prefix string, d Destination) Route {
	return Route{Prefix: netip.MustParsePrefix(prefix), Destination: d}
}

func pod(id uint32) Destination { return Destination{Kind: Attachment, Attachment: id} }

func peer(addr string) Destination {
	return Destination{Kind: Peer, Peer: netip.MustParseAddr(addr)}
}

var node = Destination{Kind: Node}

func compile(t testing.TB, routes ...Route) *Table {
	t.Helper()
	table, err := Compile(routes)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestLookup(t *testing.T) {
	table := compile(t,
		route("10.244.1.2/32", pod(1)), route("10.244.1.3/32", pod(2)), route("10.244.1.1/32", node),
		route("10.244.2.0/24", peer("192.168.254.12")), route("10.244.3.77/24", peer("192.168.254.13")), // masked
		route("10.244.2.9/32", pod(3)),
		route("fd00:10:244:1::2/128", pod(1)), route("fd00:10:244:2::/64", peer("fd00:254::12")),
		route("0.0.0.0/0", node),
		route("10.244.9.0/24", pod(8)), route("10.244.9.0/24", pod(9)), // the later one stands
	)
	for addr, want := range map[string]Destination{
		"10.244.1.2": pod(1), "10.244.1.3": pod(2), "10.244.1.1": node,
		"10.244.2.1": peer("192.168.254.12"), "10.244.2.9": pod(3), "10.244.3.1": peer("192.168.254.13"),
		"10.244.9.1": pod(9), "203.0.113.1": node,
		"fd00:10:244:1::2": pod(1), "fd00:10:244:2::9": peer("fd00:254::12"),
		"fd00:10:244:1::3": {}, "2001:db8::1": {}, // the IPv4 default route is none for IPv6
		"::ffff:10.244.1.2": {}, // a packet with such an address does not parse
	} {
		if got := table.Lookup(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: got %v, want %v", addr, got, want)
		}
	}
	if got := table.Lookup(netip.Addr{}); got.Kind != None {
		t.Errorf("no address: got %v", got)
	}
	if got := new(Table).Lookup(netip.MustParseAddr("10.244.1.2")); got.Kind != None {
		t.Errorf("zero table: got %v", got)
	}
	if got := compile(t, route("::/0", node)).Lookup(netip.MustParseAddr("10.244.1.2")); got.Kind != None {
		t.Errorf("IPv4 by the IPv6 default route: got %v", got)
	}
}

func TestCompileErrors(t *testing.T) {
	for name, prefix := range map[string]netip.Prefix{
		"zero prefix": {},
		"too long":    netip.PrefixFrom(netip.MustParseAddr("10.244.1.0"), 33),
		"negative":    netip.PrefixFrom(netip.MustParseAddr("10.244.1.0"), -1),
		"mapped":      netip.PrefixFrom(netip.MustParseAddr("::ffff:10.244.1.0"), 120),
	} {
		table, err := Compile([]Route{route("10.244.1.2/32", pod(1)), {Prefix: prefix}})
		if err == nil || table != nil || !strings.Contains(err.Error(), prefix.String()) {
			t.Errorf("%s: got %v, %v, want an error that names %v", name, table, err, prefix)
		}
	}
}

func TestDestinationString(t *testing.T) {
	for want, d := range map[string]Destination{
		"none": {}, "node": node, "attachment 7": pod(7), "peer 192.168.254.12": peer("192.168.254.12"),
	} {
		if got := d.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// slowLookup is the reference: it looks at every route.
func slowLookup(routes []Route, a netip.Addr) (d Destination) {
	longest := -1
	for _, r := range routes {
		if r.Prefix.Contains(a) && r.Prefix.Bits() >= longest {
			longest, d = r.Prefix.Bits(), r.Destination
		}
	}
	return d
}

// TestAgainstSlow compares with the reference on addresses near the edges of the prefixes. Addresses are dense, so that
// prefixes nest.
func TestAgainstSlow(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	addr := func() netip.Addr {
		if r.IntN(2) == 0 {
			return netip.AddrFrom4([4]byte{10, byte(r.IntN(3)), byte(r.Uint32()) & 0xc1, byte(r.Uint32()) & 0x83})
		}
		a := netip.MustParseAddr("fd00:10:244::").As16()
		a[7], a[9], a[15] = byte(r.IntN(3)), byte(r.Uint32())&0xc1, byte(r.Uint32())&0x83
		return netip.AddrFrom16(a)
	}
	for range 200 {
		var routes []Route
		for range r.IntN(60) {
			a := addr()
			routes = append(routes, Route{netip.PrefixFrom(a, r.IntN(a.BitLen()+1)), pod(r.Uint32N(1000))})
		}
		table := compile(t, routes...)
		for range 300 {
			a := addr()
			if len(routes) > 0 && r.IntN(3) == 0 {
				a = routes[r.IntN(len(routes))].Prefix.Masked().Addr()
				for range r.IntN(2) {
					if a = a.Prev(); !a.IsValid() {
						a = addr()
					}
				}
			}
			if got, want := table.Lookup(a), slowLookup(routes, a); got != want {
				t.Fatalf("seed %d, %v in %v: got %v, want %v", seed, a, routes, got, want)
			}
		}
	}
}

func TestLookupAllocs(t *testing.T) {
	table := compile(t, route("10.244.2.0/24", peer("192.168.254.12")))
	a := netip.MustParseAddr("10.244.2.1")
	if n := testing.AllocsPerRun(100, func() { table.Lookup(a) }); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}

func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{10, 1_000, 100_000} {
		b.Run(fmt.Sprintf("%d routes", n), func(b *testing.B) {
			var routes []Route
			var addrs []netip.Addr
			for i := range n {
				a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
				if i%3 == 0 { // a pod; else a peer's range
					routes = append(routes, Route{netip.PrefixFrom(a, 32), pod(uint32(i))})
				} else {
					a = netip.AddrFrom4([4]byte{100, byte(i >> 12), byte(i >> 4), byte(i << 4)})
					routes = append(routes, Route{netip.PrefixFrom(a, 28), peer("192.168.254.12")})
				}
				addrs = append(addrs, a)
			}
			rand.Shuffle(n, func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
			table := compile(b, routes...)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if table.Lookup(addrs[i%n]).Kind == None {
					b.Fatal("no route")
				}
			}
		})
	}
}
