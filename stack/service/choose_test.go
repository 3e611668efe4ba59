package service

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/middleway-net/middleway/stack/packet"
)

var vip = at("10.96.0.5:80", packet.TCP)

// backend returns the n-th backend.
func backend(n int) Backend {
	return Backend{Addr: packet.KeyOf(netip.AddrFrom4([4]byte{10, 244, byte(n >> 8), byte(n)})), Port: 8080}
}

// with returns a port in a table, whose backends have the given numbers.
func with(t *Table, s Scheduler, numbers ...int) (*Table, *Port) {
	p := &Port{Name: "web", Scheduler: s}
	for _, n := range numbers {
		p.Internal.Backends = append(p.Internal.Backends, backend(n))
	}
	p.Serving = p.Internal.Backends
	return t.With(map[string]*Service{"a/web": {Frontends: map[Frontend]*Port{vip: p}}}), p
}

// client returns a flow to the Service.
func client(n int) *packet.Flow {
	src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 244, 1, byte(n >> 14)}), uint16(n&0x3fff))
	f := packet.NewFlow(packet.TCP, src, netip.AddrPortFrom(vip.Addr, vip.Port))
	return &f
}

// choose picks n times and returns how often each backend was picked, by number.
func choose(p *Port, n int) map[int]int {
	picked := map[int]int{}
	for i := range n {
		b := p.Choose(&p.Internal, client(i))
		p.Chosen(&p.Internal, b)
		a := p.Internal.Backends[b].Addr.Addr().As4()
		picked[int(a[2])<<8|int(a[3])]++
	}
	return picked
}

// TestBalance: each scheduler spreads connections evenly. Of 30,000 random ones 5 % of a backend's share are
// six standard deviations; Maglev's slots are even, and the hash adds the same chance.
func TestBalance(t *testing.T) {
	for _, tt := range []struct {
		s         Scheduler
		tolerance float64
	}{{Random, 0.05}, {RoundRobin, 0}, {LeastConnections, 0}, {Maglev, 0.05}} {
		t.Run(tt.s.String(), func(t *testing.T) {
			_, p := with(New(ranges), tt.s, 1, 2, 3)
			for b, n := range choose(p, 30000) {
				if off := math.Abs(float64(n)/10000 - 1); off > tt.tolerance {
					t.Errorf("backend %d: %d of 30000, off by %.3f", b, n, off)
				}
			}
		})
	}
}

// One backend is chosen always, and none of several is left out.
func TestChooseFew(t *testing.T) {
	for s := Random; s <= Maglev; s++ {
		for n := 1; n <= 20; n++ {
			var numbers []int
			for i := range n {
				numbers = append(numbers, i)
			}
			_, p := with(New(ranges), s, numbers...)
			if got := choose(p, 100*n*n); len(got) != n {
				t.Errorf("%v: %d of %d backends are chosen", s, len(got), n)
			}
		}
	}
}

// Turns go on where they were when a Service changes.
func TestRoundRobinGoesOn(t *testing.T) {
	table, p := with(New(ranges), RoundRobin, 1, 2, 3)
	var got []int
	next := func() {
		b := p.Choose(&p.Internal, client(1))
		p.Chosen(&p.Internal, b)
		got = append(got, b)
	}
	next()
	next()
	_, p = with(table, RoundRobin, 1, 2, 3, 4)
	next()
	next()
	next()
	if want := []int{0, 1, 2, 3, 0}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Counts go with their backends when a Service changes, and a recount puts them right.
func TestLeastConnections(t *testing.T) {
	table, p := with(New(ranges), LeastConnections, 1, 2, 3)
	if !table.CountsConnections() {
		t.Fatal("the table does not want to know of connections")
	}
	choose(p, 30)
	table, p = with(table, LeastConnections, 3, 9, 1)
	if diff := cmp.Diff(map[int]int{9: 10}, choose(p, 10)); diff != "" {
		t.Errorf("another backend gets as many as the others have first (-want +got):\n%s", diff)
	}
	counts := NewCounts(table)
	for i := range 5 {
		f := client(i)
		to := f.WithDestination(backend(9).Addr, 8080)
		counts.Add(p, &to)
		stray := f.WithDestination(backend(77).Addr, 8080)
		counts.Add(p, &stray)
	}
	counts.Set()
	if diff := cmp.Diff(map[int]int{1: 5, 3: 5}, choose(p, 10)); diff != "" {
		t.Errorf("after a recount (-want +got):\n%s", diff)
	}
	table, _ = with(table, Random, 1, 2)
	if table.CountsConnections() {
		t.Error("nobody counts, and the table says so")
	}
	if table = table.With(map[string]*Service{"a/web": nil}); table.CountsConnections() || table.Len() != 0 {
		t.Errorf("removed: %d Services, counted %v", table.Len(), table.CountsConnections())
	}
}

// TestMaglev: the same backends, in whatever order, make the same choice, and few clients move when one of them goes.
func TestMaglev(t *testing.T) {
	numbers := make([]int, 50)
	for i := range numbers {
		numbers[i] = i
	}
	chosen := func(numbers []int) []packet.AddrKey {
		_, p := with(New(ranges), Maglev, numbers...)
		var all []packet.AddrKey
		for i := range 10000 {
			all = append(all, p.Internal.Backends[p.Choose(&p.Internal, client(i))].Addr)
		}
		return all
	}
	before := chosen(numbers)
	shuffled := slices.Clone(numbers)
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	if !slices.Equal(chosen(shuffled), before) {
		t.Error("another order of the backends makes another choice")
	}
	moved := 0
	for i, b := range chosen(numbers[1:]) {
		if before[i] != backend(0).Addr && before[i] != b {
			moved++
		}
	}
	if moved > 300 {
		t.Errorf("one of 50 backends went, and %d of 10000 clients of the others moved", moved)
	}
}

func TestMaglevSizes(t *testing.T) {
	for _, n := range []int{1, 2, 3, 100, 655, 1000} {
		var all []Backend
		for i := range n {
			all = append(all, backend(i))
		}
		slots := make([]int, n)
		table := maglev(all)
		for _, b := range table {
			slots[b]++
		}
		if least, most := slices.Min(slots), slices.Max(slots); least < len(table)/n || most > len(table)/n+1 {
			t.Errorf("%d backends: from %d to %d slots of %d", n, least, most, len(table))
		}
	}
}

func TestParseScheduler(t *testing.T) {
	for s := Random; s <= Maglev; s++ {
		if got, ok := ParseScheduler(s.String()); !ok || got != s {
			t.Errorf("%v: got %v, %v", s, got, ok)
		}
	}
	if got, ok := ParseScheduler(""); !ok || got != Random {
		t.Errorf("no name: got %v, %v", got, ok)
	}
	for _, name := range []string{"rr", "Random", "unknown"} {
		if _, ok := ParseScheduler(name); ok {
			t.Errorf("%q is taken", name)
		}
	}
}

func TestServes(t *testing.T) {
	_, p := with(New(ranges), Random, 1, 2)
	p.External.Backends = []Backend{backend(3)}
	for n, want := range []bool{false, true, true, true, false} {
		if got := p.Serves(backend(n).Addr, 8080); got != want {
			t.Errorf("backend %d: got %v", n, got)
		}
	}
	if p.Serves(backend(1).Addr, 8081) {
		t.Error("another port of a backend serves")
	}
}

func TestChooseAllocs(t *testing.T) {
	for s := Random; s <= Maglev; s++ {
		_, p := with(New(ranges), s, 1, 2, 3)
		f := client(1)
		if n := testing.AllocsPerRun(100, func() { p.Chosen(&p.Internal, p.Choose(&p.Internal, f)) }); n != 0 {
			t.Errorf("%v: %v allocations", s, n)
		}
	}
}

func BenchmarkChoose(b *testing.B) {
	for s := Random; s <= Maglev; s++ {
		b.Run(fmt.Sprint(s), func(b *testing.B) {
			_, p := with(New(ranges), s, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
			f := client(1)
			b.ReportAllocs()
			for b.Loop() {
				p.Chosen(&p.Internal, p.Choose(&p.Internal, f))
			}
		})
	}
}
