package service

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/middleway-net/middleway/stack/packet"
)

var ranges = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd00:10:96::/112")}

// at returns a frontend: at("10.96.0.5:80", TCP).
func at(s string, proto packet.Proto) Frontend {
	ap := netip.MustParseAddrPort(s)
	return Frontend{ap.Addr(), proto, ap.Port()}
}

// svc returns a Service whose frontends all lead to one port of the given name.
func svc(name string, frontends ...Frontend) *Service {
	s := &Service{Frontends: map[Frontend]*Port{}}
	p := &Port{Name: name}
	for _, f := range frontends {
		s.Frontends[f] = p
	}
	return s
}

// to returns a flow from a pod.
func to(f Frontend) *packet.Flow {
	src := netip.MustParseAddrPort("10.244.1.2:4000")
	if f.Addr.Is6() {
		src = netip.MustParseAddrPort("[fd00:10:244:1::2]:4000")
	}
	fl := packet.NewFlow(f.Proto, src, netip.AddrPortFrom(f.Addr, f.Port))
	return &fl
}

// looked is what Lookup finds, in words.
func looked(t *Table, f Frontend) string {
	p, found := t.Lookup(to(f))
	if p != nil {
		return p.Name
	}
	return [...]string{NotService: "none", AtPort: "a port without a name", OtherPort: "other port", Unallocated: "unallocated", AtExternal: "an external port without a name"}[found]
}

func TestLookup(t *testing.T) {
	table := New(ranges).With(map[string]*Service{
		"a/web": svc("web", at("10.96.0.5:80", packet.TCP), at("[fd00:10:96::5]:80", packet.TCP), at("203.0.113.7:80", packet.TCP)),
		"a/dns": svc("dns", at("10.96.0.10:53", packet.UDP), at("10.96.0.10:53", packet.TCP)),
	})
	for _, tt := range []struct {
		addr  string
		proto packet.Proto
		want  string
	}{
		{"10.96.0.5:80", packet.TCP, "web"},
		{"[fd00:10:96::5]:80", packet.TCP, "web"},
		{"203.0.113.7:80", packet.TCP, "web"},
		{"10.96.0.5:80", packet.UDP, "other port"},
		{"10.96.0.5:81", packet.TCP, "other port"},
		{"10.96.0.5:0", packet.ICMP, "other port"},
		{"203.0.113.7:81", packet.TCP, "other port"},
		{"10.96.0.10:53", packet.UDP, "dns"},
		{"10.96.0.10:53", packet.TCP, "dns"},
		{"10.96.0.6:80", packet.TCP, "unallocated"},
		{"[fd00:10:96::6]:80", packet.TCP, "unallocated"},
		{"10.97.0.5:80", packet.TCP, "none"},
		{"[fd00:10:96::1:5]:80", packet.TCP, "none"},
	} {
		if got := looked(table, at(tt.addr, tt.proto)); got != tt.want {
			t.Errorf("%s %v: got %s, want %s", tt.addr, tt.proto, got, tt.want)
		}
	}
}

// Two Services with one frontend: the one whose name comes first has it, in whatever order they came and go.
func TestOneFrontend(t *testing.T) {
	f := at("10.96.0.5:80", packet.TCP)
	a, b := map[string]*Service{"a/web": svc("a", f)}, map[string]*Service{"b/web": svc("b", f)}
	ab, ba := New(ranges).With(a).With(b), New(ranges).With(b).With(a)
	if got := looked(ab, f) + looked(ba, f); got != "aa" {
		t.Errorf("both: got %s", got)
	}
	for name, tt := range map[string]struct {
		table *Table
		want  string
	}{
		"the first goes":  {ab.With(map[string]*Service{"a/web": nil}), "b"},
		"the second goes": {ab.With(map[string]*Service{"b/web": nil}), "a"},
		"both go":         {ba.With(map[string]*Service{"a/web": nil, "b/web": nil}), "unallocated"},
	} {
		if got := looked(tt.table, f); got != tt.want {
			t.Errorf("%s: got %s, want %s", name, got, tt.want)
		}
	}
}

// outside returns a Service that is reached at External frontends alone.
func outside(name string, frontends ...Frontend) *Service {
	s := svc(name, frontends...)
	s.Frontends, s.External = nil, s.Frontends
	return s
}

// An External frontend is a port and nothing else of its address; ports of all of a node's addresses are found by LookupNode alone.
func TestExternal(t *testing.T) {
	table := New(ranges).With(map[string]*Service{
		"a/web":  svc("web", at("10.96.0.5:80", packet.TCP)),
		"a/out":  outside("out", at("203.0.113.7:80", packet.TCP), at("[2001:db8::7]:80", packet.TCP), at("10.96.0.9:80", packet.TCP)),
		"a/node": outside("node", at("0.0.0.0:30080", packet.TCP), at("[::]:30080", packet.UDP)),
		"b/node": outside("later", at("0.0.0.0:30080", packet.TCP), at("0.0.0.0:30081", packet.TCP)),
	})
	for _, tt := range []struct {
		addr       string
		proto      packet.Proto
		want, node string // what Lookup and LookupNode find
	}{
		{"203.0.113.7:80", packet.TCP, "out", ""},
		{"203.0.113.7:80", packet.UDP, "none", ""},
		{"203.0.113.7:81", packet.TCP, "none", ""},
		{"203.0.113.7:0", packet.ICMP, "none", ""},
		{"[2001:db8::7]:80", packet.TCP, "out", ""},
		{"10.96.0.9:80", packet.TCP, "out", ""},
		{"10.96.0.9:81", packet.TCP, "unallocated", ""},
		{"10.96.0.5:30080", packet.TCP, "other port", "node"},
		{"192.168.254.11:30080", packet.TCP, "none", "node"},
		{"192.168.254.11:30080", packet.UDP, "none", ""},
		{"192.168.254.11:30081", packet.TCP, "none", "later"},
		{"[fd00:254::11]:30080", packet.UDP, "none", "node"},
		{"[fd00:254::11]:30080", packet.TCP, "none", ""},
	} {
		f := at(tt.addr, tt.proto)
		node := ""
		if p := table.LookupNode(to(f)); p != nil {
			node = p.Name
		}
		if got := looked(table, f); got != tt.want || node != tt.node {
			t.Errorf("%s %v: got %s and %q, want %s and %q", tt.addr, tt.proto, got, node, tt.want, tt.node)
		}
	}
	got := map[string]string{}
	for f, p := range table.With(map[string]*Service{"a/node": nil, "a/out": nil}).External() {
		got[fmt.Sprint(f.Proto, f.Addr, f.Port)] = p.Name
	}
	if diff := cmp.Diff(map[string]string{"tcp 0.0.0.0 30080": "later", "tcp 0.0.0.0 30081": "later"}, got); diff != "" {
		t.Errorf("after the first ones went (-want +got):\n%s", diff)
	}
}

// TestRandomTables compares tables after random changes with a map, and every former table with what it was.
func TestRandomTables(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	frontend := func() Frontend {
		addr := netip.AddrFrom4([4]byte{10, 96, 0, byte(r.IntN(40))})
		if r.IntN(3) == 0 {
			addr = netip.MustParseAddr(fmt.Sprintf("fd00:10:96::%x", r.IntN(40)))
		}
		return Frontend{addr, []packet.Proto{packet.TCP, packet.UDP}[r.IntN(2)], uint16(r.IntN(4))}
	}
	external := func() Frontend {
		f := frontend()
		if r.IntN(2) == 0 {
			f.Addr = netip.AddrFrom4([4]byte{203, 0, 113, byte(r.IntN(40))})
		}
		return f
	}
	var all []Frontend
	for range 200 {
		all = append(all, frontend(), external())
	}
	reference := map[string]*Service{}
	table, former := New(ranges), map[*Table]map[Frontend]string{}
	for range 100 {
		changed := map[string]*Service{}
		for range 1 + r.IntN(5) {
			name := fmt.Sprintf("ns/%d", r.IntN(60))
			changed[name] = nil
			if r.IntN(3) > 0 {
				changed[name] = svc(name, frontend(), frontend(), frontend())
				changed[name].External = outside(name+" outside", external(), external()).External
			}
		}
		table = table.With(changed)
		for name, s := range changed {
			reference[name] = s
			if s == nil {
				delete(reference, name)
			}
		}
		was := map[Frontend]string{}
		names := slices.Sorted(maps.Keys(reference))
		for _, f := range all {
			was[f] = slowly(reference, names, f)
		}
		former[table] = was
		if table.Len() != len(reference) {
			t.Fatalf("%d Services, want %d", table.Len(), len(reference))
		}
	}
	for table, was := range former {
		got := map[Frontend]string{}
		for _, f := range all {
			got[f] = looked(table, f)
		}
		if !maps.Equal(was, got) {
			t.Fatalf("(-want +got):\n%s", cmp.Diff(was, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })))
		}
	}
}

// TestMayEnd: a change says whether flows may have to end by it, also when other changes follow.
func TestMayEnd(t *testing.T) {
	tcp, udp := at("10.96.0.5:80", packet.TCP), at("10.96.0.5:80", packet.UDP)
	table := New(ranges).With(map[string]*Service{"a/tcp": svc("tcp", tcp), "a/udp": svc("udp", udp),
		"a/out": outside("out", at("203.0.113.7:80", packet.TCP)), "a/out-udp": outside("out-udp", at("203.0.113.7:80", packet.UDP)),
	})
	for _, tt := range []struct {
		name    string
		changed map[string]*Service
		want    bool
	}{
		{"nothing", nil, false},
		{"backends of TCP", map[string]*Service{"a/tcp": svc("tcp", tcp)}, false},
		{"a Service of TCP goes", map[string]*Service{"a/tcp": nil}, false},
		{"an unknown one goes", map[string]*Service{"a/other": nil}, false},
		{"a new frontend", map[string]*Service{"a/tcp": svc("tcp", tcp, at("10.96.0.6:80", packet.TCP))}, true},
		{"a new Service", map[string]*Service{"a/new": svc("new", at("10.96.0.7:80", packet.TCP))}, true},
		{"backends of UDP", map[string]*Service{"a/udp": svc("udp", udp)}, true},
		{"a Service of UDP goes", map[string]*Service{"a/udp": nil}, true},
		{"a new External frontend", map[string]*Service{"a/new": outside("new", tcp)}, true},
		{"a known one", map[string]*Service{"a/out": outside("out", at("203.0.113.7:80", packet.TCP))}, false},
		{"one of UDP goes", map[string]*Service{"a/out-udp": nil}, true},
		{"a Service leaves UDP", map[string]*Service{"a/udp": svc("udp", tcp)}, true},
	} {
		next := table.With(tt.changed)
		if got := next.MayEnd(table); got != tt.want {
			t.Errorf("%s: got %v", tt.name, got)
		}
		if got := next.With(map[string]*Service{"a/tcp": nil}).MayEnd(table); got != tt.want {
			t.Errorf("%s, and another change: got %v", tt.name, got)
		}
	}
	if !New(ranges).MayEnd(New(ranges)) {
		t.Error("tables that have nothing to do with each other")
	}
}

// slowly looks a frontend up among Services, whose names are sorted.
func slowly(all map[string]*Service, names []string, f Frontend) string {
	result := "none"
	if slices.ContainsFunc(ranges, func(r netip.Prefix) bool { return r.Contains(f.Addr) }) {
		result = "unallocated"
	}
	external := ""
	for _, name := range names {
		for has, p := range all[name].Frontends {
			if has == f {
				return p.Name
			}
			if has.Addr == f.Addr {
				result = "other port"
			}
		}
		if p := all[name].External[f]; p != nil && external == "" {
			external = p.Name
		}
	}
	if external != "" && result != "other port" {
		return external
	}
	return result
}

// A reader of a table is not disturbed by the making of the next one.
func TestConcurrent(t *testing.T) {
	f := at("10.96.0.5:80", packet.TCP)
	table := New(ranges).With(map[string]*Service{"a/web": svc("web", f)})
	done := make(chan struct{})
	go func() {
		defer close(done)
		next := table
		for i := range 1000 {
			next = next.With(map[string]*Service{"a/web": nil, fmt.Sprint("a/", i): svc("other", f)})
		}
	}()
	for range 1000 {
		if got := looked(table, f); got != "web" {
			t.Errorf("got %s", got)
		}
	}
	<-done
}

func TestPortID(t *testing.T) {
	ids := map[uint64]string{}
	for _, p := range []struct{ namespace, service, port string }{
		{"a", "web", "http"}, {"a", "web", "https"}, {"a", "webh", "ttp"}, {"aw", "eb", "http"}, {"a", "web", ""}, {"", "aweb", "http"},
	} {
		for _, proto := range []packet.Proto{packet.TCP, packet.UDP} {
			id := PortID(p.namespace, p.service, p.port, proto)
			if other, taken := ids[id]; taken {
				t.Errorf("%v has the ID of %s", p, other)
			}
			ids[id] = fmt.Sprint(p, proto)
		}
	}
	if got := PortID("default", "web", "http", packet.TCP); got != 0xbf5a63cc5999ec18 {
		t.Errorf("got %#x: IDs outlive daemons", got)
	}
}

func TestLookupAllocs(t *testing.T) {
	table := New(ranges).With(map[string]*Service{"a/web": svc("web", at("10.96.0.5:80", packet.TCP))})
	hit, miss := to(at("10.96.0.5:80", packet.TCP)), to(at("10.244.1.3:80", packet.TCP))
	if n := testing.AllocsPerRun(100, func() {
		table.Lookup(hit)
		table.Lookup(miss)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// many returns n Services of ten backends each, of one port and one family.
func many(n int) map[string]*Service {
	all := make(map[string]*Service, n)
	for i := range n {
		all[nameOf(i)] = manyOf(i)
	}
	return all
}

func nameOf(i int) string { return fmt.Sprintf("namespace-%d/service-%d", i%100, i) }

func manyOf(i int) *Service {
	p := &Port{Name: nameOf(i) + ":http", ID: PortID("namespace", nameOf(i), "http", packet.TCP)}
	for j := range 10 {
		p.Internal.Backends = append(p.Internal.Backends, Backend{Addr: packet.KeyOf(netip.AddrFrom4([4]byte{10, 244, byte(i % 100), byte(j)})), Port: 8080})
	}
	p.Internal.Backends = slices.Clip(p.Internal.Backends)
	p.External.Backends, p.Serving = slices.Clone(p.Internal.Backends), slices.Clone(p.Internal.Backends)
	return &Service{Frontends: map[Frontend]*Port{{Addr: netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}), Proto: packet.TCP, Port: 80}: p}}
}

// BenchmarkTable: what one change, one lookup and all of a table cost.
func BenchmarkTable(b *testing.B) {
	for _, n := range []int{1, 1000, 10000} {
		table := New(ranges).With(many(n))
		b.Run(fmt.Sprintf("with/services=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			changed := map[string]*Service{nameOf(n / 2): nil}
			for b.Loop() {
				changed[nameOf(n/2)] = manyOf(n / 2)
				table = table.With(changed)
			}
		})
		b.Run(fmt.Sprintf("lookup/services=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			flows := make([]*packet.Flow, 1024)
			for i := range flows {
				for f := range manyOf(i * 7 % n).Frontends {
					flows[i] = to(f)
				}
			}
			i := 0
			for b.Loop() {
				table.Lookup(flows[i%1024])
				i++
			}
		})
		b.Run(fmt.Sprintf("memory/services=%d", n), func(b *testing.B) {
			for b.Loop() {
				before := heap()
				table := New(ranges).With(many(n))
				b.ReportMetric(float64(heap()-before), "bytes")
				runtime.KeepAlive(table)
			}
		})
	}
}

// heap returns how many bytes live on the heap.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
