package flow

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/middleway-net/middleway/stack/packet"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(victimVar); path != "" {
		victim(path)
	}
	os.Exit(m.Run())
}

// Shorthand of the rows.

var (
	toPod  = Verdict{Action: ToAttachment, Attachment: 7}
	toPeer = Verdict{Action: ToPeer, Peer: netip.MustParseAddr("192.168.254.12")}
	toNode = Verdict{Action: ToNode}
)

func flowOf(proto packet.Proto, src, dst string) packet.Flow {
	return packet.NewFlow(proto, netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst))
}

// numbered returns the i-th of many flows from one pod.
func numbered(proto packet.Proto, i int) packet.Flow {
	src := netip.AddrPortFrom(netip.MustParseAddr("10.244.1.2"), uint16(i))
	dst := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 244, 2, byte(i >> 16)}), 80)
	return packet.NewFlow(proto, src, dst)
}

// fake is a clock that stands still.
type fake struct{ second uint32 }

func (c *fake) now() uint32              { return c.second }
func (c *fake) advance(d time.Duration)  { c.second += uint32(d / time.Second) }
func withClock(t *Table) (*Table, *fake) { c := &fake{second: 1000}; t.now = c.now; return t, c }
func (t *Table) sweep()                  { t.buckets(t.expire) }
func (t *Table) has(f packet.Flow) bool  { _, ok := t.find(f); return ok }
func (t *Table) entryOf(f packet.Flow) *entry {
	ref, ok := t.find(f)
	if !ok {
		return nil
	}
	return &t.entries[ref]
}

func (t *Table) buckets(f func(uint32)) {
	for b := range uint32(len(t.entries) / ways) {
		f(b)
	}
}

// sameBucket returns n flows of the protocol whose entries meet in one bucket, while those of their replies do not.
func sameBucket(t *Table, proto packet.Proto, n int) (flows []packet.Flow) {
	var bucket uint32
	for i := 0; len(flows) < n; i++ {
		f := numbered(proto, i)
		b := t.bucket(t.hash(f))
		if len(flows) == 0 {
			bucket = b
		}
		if b == bucket && t.bucket(t.hash(f.Reverse())) != bucket {
			flows = append(flows, f)
		}
	}
	return flows
}

func TestCreate(t *testing.T) {
	for _, tt := range []struct {
		name     string
		f        packet.Flow
		v, reply Verdict
	}{
		{"pod to pod", flowOf(packet.TCP, "10.244.1.2:4000", "10.244.1.3:80"), toPod, Verdict{Action: ToAttachment, Attachment: 1}},
		{"pod to peer", flowOf(packet.UDP, "10.244.1.2:4000", "10.244.2.3:53"), toPeer, toPod},
		{"pod to peer over IPv6", flowOf(packet.UDP, "[fd00:10:244:1::2]:4000", "[fd00:10:244:2::3]:53"), Verdict{Action: ToPeer, Peer: netip.MustParseAddr("fd00:254::12")}, toPod},
		{"pod to node", flowOf(packet.ICMP, "10.244.1.2:9", "10.244.1.1:9"), toNode, toPod},
		{"reply is dropped", flowOf(packet.SCTP, "10.244.1.2:9", "10.244.1.3:9"), toPod, Verdict{Reason: packet.DropNoRoute}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			table := New(512)
			if _, ok := table.Lookup(tt.f); ok {
				t.Fatal("found before it was created")
			}
			got := table.Create(tt.f, tt.v, tt.reply, 3)
			again, ok := table.Lookup(tt.f)
			back, ok2 := table.Lookup(tt.f.Reverse())
			if !ok || !ok2 || got.Flow != tt.f || again.Flow != tt.f || back.Flow != tt.f.Reverse() {
				t.Fatalf("got %v, %v %v, %v %v", got.Flow, again.Flow, ok, back.Flow, ok2)
			}
			if got.Verdict != tt.v || again.Verdict != tt.v || back.Verdict != tt.reply {
				t.Errorf("got %+v, %+v, %+v", got.Verdict, again.Verdict, back.Verdict)
			}
			if got.Generation != 3 || back.Generation != 3 || table.Len() != 2 || table.Restored() != 0 || table.Evicted() != 0 {
				t.Errorf("got generations %d, %d, %v", got.Generation, back.Generation, table)
			}
		})
	}
}

func TestCreateTwice(t *testing.T) {
	table := New(512)
	f := numbered(packet.TCP, 1)
	table.Create(f, toPod, toPeer, 1)
	if got := table.Create(f, toNode, toNode, 2); got.Verdict != toPod || got.Generation != 1 {
		t.Errorf("the second worker's verdict stands: %+v", got)
	}
	if got := table.Create(f.Reverse(), toNode, toNode, 2); got.Verdict != toPeer || table.Len() != 2 {
		t.Errorf("the other direction's second verdict stands: %+v, %v", got, table)
	}
}

// TestCreateHalf creates a flow of which only the reply is left.
func TestCreateHalf(t *testing.T) {
	table := New(512)
	f := numbered(packet.TCP, 1)
	table.Create(f, toPod, toPeer, 1)
	ref, _ := table.find(f)
	table.free(ref)
	if got := table.Create(f, toNode, toNode, 2); got.Verdict != toNode || table.Len() != 2 {
		t.Errorf("got %+v, %v", got, table)
	}
	back, _ := table.Lookup(f.Reverse())
	if e, twin := table.entryOf(f), table.twinOf(back.ref); back.Verdict != toPeer || twin != e {
		t.Errorf("the reply: got %+v, its twin is not the new entry", back)
	}
}

func TestCreateToItself(t *testing.T) {
	table := New(512)
	f := flowOf(packet.UDP, "10.244.1.2:53", "10.244.1.2:53")
	got := table.Create(f, toPod, toNode, 1)
	if got.Verdict != toPod || table.Len() != 1 || table.twinOf(got.ref) != nil {
		t.Errorf("got %+v, %v", got, table)
	}
}

func TestRoundEntries(t *testing.T) {
	for n, want := range map[int]int{-1: DefaultEntries, 0: DefaultEntries, 1: 512, 512: 512, 513: 1024, 65536: 65536, 65537: 131072} {
		if got := len(New(n).entries); got != want {
			t.Errorf("%d: got %d, want %d", n, got, want)
		}
	}
}

func TestActionString(t *testing.T) {
	for a, want := range map[Action]string{Drop: "drop", ToAttachment: "attachment", ToPeer: "peer", ToNode: "node", 99: "drop"} {
		if got := a.String(); got != want {
			t.Errorf("%d: got %s, want %s", a, got, want)
		}
	}
	if v := (Verdict{}); v.Action != Drop {
		t.Error("the zero verdict does not drop")
	}
}

func TestCacheStale(t *testing.T) {
	f := numbered(packet.TCP, 1)
	for _, tt := range []struct {
		name   string
		change func(*Table, Copy)
		want   *Copy // nil: unknown
	}{
		{"nothing happens", func(*Table, Copy) {}, &Copy{Flow: f, Verdict: toPod, Generation: 1}},
		{"judged again", func(table *Table, c Copy) { table.Rejudge(&c, toPeer, 2) }, &Copy{Flow: f, Verdict: toPeer, Generation: 2}},
		{"freed", func(table *Table, c Copy) { table.free(c.ref) }, nil},
		{"freed and used by another flow", func(table *Table, c Copy) {
			table.free(c.ref)
			table.put(c.ref, numbered(packet.TCP, 2), toNode, 1, 1)
		}, nil},
		{"freed and created again", func(table *Table, c Copy) {
			table.free(c.ref)
			table.Create(f, toNode, toNode, 3)
		}, &Copy{Flow: f, Verdict: toNode, Generation: 3}},
		{"closed: no new verdict", func(table *Table, c Copy) { table.Closing(&c, packet.RST) }, &Copy{Flow: f, Verdict: toPod, Generation: 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			table := New(512)
			cache := NewCache(table)
			c := cache.Put(table.Create(f, toPod, toNode, 1))
			if got := cache.Get(&f, 5); got != c || got.Verdict != toPod {
				t.Fatalf("got %+v, want the copy that was put", got)
			}
			tt.change(table, *c)
			got := cache.Get(&f, 6)
			if (got == nil) != (tt.want == nil) || got != nil && cmp.Diff(*tt.want, *got, cmpopts.IgnoreUnexported(Copy{}), cmp.Comparer(func(a, b packet.Flow) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })) != "" {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

// TestCacheSharesSlot gets two flows that take turns on one slot of the cache.
func TestCacheSharesSlot(t *testing.T) {
	table := New(1 << 16)
	cache := NewCache(table)
	a := numbered(packet.UDP, 0)
	b := a
	for i := 1; a.Hash(table.Seed())%cacheSlots != b.Hash(table.Seed())%cacheSlots || a == b; i++ {
		b = numbered(packet.UDP, i)
	}
	table.Create(a, toPod, toNode, 1)
	table.Create(b, toPeer, toNode, 1)
	for range 3 {
		if got := cache.Get(&a, 1); got == nil || got.Verdict != toPod {
			t.Fatalf("a: got %+v", got)
		}
		if got := cache.Get(&b, 1); got == nil || got.Verdict != toPeer {
			t.Fatalf("b: got %+v", got)
		}
	}
	if zero := (packet.Flow{}); cache.Get(&zero, 1) != nil {
		t.Error("the zero flow is known")
	}
}

func TestRejudge(t *testing.T) {
	table := New(512)
	f := numbered(packet.TCP, 1)
	c := table.Create(f, toPod, toNode, 1)
	fresh, ok := table.Rejudge(&c, toPeer, 2)
	if got, _ := table.Lookup(f); !ok || fresh.Verdict != toPeer || fresh.Generation != 2 || got.Verdict != toPeer || got.Generation != 2 {
		t.Errorf("got %+v %v, then %+v", fresh, ok, got)
	}
	if back, _ := table.Lookup(f.Reverse()); back.Verdict != toNode || back.Generation != 1 {
		t.Errorf("the reply: got %+v, want it as it was", back)
	}
	// A worker with the old copy judges as well; its verdict stands, being the later one.
	if _, ok := table.Rejudge(&c, toNode, 3); !ok {
		t.Error("with an old copy: refused")
	}
	table.free(c.ref)
	if _, ok := table.Rejudge(&c, toPod, 4); ok {
		t.Error("judged an entry that is gone")
	}
	table.put(c.ref, numbered(packet.TCP, 2), toPod, 1, 1)
	if _, ok := table.Rejudge(&c, toPeer, 4); ok || table.entries[c.ref].action != ToAttachment {
		t.Error("judged another flow's entry")
	}
	table.Closing(&c, packet.RST)
	table.Opening(&c)
	if table.entries[c.ref].is(reset) {
		t.Error("closed another flow's entry")
	}
}

// TestExpiry lets each kind of flow live exactly as long as it should.
func TestExpiry(t *testing.T) {
	type table struct {
		*Table
		there, back Copy
	}
	answer := func(x *table) { x.Lookup(x.back.Flow) }
	closing := func(flags uint8, both bool) func(x *table) {
		return func(x *table) {
			answer(x)
			x.Closing(&x.there, flags)
			if both {
				x.Closing(&x.back, flags)
			}
		}
	}
	for _, tt := range []struct {
		name  string
		proto packet.Proto
		event func(*table)
		want  time.Duration
	}{
		{"TCP opening", packet.TCP, nil, time.Minute},
		{"TCP established", packet.TCP, answer, 2*time.Hour + 10*time.Minute},
		{"TCP half closed", packet.TCP, closing(packet.FIN, false), 2*time.Hour + 10*time.Minute},
		{"TCP closed", packet.TCP, closing(packet.FIN, true), 2 * time.Minute},
		{"TCP reset", packet.TCP, closing(packet.RST, false), 10 * time.Second},
		{"TCP reset by both", packet.TCP, closing(packet.RST|packet.ACK, true), 10 * time.Second},
		{"TCP closed and reset", packet.TCP, closing(packet.FIN|packet.RST, true), 10 * time.Second},
		{"TCP closed and opened again", packet.TCP, func(x *table) {
			closing(packet.FIN, true)(x)
			x.Opening(&x.there)
			x.Opening(&x.back)
		}, 2*time.Hour + 10*time.Minute},
		{"TCP reset and opened again", packet.TCP, func(x *table) {
			closing(packet.RST, false)(x)
			x.Opening(&x.there)
		}, 2*time.Hour + 10*time.Minute},
		{"TCP, ACK alone closes nothing", packet.TCP, closing(packet.ACK|packet.PSH, true), 2*time.Hour + 10*time.Minute},
		{"SCTP opening", packet.SCTP, nil, time.Minute},
		{"SCTP established", packet.SCTP, answer, 2*time.Hour + 10*time.Minute},
		{"UDP one way", packet.UDP, nil, 30 * time.Second},
		{"UDP answered", packet.UDP, answer, 3 * time.Minute},
		{"ICMP", packet.ICMP, answer, 30 * time.Second},
		{"ICMPv6", packet.ICMPv6, nil, 30 * time.Second},
		{"another protocol", 47, answer, 30 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			plain, clock := withClock(New(512))
			f := numbered(tt.proto, 1)
			x := &table{Table: plain, there: plain.Create(f, toPod, toNode, 1)}
			back, _ := plain.find(f.Reverse())
			x.back = plain.entries[back].copy(back)
			if tt.event != nil {
				tt.event(x)
			}
			clock.advance(tt.want)
			if x.sweep(); !x.has(f) || !x.has(f.Reverse()) || x.Len() != 2 {
				t.Errorf("gone after %v", tt.want)
			}
			clock.advance(time.Second)
			if x.sweep(); x.has(f) || x.Len() > 1 {
				t.Errorf("still there after more than %v", tt.want)
			}
			clock.advance(time.Hour * 3)
			if x.sweep(); x.Len() != 0 || x.Evicted() != 0 {
				t.Errorf("left over: %v", x)
			}
		})
	}
}

// TestExpiryOneWay: what keeps one direction busy keeps the other, however long it is quiet, from expiry and eviction.
func TestExpiryOneWay(t *testing.T) {
	table, clock := withClock(New(512))
	cache := NewCache(table)
	flows := sameBucket(table, packet.UDP, ways+1)
	f := flows[0]
	table.Create(f, toPod, toNode, 1)
	back := f.Reverse()
	for range 20 { // f is quiet, packets come back
		clock.advance(time.Minute)
		if cache.Get(&back, clock.now()) == nil {
			t.Fatal("the busy direction is gone")
		}
		if table.sweep(); !table.has(f) || !table.has(back) {
			t.Fatal("a direction is gone")
		}
	}
	for _, other := range flows[1:ways] { // these are idler
		table.Create(other, toPod, toNode, 1)
	}
	clock.advance(2 * time.Second)
	cache.Get(&back, clock.now())
	if table.Create(flows[ways], toPod, toNode, 1); !table.has(f) {
		t.Error("the quiet direction was evicted, although its flow is busy")
	}
}

// TestSeenAhead: a worker may note a packet in a second that has not begun where a bucket is swept.
func TestSeenAhead(t *testing.T) {
	table, clock := withClock(New(512))
	cache := NewCache(table)
	flows := sameBucket(table, packet.TCP, ways+1)
	for _, f := range flows[:ways] {
		table.Create(f, toPod, toNode, 1)
		clock.advance(time.Second)
	}
	cache.Get(&flows[3], clock.now())
	if cache.Get(&flows[3], clock.now()+1) == nil {
		t.Fatal("unknown")
	}
	if table.sweep(); !table.has(flows[3]) {
		t.Error("a busy flow expired")
	}
	if table.Create(flows[ways], toPod, toNode, 1); !table.has(flows[3]) {
		t.Error("a busy flow was evicted")
	}
}

func TestEviction(t *testing.T) {
	type kind int
	const (
		established kind = iota
		opening
		expired
	)
	for _, tt := range []struct {
		name   string
		bucket [ways]kind // by age, the oldest first
		want   int        // which one goes
	}{
		{"the one idle longest", [ways]kind{}, 0},
		{"one that is not established", [ways]kind{4: opening}, 4},
		{"of those not established the one idle longest", [ways]kind{3: opening, 6: opening}, 3},
		{"an expired one", [ways]kind{0: opening, 1: opening, 7: expired}, 7},
		{"of the expired ones the one idle longest", [ways]kind{2: expired, 5: expired}, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			table, clock := withClock(New(512))
			flows := sameBucket(table, packet.TCP, ways+1)
			for i, f := range flows[:ways] {
				c := table.Create(f, toPod, toNode, 1)
				if tt.bucket[i] != opening {
					table.Lookup(f.Reverse())
				}
				if tt.bucket[i] == expired {
					table.Closing(&c, packet.RST)
				}
				clock.advance(time.Second)
			}
			clock.advance(11 * time.Second)
			for i, f := range flows[:ways] { // the others stay fresh in the same order
				if tt.bucket[i] == expired {
					continue
				}
				table.entryOf(f).seen.Store(clock.now() - uint32(ways-i))
				table.entryOf(f.Reverse()).seen.Store(clock.now() - uint32(ways-i))
			}
			table.Create(flows[ways], toPeer, toNode, 1)
			for i, f := range flows {
				if got := table.has(f); got != (i != tt.want) {
					t.Errorf("flow %d: there %v", i, got)
				}
			}
			if table.Evicted() != 1 || table.Len() != 2*(ways+1)-1 {
				t.Errorf("evicted %d, %v", table.Evicted(), table)
			}
			if back := flows[tt.want].Reverse(); !table.has(back) {
				t.Error("the evicted flow's other direction is gone as well")
			}
		})
	}
}

// TestEvictionKeepsOwn fills a bucket in which both directions of a new flow meet.
func TestEvictionKeepsOwn(t *testing.T) {
	table, _ := withClock(New(512))
	var f packet.Flow
	for i := 0; ; i++ {
		if f = numbered(packet.UDP, i); table.bucket(table.hash(f)) == table.bucket(table.hash(f.Reverse())) {
			break
		}
	}
	bucket := table.bucket(table.hash(f))
	for i, n := 0, 0; n < ways; i++ {
		g := numbered(packet.TCP, i)
		if table.bucket(table.hash(g)) == bucket && table.bucket(table.hash(g.Reverse())) != bucket {
			table.Create(g, toPod, toNode, 1)
			n++
		}
	}
	for range 3 {
		if c := table.Create(f, toPeer, toPod, 1); c.Verdict != toPeer || !table.has(f) || !table.has(f.Reverse()) {
			t.Fatalf("got %+v, there %v, back %v", c, table.has(f), table.has(f.Reverse()))
		}
	}
	if table.Evicted() != 2 {
		t.Errorf("evicted %d, want 2", table.Evicted())
	}
}

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := New(512)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- table.Run(ctx) }()
		f, g := numbered(packet.UDP, 1), numbered(packet.TCP, 2)
		table.Create(f, toPod, toNode, 1)
		table.Create(g, toPod, toNode, 1)
		time.Sleep(udpOneWay)
		if table.Len() != 4 {
			t.Errorf("after %v: %v", udpOneWay, table)
		}
		time.Sleep(2*sweepSeconds*time.Second + 2*time.Second) // a sweep frees one direction, the next surely the other
		if table.Len() != 2 {
			t.Errorf("after %v: %v", udpOneWay+22*time.Second, table)
		}
		time.Sleep(tcpOpening)
		if table.Len() != 0 {
			t.Errorf("in the end: %v", table)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestConcurrent lets workers create, find, judge and close the same flows, half of them from the other side, while the
// table is swept. Run it with -race.
func TestConcurrent(t *testing.T) {
	const workers, flows, rounds = 4, 300, 20
	table := New(8192)
	var group sync.WaitGroup
	for w := range workers {
		group.Go(func() {
			cache := NewCache(table)
			for round := range rounds {
				for i := range flows {
					f := numbered(packet.TCP, i)
					v, reply := toPod, toPeer
					if (w+i+round)%2 == 0 {
						f, v, reply = f.Reverse(), reply, v
					}
					c := cache.Get(&f, cache.Now())
					if c == nil {
						c = cache.Put(table.Create(f, v, reply, 1))
					}
					if c.Verdict != v || c.Flow != f {
						t.Errorf("worker %d, flow %v: got %+v, want %+v", w, f, c, v)
						return
					}
					if fresh, ok := table.Rejudge(c, v, uint32(round)); ok && i%7 == w {
						cache.Put(fresh)
					}
					table.Closing(c, packet.FIN)
					table.Opening(c)
				}
				table.sweep()
			}
		})
	}
	group.Wait()
	if table.Len() != 2*flows || table.Evicted() != 0 {
		t.Errorf("got %v and %d evicted, want %d", table, table.Evicted(), 2*flows)
	}
}

// TestAgainstMap does thousands of random steps on a table and on a map.
func TestAgainstMap(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	table, clock := withClock(New(1 << 16))
	caches := []*Cache{NewCache(table), NewCache(table), NewCache(table)}
	type known struct {
		v          Verdict
		generation uint32
	}
	want := map[packet.Flow]known{}
	verdicts := []Verdict{toPod, toPeer, toNode, {Reason: packet.DropScope}}
	protos := []packet.Proto{packet.TCP, packet.UDP, packet.ICMP, packet.SCTP}
	for step := range 50_000 {
		f := numbered(protos[r.IntN(4)], r.IntN(100))
		if r.IntN(2) == 0 {
			f = f.Reverse()
		}
		cache := caches[r.IntN(len(caches))]
		c := cache.Get(&f, clock.now())
		k, ok := want[f]
		if (c != nil) != ok || ok && (c.Flow != f || c.Verdict != k.v || c.Generation != k.generation) {
			t.Fatalf("seed %d, step %d, %v: got %+v, want %+v %v", seed, step, f, c, k, ok)
		}
		v, reply, generation := verdicts[r.IntN(4)], verdicts[r.IntN(4)], r.Uint32N(9)
		switch r.IntN(10) {
		case 0, 1, 2:
			got := table.Create(f, v, reply, generation)
			if !ok {
				want[f] = known{v, generation}
				if _, ok := want[f.Reverse()]; !ok {
					want[f.Reverse()] = known{reply, generation}
				}
			}
			if got.Verdict != want[f].v {
				t.Fatalf("seed %d, step %d: created %+v, want %+v", seed, step, got, want[f])
			}
			cache.Put(got)
		case 3, 4:
			if c == nil {
				break
			}
			fresh, ok := table.Rejudge(c, v, generation)
			if !ok {
				t.Fatalf("seed %d, step %d: gone", seed, step)
			}
			want[f] = known{v, generation}
			if r.IntN(2) == 0 {
				cache.Put(fresh)
			}
		case 5:
			if c != nil {
				table.Closing(c, uint8(r.Uint32()))
			}
		case 6:
			if c != nil {
				table.Opening(c)
			}
		case 7:
			clock.advance(time.Second)
		case 8:
			if r.IntN(20) > 0 {
				break
			}
			if r.IntN(25) == 0 {
				clock.advance(time.Duration(r.IntN(9000)) * time.Second)
			}
			table.sweep()
			for f := range want {
				e := table.entryOf(f)
				idle := clock.now() - max(lastSeen(table, f), lastSeen(table, f.Reverse()))
				switch {
				case e == nil:
					delete(want, f)
				case idle > uint32(tcpEstablished/time.Second):
					t.Fatalf("seed %d, step %d: %v is still there after %d s", seed, step, f, idle)
				}
			}
		}
		if table.Len() != len(want) {
			t.Fatalf("seed %d, step %d: %v and %d evicted, want %d", seed, step, table, table.Evicted(), len(want))
		}
	}
	if table.Evicted() != 0 {
		t.Errorf("seed %d: %d evicted", seed, table.Evicted())
	}
}

func lastSeen(t *Table, f packet.Flow) uint32 {
	if e := t.entryOf(f); e != nil {
		return e.seen.Load()
	}
	return 0
}

func TestAllocs(t *testing.T) {
	table := New(512)
	cache := NewCache(table)
	f := numbered(packet.TCP, 1)
	c := *cache.Put(table.Create(f, toPod, toPeer, 1))
	for name, run := range map[string]func(){
		"hit":     func() { cache.Get(&f, 1) },
		"lookup":  func() { table.Lookup(f) },
		"reply":   func() { back := f.Reverse(); cache.Get(&back, 1) },
		"create":  func() { table.Create(f, toPod, toPeer, 1) },
		"rejudge": func() { table.Rejudge(&c, toPeer, 1) },
		"insert":  func() { g := numbered(packet.UDP, rand.IntN(1<<16)); cache.Put(table.Create(g, toPod, toPeer, 1)) },
		"expire":  func() { table.expire(1) },
	} {
		if n := testing.AllocsPerRun(100, run); n != 0 {
			t.Errorf("%s: got %v allocations, want 0", name, n)
		}
	}
}

// filled returns a table with n flows of two directions each and those that are in it.
func filled(b *testing.B, entries, n int) (*Table, []packet.Flow) {
	table := New(entries)
	var flows []packet.Flow
	for i := range n {
		f := numbered(packet.UDP, i)
		table.Create(f, toPod, toPeer, 1)
		flows = append(flows, f)
	}
	if table.Evicted() > 0 {
		b.Logf("%d evicted, %v", table.Evicted(), table)
	}
	rand.Shuffle(n, func(i, j int) { flows[i], flows[j] = flows[j], flows[i] })
	return table, flows
}

// BenchmarkFlowLookup finds one flow again and again (hot), and random ones among many, through a worker's cache, in the
// shared table, and in a Go map under a lock.
func BenchmarkFlowLookup(b *testing.B) {
	for _, size := range []struct {
		name           string
		entries, flows int
	}{{"hot", 1 << 16, 1}, {"64k", 1 << 16, 20_000}, {"1M", 1 << 20, 320_000}} {
		table, flows := filled(b, size.entries, size.flows)
		b.Run(size.name+"/cache", func(b *testing.B) {
			cache := NewCache(table)
			now := cache.Now()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				cache.Get(&flows[i%len(flows)], now)
			}
		})
		b.Run(size.name+"/table", func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				table.Lookup(flows[i%len(flows)])
			}
		})
		b.Run(size.name+"/map", func(b *testing.B) {
			var mu sync.Mutex
			m := make(map[packet.Flow]Copy, 2*len(flows))
			for _, f := range flows {
				m[f], m[f.Reverse()] = Copy{Flow: f, Verdict: toPod}, Copy{Flow: f.Reverse(), Verdict: toPeer}
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				mu.Lock()
				_, ok := m[flows[i%len(flows)]]
				mu.Unlock()
				if !ok {
					b.Fatal("lost")
				}
			}
		})
	}
}

// BenchmarkFlowInsert is a miss and the insert of both directions, into a table that is full.
func BenchmarkFlowInsert(b *testing.B) {
	table, _ := filled(b, 1<<16, 1<<16)
	cache := NewCache(table)
	now := cache.Now()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		f := numbered(packet.TCP, i&(1<<24-1))
		if cache.Get(&f, now) == nil {
			cache.Put(table.Create(f, toPod, toPeer, 1))
		}
	}
}

// BenchmarkFlowRejudge is what a flow's first packet costs after a change of the tables.
func BenchmarkFlowRejudge(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprintf("%d flows", n), func(b *testing.B) {
			table, flows := filled(b, 1<<16, n)
			cache := NewCache(table)
			now, generation := cache.Now(), uint32(1)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if i%n == 0 {
					generation++
				}
				c := cache.Get(&flows[i%n], now)
				if c.Generation == generation {
					b.Fatal("judged already")
				}
				fresh, _ := table.Rejudge(c, toPod, generation)
				cache.Put(fresh)
			}
		})
	}
}
