package flow

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
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

// create enters a flow whose packets are not translated.
func create(t *Table, f packet.Flow, v, reply Verdict, generation uint32) Copy {
	c, ok := t.Enter(&Pair{Flow: f, Translated: f, Verdict: v, Reply: reply, Generation: generation})
	if !ok {
		return Copy{Flow: f, Verdict: Verdict{Reason: packet.DropTranslate}, Generation: generation}
	}
	return c
}

// find returns the entry of f; nobody else may use the table.
func (t *Table) find(f packet.Flow) (Ref, bool) { return t.findIn(t.bucket(t.hash(f)), &f) }
func (t *Table) has(f packet.Flow) bool         { _, ok := t.find(f); return ok }
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
func sameBucket(t *Table, proto packet.Proto, n int, elsewhere ...func(packet.Flow) packet.Flow) (flows []packet.Flow) {
	elsewhere = append(elsewhere, packet.Flow.Reverse)
	isElsewhere := func(f packet.Flow, bucket uint32) bool {
		return !slices.ContainsFunc(elsewhere, func(of func(packet.Flow) packet.Flow) bool { return t.bucket(t.hash(of(f))) == bucket })
	}
	var bucket uint32
	for i := 0; len(flows) < n; i++ {
		f := numbered(proto, i)
		b := t.bucket(t.hash(f))
		if len(flows) == 0 {
			bucket = b
		}
		if b == bucket && isElsewhere(f, bucket) {
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
			got := create(table, tt.f, tt.v, tt.reply, 3)
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
	create(table, f, toPod, toPeer, 1)
	if got := create(table, f, toNode, toNode, 2); got.Verdict != toPod || got.Generation != 1 {
		t.Errorf("the second worker's verdict stands: %+v", got)
	}
	if got := create(table, f.Reverse(), toNode, toNode, 2); got.Verdict != toPeer || table.Len() != 2 {
		t.Errorf("the other direction's second verdict stands: %+v, %v", got, table)
	}
}

// TestCreateHalf creates a flow of which only the reply is left.
func TestCreateHalf(t *testing.T) {
	table := New(512)
	f := numbered(packet.TCP, 1)
	create(table, f, toPod, toPeer, 1)
	ref, _ := table.find(f)
	table.free(ref)
	if got := create(table, f, toNode, toNode, 2); got.Verdict != toNode || table.Len() != 2 {
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
	got := create(table, f, toPod, toNode, 1)
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
			table.put(c.ref, numbered(packet.TCP, 2), numbered(packet.TCP, 2), toNode, 1, 1)
		}, nil},
		{"freed and created again", func(table *Table, c Copy) {
			table.free(c.ref)
			create(table, f, toNode, toNode, 3)
		}, &Copy{Flow: f, Verdict: toNode, Generation: 3}},
		{"closed: no new verdict", func(table *Table, c Copy) { table.Closing(&c, packet.RST) }, &Copy{Flow: f, Verdict: toPod, Generation: 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			table := New(512)
			cache := NewCache(table)
			c := cache.Put(create(table, f, toPod, toNode, 1))
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
	create(table, a, toPod, toNode, 1)
	create(table, b, toPeer, toNode, 1)
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
	c := create(table, f, toPod, toNode, 1)
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
	table.put(c.ref, numbered(packet.TCP, 2), numbered(packet.TCP, 2), toPod, 1, 1)
	if _, ok := table.Rejudge(&c, toPeer, 4); ok || table.entries[c.ref].action != ToAttachment {
		t.Error("judged another flow's entry")
	}
	table.Closing(&c, packet.RST)
	table.Opening(&c)
	if table.entries[c.ref].is(reset) {
		t.Error("closed another flow's entry")
	}
}

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := New(512)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- table.Run(ctx) }()
		f, g := numbered(packet.UDP, 1), numbered(packet.TCP, 2)
		create(table, f, toPod, toNode, 1)
		create(table, g, toPod, toNode, 1)
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
						c = cache.Put(create(table, f, v, reply, 1))
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
		if _, both := want[f.Reverse()]; ok && !both && table.has(f.Reverse()) { // it was alone, and has been entered anew
			k.generation = unjudged
			want[f], want[f.Reverse()] = k, known{Verdict{}, unjudged}
		}
		if (c != nil) != ok || ok && (c.Flow != f || c.Verdict != k.v || c.Generation != k.generation) {
			t.Fatalf("seed %d, step %d, %v: got %+v, want %+v %v", seed, step, f, c, k, ok)
		}
		v, reply, generation := verdicts[r.IntN(4)], verdicts[r.IntN(4)], 1+r.Uint32N(9)
		switch r.IntN(10) {
		case 0, 1, 2:
			got := create(table, f, v, reply, generation)
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
	c := *cache.Put(create(table, f, toPod, toPeer, 1))
	for name, run := range map[string]func(){
		"hit":     func() { cache.Get(&f, 1) },
		"lookup":  func() { table.Lookup(f) },
		"reply":   func() { back := f.Reverse(); cache.Get(&back, 1) },
		"create":  func() { create(table, f, toPod, toPeer, 1) },
		"rejudge": func() { table.Rejudge(&c, toPeer, 1) },
		"insert":  func() { g := numbered(packet.UDP, rand.IntN(1<<16)); cache.Put(create(table, g, toPod, toPeer, 1)) },
		"expire":  func() { table.expire(1) },
	} {
		if n := testing.AllocsPerRun(100, run); n != 0 {
			t.Errorf("%s: got %v allocations, want 0", name, n)
		}
	}
}
