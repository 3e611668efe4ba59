package flow

import (
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/middleway-net/middleway/stack/packet"
)

// TestLive lists each flow once, from the side that opened it, with its state and age.
func TestLive(t *testing.T) {
	table, clock := withClock(New(0))
	enter := func(i int, then func(there, back Copy)) Pair {
		f := numbered(packet.TCP, i)
		p := Pair{Flow: f, Translated: f.WithSource(key(0x100), uint16(5000+i)), Verdict: toPeer, Reply: toPod, Generation: 3}
		there, _ := table.Enter(&p)
		back, _ := table.Peek(p.Translated.Reverse())
		then(there, back)
		clock.advance(time.Second)
		return p
	}
	var want []Listed
	for i, tt := range []struct {
		state State
		then  func(there, back Copy)
	}{
		{Opened, func(Copy, Copy) {}},
		{Active, func(_, back Copy) { table.Lookup(back.Flow) }},
		{Closing, func(there, back Copy) { table.Lookup(back.Flow); table.Closing(&there, packet.FIN) }},
		{Closing, func(_, back Copy) { table.Lookup(back.Flow); table.Closing(&back, packet.FIN) }},
		{Reset, func(_, back Copy) { table.Closing(&back, packet.RST) }},
	} {
		p := enter(i, tt.then)
		age := time.Duration(5-i) * time.Second
		want = append(want, Listed{Flow: p.Flow, LeavesAs: p.Translated, Verdict: toPeer, Generation: 3, State: tt.state, Age: age, Idle: age})
	}
	byFlow := func(of []Listed) map[packet.Flow]Listed {
		all := map[packet.Flow]Listed{}
		for _, l := range of {
			all[l.Flow] = l
		}
		return all
	}
	var got []Listed
	for l := range table.Live() {
		got = append(got, l)
	}
	opts := cmp.Options{cmp.Comparer(func(a, b packet.Flow) bool { return a == b }), cmp.Comparer(func(a, b Verdict) bool { return a == b }), cmpopts.IgnoreUnexported(Listed{})}
	if diff := cmp.Diff(byFlow(want), byFlow(got), opts); diff != "" || len(got) != len(want) {
		t.Errorf("%d flows, want %d (-want +got):\n%s", len(got), len(want), diff)
	}
	clock.advance(time.Minute) // all but the active one and those closed by one side are past their time
	left := 0
	for range table.Live() {
		left++
	}
	if left != 3 {
		t.Errorf("%d flows a minute later, want 3", left)
	}
}

// A flow of which one direction was entered again is listed once, from the side that opened it.
func TestLiveHalf(t *testing.T) {
	for _, evicted := range []bool{false, true} { // the opener's direction
		table := New(512)
		f := numbered(packet.UDP, 1)
		create(table, f, toPod, toPeer, 1)
		gone := f.Reverse()
		if evicted {
			gone = f
		}
		ref, _ := table.find(gone)
		table.free(ref)
		create(table, gone, toPod, toPeer, 1)
		n := 0
		for l := range table.Live() {
			if n++; l.Flow != f {
				t.Errorf("opener evicted %v: listed as %v", evicted, l.Flow)
			}
		}
		if n != 1 {
			t.Errorf("opener evicted %v: listed %d times", evicted, n)
		}
	}
}

// TestFreeIf frees both directions of what it chooses, and nothing else, while others use the table.
func TestFreeIf(t *testing.T) {
	table := New(0)
	const n = 1000
	pair := func(i int) Pair {
		f := numbered(packet.UDP, i)
		return Pair{Flow: f, Translated: f.WithSource(key(0x100), uint16(5000+i)), Verdict: toPeer, Reply: toPod, Generation: 1}
	}
	for i := range n {
		p := pair(i)
		table.Enter(&p)
	}
	var busy sync.WaitGroup
	for range 2 {
		busy.Go(func() {
			cache := NewCache(table)
			for i := range n {
				f := pair(i).Flow
				cache.Get(&f, cache.Now())
			}
		})
	}
	cache := NewCache(table)
	for i := range n {
		f := pair(i).Flow
		cache.Get(&f, cache.Now())
	}
	freed := table.FreeIf(func(l *Listed) bool { return l.Flow.SrcPort()%2 == 0 })
	busy.Wait()
	even := 0
	for i := range n {
		p := pair(i)
		gone := p.Flow.SrcPort()%2 == 0
		if gone {
			even++
		}
		back := p.Translated.Reverse()
		if table.has(p.Flow) == gone || table.has(back) == gone {
			t.Fatalf("flow %d: there %v, its reply %v; chosen %v", i, table.has(p.Flow), table.has(back), gone)
		}
		if c := cache.Get(&p.Flow, cache.Now()); (c == nil) != gone {
			t.Fatalf("flow %d: the worker's copy is used: %v; chosen %v", i, c != nil, gone)
		}
	}
	if freed != even || table.Len() != 2*(n-even) {
		t.Errorf("freed %d of %d, %v left", freed, even, table)
	}
}

// What is past its lifetime is freed too: until it is swept a packet would bring it to life.
func TestFreeIfExpired(t *testing.T) {
	table, clock := withClock(New(512))
	p := translated()
	table.Enter(&p)
	clock.advance(24 * time.Hour)
	if freed := table.FreeIf(func(*Listed) bool { return true }); freed != 1 || table.Len() != 0 {
		t.Errorf("freed %d, %v left", freed, table)
	}
}

// TestRenew: only what is translated and over is freed.
func TestRenew(t *testing.T) {
	for _, tt := range []struct {
		name  string
		plain bool
		then  func(table *Table, there, back Copy)
		want  bool
	}{
		{"opened", false, func(*Table, Copy, Copy) {}, false},
		{"closed by its sender", false, func(table *Table, there, _ Copy) { table.Closing(&there, packet.FIN) }, true},
		{"closed by the other side", false, func(table *Table, _, back Copy) { table.Closing(&back, packet.FIN) }, false},
		{"closed by both", false, func(table *Table, there, back Copy) {
			table.Closing(&there, packet.FIN)
			table.Closing(&back, packet.FIN)
		}, true},
		{"reset by one", false, func(table *Table, _, back Copy) { table.Closing(&back, packet.RST) }, true},
		{"not translated", true, func(table *Table, there, _ Copy) { table.Closing(&there, packet.RST) }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			table := New(512)
			p := translated()
			if tt.plain {
				p.Translated = p.Flow
			}
			there, _ := table.Enter(&p)
			back, _ := table.Peek(p.Translated.Reverse())
			tt.then(table, there, back)
			if g := (Glance{table}); g.Renew(&there, false) != tt.want || g.Renew(&there, true) == tt.plain || table.Len() != 2 {
				t.Errorf("a glance: want %v; %v", tt.want, table)
			}
			if got := table.Renew(&there, false); got != tt.want || (table.Len() == 0) != tt.want {
				t.Errorf("got %v, %v left", got, table)
			}
			table.Enter(&p)
			there, _ = table.Peek(p.Flow)
			if got := table.Renew(&there, true); got == tt.plain {
				t.Errorf("forsaken: got %v", got)
			}
		})
	}
}

// TestGlance: a glance says what the table would, and leaves it as it is.
func TestGlance(t *testing.T) {
	table, clock := withClock(New(512))
	p := translated()
	g := Glance{table}
	if c, ok := g.Enter(&p); !ok || p.Entered || c.Translated != p.Translated || c.Verdict != p.Verdict || table.Len() != 0 {
		t.Errorf("a new flow: %+v, %v, %v", c, ok, table)
	}
	table.Enter(&p)
	other := translated()
	other.Flow = flowOf(packet.TCP, "203.0.113.5:4000", "10.244.2.2:80")
	if _, ok := g.Enter(&other); ok {
		t.Error("a flow that would leave as another one is let through")
	}
	before := *table.entryOf(p.Flow)
	clock.advance(time.Minute / 2)
	cache := g.NewCache()
	for range 2 {
		c := cache.Get(&p.Flow, cache.Now())
		if c == nil || c.Translated != p.Translated {
			t.Fatalf("got %+v", c)
		}
		g.Opening(c)
		g.Closing(c, packet.RST)
		if fresh, ok := g.Rejudge(c, toNode, 9); !ok || fresh.Verdict != toNode || fresh.Generation != 9 {
			t.Errorf("judged again: %+v, %v", fresh, ok)
		}
	}
	if after := table.entryOf(p.Flow); after.seen.Load() != before.seen.Load() || after.state.Load() != before.state.Load() || after.version.Load() != before.version.Load() || after.generation != before.generation {
		t.Error("the entry was changed")
	}
	if c := cache.Get(new(packet.Flow), cache.Now()); c != nil {
		t.Errorf("an unknown flow: got %+v", c)
	}
}
