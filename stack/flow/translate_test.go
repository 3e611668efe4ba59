package flow

import (
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/middleway-net/middleway/stack/packet"
)

// translated is a flow of the host that leaves from another address, with another port.
//
//	192.168.254.11:4000 -> 10.244.2.2:80   leaves as   10.244.1.0:5000 -> 10.244.2.2:80
func translated() Pair {
	return Pair{
		Flow:       flowOf(packet.TCP, "192.168.254.11:4000", "10.244.2.2:80"),
		Translated: flowOf(packet.TCP, "10.244.1.0:5000", "10.244.2.2:80"),
		Verdict:    toPeer, Reply: toPod, Generation: 3,
	}
}

func TestEnter(t *testing.T) {
	table := New(512)
	p := translated()
	c, ok := table.Enter(&p)
	if !ok || c.Flow != p.Flow || !c.Translates() || *c.LeavesAs() != p.Translated || c.Verdict != toPeer || c.Generation != 3 {
		t.Fatalf("entered %+v, %v", c, ok)
	}
	back, ok := table.Lookup(p.Translated.Reverse())
	if !ok || !back.Translates() || *back.LeavesAs() != p.Flow.Reverse() || back.Verdict != toPod {
		t.Fatalf("reply direction: %+v, %v", back, ok)
	}
	for _, f := range []packet.Flow{p.Flow.Reverse(), p.Translated} {
		if table.has(f) {
			t.Errorf("%v is there: nothing travels so", f)
		}
	}
	if table.Len() != 2 || table.twinOf(c.ref) != &table.entries[back.ref] {
		t.Errorf("%v, or its directions do not know each other", table)
	}
	fresh, ok := table.Rejudge(&c, toNode, 4)
	if !ok || !fresh.Translates() || fresh.Translated != p.Translated || fresh.Verdict != toNode {
		t.Errorf("judged again: %+v, %v", fresh, ok)
	}
}

// TestFromOutside: replies to a client outside go there whatever is judged, and whichever direction was lost; its own packets, and those
// of other flows, go where they are judged to go.
func TestFromOutside(t *testing.T) {
	outside := Verdict{Action: ToOutside}
	for _, tt := range []struct {
		name string
		from bool
		lost int // which direction is evicted: 0 none, 1 the client's, 2 the replies'
		want Verdict
	}{
		{"from outside", true, 0, outside},
		{"the client's direction was lost", true, 1, outside},
		{"the replies' direction was lost", true, 2, outside},
		{"from inside", false, 0, toPeer},
		{"from inside, a direction was lost", false, 2, toPeer},
	} {
		t.Run(tt.name, func(t *testing.T) {
			table := New(512)
			p := translated()
			p.Reply, p.FromOutside = outside, tt.from
			there, ok := table.Enter(&p)
			if !ok {
				t.Fatal("not entered")
			}
			back, _ := table.Lookup(p.Translated.Reverse())
			switch tt.lost { // and the other direction, when its next packet comes, enters it again
			case 1:
				table.free(there.ref)
				table.Lookup(back.Flow)
			case 2:
				table.free(back.ref)
				table.Lookup(there.Flow)
			}
			there, _ = table.Lookup(p.Flow)
			back, _ = table.Lookup(p.Translated.Reverse())
			glanced, _ := Glance{table}.Rejudge(&back, toPeer, 9)
			judged, ok := table.Rejudge(&back, toPeer, 9)
			if !ok || judged.Verdict != tt.want || glanced.Verdict != tt.want || judged.Generation != 9 {
				t.Errorf("replies go %+v, at a glance %+v; want %+v", judged.Verdict, glanced.Verdict, tt.want)
			}
			if judged, ok = table.Rejudge(&there, toPod, 9); !ok || judged.Verdict != toPod {
				t.Errorf("the client's packets go %+v", judged.Verdict)
			}
		})
	}
}

// All four parts of a flow may be translated, as for a Service whose backend is the client itself.
func TestEnterAll(t *testing.T) {
	table := New(512)
	p := Pair{
		Flow:       flowOf(packet.UDP, "10.244.1.2:4000", "10.96.0.10:53"),
		Translated: flowOf(packet.UDP, "10.244.1.1:6000", "10.244.1.2:5353"),
		Verdict:    toPod, Reply: toPod, Generation: 1,
	}
	if _, ok := table.Enter(&p); !ok {
		t.Fatal("not entered")
	}
	back, ok := table.Lookup(flowOf(packet.UDP, "10.244.1.2:5353", "10.244.1.1:6000"))
	if want := flowOf(packet.UDP, "10.96.0.10:53", "10.244.1.2:4000"); !ok || *back.LeavesAs() != want {
		t.Errorf("reply leaves as %v, want %v", back.LeavesAs(), want)
	}
}

// No two flows leave as one, whichever comes first.
func TestEnterTaken(t *testing.T) {
	other := translated()
	other.Flow = flowOf(packet.TCP, "203.0.113.5:4000", "10.244.2.2:80")
	own := translated()
	own.Flow = own.Translated // a socket of the address itself
	inbound := translated()   // a connection that the far pod opened to the same port
	inbound.Flow = inbound.Translated.Reverse()
	inbound.Translated = inbound.Flow
	for _, tt := range []struct {
		name          string
		first, second Pair
		ok            bool
	}{
		{"two translated ones", translated(), other, false},
		{"translated, then its own", translated(), own, false},
		{"its own, then translated", own, translated(), false},
		{"opened by the other end, then translated", inbound, translated(), false},
		{"the same twice", translated(), translated(), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			table := New(512)
			if _, ok := table.Enter(&tt.first); !ok {
				t.Fatal("the first one is not entered")
			}
			before := table.Len()
			if c, ok := table.Enter(&tt.second); ok != tt.ok || table.Len() != before {
				t.Errorf("got %+v, %v, %v", c, ok, table)
			}
			tt.second.Translated = flowOf(packet.TCP, "10.244.1.0:5001", "10.244.2.2:80")
			if _, ok := table.Enter(&tt.second); !ok {
				t.Error("another port is not free")
			}
		})
	}
	table := New(512)
	p := translated()
	table.Enter(&p)
	if c := create(table, p.Translated, toPeer, toPod, 1); c.Verdict != (Verdict{Reason: packet.DropTranslate}) || table.Len() != 2 {
		t.Errorf("a flow that would leave as a translated one: %+v, %v", c, table)
	}
}

// The first translation stands, whatever another worker thinks of.
func TestEnterAgain(t *testing.T) {
	table := New(512)
	p := translated()
	table.Enter(&p)
	again := translated()
	again.Translated = flowOf(packet.TCP, "10.244.1.0:5001", "10.244.2.2:80")
	if c, ok := table.Enter(&again); !ok || c.Translated != p.Translated || table.Len() != 2 {
		t.Errorf("got %+v, %v, %v", c, ok, table)
	}
}

// A translated flow of which one direction was evicted is entered again as it was, from what the other one tells: its packets
// would come through untranslated.
func TestWidowed(t *testing.T) {
	for _, opened := range []bool{true, false} {
		table, clock := withClock(New(512))
		p := translated()
		there, back := p.Flow, p.Translated.Reverse()
		cache := NewCache(table)
		first, _ := table.Enter(&p)
		second, _ := table.Lookup(back)
		evicted, left := second, first
		if !opened {
			evicted, left = first, second
		}
		cache.Put(left)
		table.free(evicted.ref)
		clock.advance(time.Second)
		if got := cache.Get(&left.Flow, clock.now()); got == nil || got.Generation != unjudged || got.LeavesAs() == nil {
			t.Fatalf("opener is left %v: got %+v, want a flow that is to be judged", opened, got)
		}
		for f, want := range map[packet.Flow]packet.Flow{there: p.Translated, back: there.Reverse()} {
			if c, ok := table.Peek(f); !ok || c.Translated != want {
				t.Errorf("opener is left %v: %v leaves as %v, want %v", opened, f, c.Translated, want)
			}
		}
		for l := range table.Live() {
			if l.Flow != there || l.LeavesAs != p.Translated {
				t.Errorf("opener is left %v: opened as %v -> %v", opened, l.Flow, l.LeavesAs)
			}
		}
		if table.Len() != 2 {
			t.Errorf("opener is left %v: %v", opened, table)
		}
	}
}

// A fresh flow waits for its answer longer than a full bucket keeps datagrams that came long ago.
func TestEvictionSparesFresh(t *testing.T) {
	table, clock := withClock(New(512))
	flows := sameBucket(table, packet.UDP, ways+1)
	for i, f := range flows[:ways] {
		p := Pair{Flow: f, Translated: translatedElsewhere(table, f, uint16(i)), Verdict: toPod, Reply: toNode}
		if _, ok := table.Enter(&p); !ok {
			t.Fatal("not entered")
		}
		if i != 5 {
			table.Lookup(p.Translated.Reverse())
		}
		if i == 3 {
			clock.advance(udpOneWay + time.Second)
		}
	}
	create(table, flows[ways], toPod, toNode, 1)
	for i, f := range flows {
		if got := table.has(f); got != (i != 0) {
			t.Errorf("flow %d: there %v", i, got)
		}
	}
}

// A flow that lost its other direction to one that leaves as it does cannot go on as it is: replies would reach the other one's client.
func TestWidowedIsSucceeded(t *testing.T) {
	table, clock := withClock(New(512))
	cache := NewCache(table)
	p := translated()
	plain := Pair{Flow: p.Translated, Translated: p.Translated, Verdict: toPod, Reply: toNode, Generation: 1}
	c, _ := table.Enter(&plain)
	cache.Put(c)
	back, _ := table.Peek(plain.Flow.Reverse())
	table.free(back.ref)
	if _, ok := table.Enter(&p); !ok {
		t.Fatal("replies still belong to a flow that is gone")
	}
	glance := Glance{table}
	if !glance.Renew(&c, false) {
		t.Error("a glance finds that a SYN does not begin anew")
	}
	clock.advance(time.Second)
	if got := cache.Get(&plain.Flow, clock.now()); got != nil {
		t.Errorf("got %+v, want none", got)
	}
	if _, ok := table.Enter(&plain); ok {
		t.Error("two flows leave as one")
	}
	if got, ok := table.Lookup(p.Translated.Reverse()); !ok || got.Translated != p.Flow.Reverse() {
		t.Errorf("replies leave as %+v, %v", got, ok)
	}
}

// A connection that is over stays so when it is entered anew, and goes first when room is needed, whichever direction is left.
func TestWidowedIsOver(t *testing.T) {
	for _, flags := range [][]uint8{{packet.RST}, {packet.FIN, packet.FIN}} {
		table, clock := withClock(New(512))
		p := translated()
		there, _ := table.Enter(&p)
		back, _ := table.Lookup(p.Translated.Reverse())
		for i, f := range flags {
			table.Closing([]*Copy{&there, &back}[i], f)
		}
		table.free(there.ref)
		table.Lookup(back.Flow)
		clock.advance(tcpClosing + time.Second)
		if table.sweep(); table.Len() != 0 {
			t.Errorf("flags %v: %v after %v", flags, table, tcpClosing)
		}
	}
}

// In the second in which it loses its other direction, a flow begins anew with a SYN. One that is its own other direction has none to
// lose.
func TestRenewWidowed(t *testing.T) {
	table, _ := withClock(New(512))
	f := flowOf(packet.TCP, "10.244.1.2:4000", "10.244.2.2:80")
	c, _ := table.Enter(&Pair{Flow: f, Translated: f, Verdict: toPod, Reply: toNode, Generation: 1})
	if table.Renew(&c, false) {
		t.Error("a flow of which nothing is gone is renewed")
	}
	back, _ := table.Peek(f.Reverse())
	table.free(back.ref)
	if !table.Renew(&c, false) || table.Len() != 0 {
		t.Errorf("the flow is not renewed: %v", table)
	}
	self := flowOf(packet.TCP, "10.244.1.2:80", "10.244.1.2:80")
	c, _ = table.Enter(&Pair{Flow: self, Translated: self, Verdict: toPod, Generation: 1})
	if got, ok := table.Lookup(self); table.Renew(&c, false) || !ok || got.Generation != 1 {
		t.Errorf("got %+v, %v", got, ok)
	}
}

// A full bucket gives up a translated flow that was answered only when there is nothing else.
func TestEvictionSparesTranslated(t *testing.T) {
	table, _ := withClock(New(512))
	flows := sameBucket(table, packet.UDP, ways+1)
	for i, f := range flows[:ways] {
		p := Pair{Flow: f, Translated: f, Verdict: toPod, Reply: toNode}
		if i != 5 && i != 6 {
			p.Translated = translatedElsewhere(table, f, uint16(i))
		}
		if _, ok := table.Enter(&p); !ok {
			t.Fatal("not entered")
		}
		if i != 5 {
			table.Lookup(p.Translated.Reverse())
		}
	}
	create(table, flows[ways], toPod, toNode, 1)
	for i, f := range flows {
		if got := table.has(f); got != (i != 5) {
			t.Errorf("flow %d: there %v", i, got)
		}
	}
}

// translatedElsewhere returns f from a port of the node, n modulo ways, whose replies are not in f's bucket: the hash is keyed
// anew in every run, and replies there would take a way from the flows that a test counts.
func translatedElsewhere(t *Table, f packet.Flow, n uint16) packet.Flow {
	for ; ; n += ways {
		translated := f.WithSource(packet.KeyOf(netip.MustParseAddr("10.244.1.0")), n)
		if t.bucket(t.hash(translated.Reverse())) != t.bucket(t.hash(f)) {
			return translated
		}
	}
}

func TestPeek(t *testing.T) {
	table, clock := withClock(New(512))
	p := translated()
	table.Enter(&p)
	reply := p.Translated.Reverse()
	clock.advance(time.Minute)
	c, ok := table.Peek(reply)
	if e := table.entryOf(reply); !ok || *c.LeavesAs() != p.Flow.Reverse() || e.is(seenOne) || e.seen.Load() == clock.now() {
		t.Errorf("got %+v, %v; noted %v", c, ok, e.is(seenOne))
	}
	if _, ok := table.Peek(p.Translated); ok {
		t.Error("found what is not there")
	}
}

func TestReopenTranslated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "flows")
	table := open(t, path, 512)
	p := translated()
	c, _ := table.Enter(&p)
	closed(t, table)
	table = open(t, path, 512)
	back, ok := table.Lookup(p.Translated.Reverse())
	if table.Restored() != 2 || !ok || *back.LeavesAs() != p.Flow.Reverse() {
		t.Errorf("restored %d: %+v, %v", table.Restored(), back, ok)
	}
	// What no table has written: a flow that would leave as one of another protocol.
	table.entries[c.ref].translated = flowOf(packet.UDP, "10.244.1.0:5000", "10.244.2.2:80")
	closed(t, table)
	table = open(t, path, 512)
	defer closed(t, table)
	if table.has(p.Flow) || table.Restored() != 1 {
		t.Errorf("%d restored, there %v", table.Restored(), table.has(p.Flow))
	}
}

// TestEnterConcurrently lets workers enter the same flows of three sources that all want the same ports. Every worker must
// see the same translation of a flow, and no two flows may leave as one. Run it with -race.
func TestEnterConcurrently(t *testing.T) {
	const workers, ports = 4, 200
	table := New(1 << 16)
	sources := []string{"192.168.254.11", "203.0.113.5", "10.244.1.0"}
	host := packet.KeyOf(netip.MustParseAddr("10.244.1.0"))
	var mu sync.Mutex
	leaves := map[packet.Flow]packet.Flow{}
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			cache := NewCache(table)
			for _, i := range rand.Perm(ports * len(sources)) {
				src := netip.AddrPortFrom(netip.MustParseAddr(sources[i%len(sources)]), uint16(1000+i/len(sources)))
				p := Pair{Flow: packet.NewFlow(packet.TCP, src, netip.MustParseAddrPort("10.244.2.2:80")), Verdict: toPeer, Reply: toPod}
				c := cache.Get(&p.Flow, cache.Now())
				for port, ok := src.Port(), false; c == nil; port = uint16(rand.IntN(1 << 16)) {
					p.Translated = p.Flow.WithSource(host, port)
					var entered Copy
					if entered, ok = table.Enter(&p); ok {
						c = cache.Put(entered)
					}
				}
				mu.Lock()
				if was, ok := leaves[p.Flow]; ok && was != *c.LeavesAs() {
					t.Errorf("%v leaves as %v and as %v", p.Flow, was, c.LeavesAs())
				}
				leaves[p.Flow] = *c.LeavesAs()
				mu.Unlock()
			}
		})
	}
	group.Wait()
	by := map[packet.Flow]packet.Flow{}
	for f, out := range leaves {
		if other, taken := by[out]; taken {
			t.Errorf("%v and %v both leave as %v", f, other, out)
		}
		by[out] = f
	}
	if len(leaves) != ports*len(sources) || table.Len() != 2*len(leaves) {
		t.Errorf("%d flows, %v", len(leaves), table)
	}
}

func TestTranslatedAllocs(t *testing.T) {
	table := New(512)
	cache := NewCache(table)
	p := translated()
	c, _ := table.Enter(&p)
	cache.Put(c)
	taken := translated()
	taken.Flow = taken.Flow.WithSource(packet.AddrKey{}, 1)
	now := uint32(1)
	for name, run := range map[string]func(){
		"hit":   func() { now++; cache.Get(&p.Flow, now).LeavesAs() },
		"enter": func() { table.Enter(&p) },
		"taken": func() { table.Enter(&taken) },
		"peek":  func() { table.Peek(p.Flow) },
	} {
		if n := testing.AllocsPerRun(100, run); n != 0 {
			t.Errorf("%s: got %v allocations, want 0", name, n)
		}
	}
}
