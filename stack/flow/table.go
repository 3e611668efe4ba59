package flow

import (
	"context"
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"github.com/middleway-net/middleway/stack/packet"
)

// Shape of the table.
const (
	// ways is how many entries a hash can choose from: a bucket.
	ways = 8
	// numShards is how many locks there are. Two workers on the same shard at once are rare, and an insert is short.
	numShards = 64
	// DefaultEntries is the size of a table by default: 32,768 flows of two directions, 8 MiB, and 1 MiB of affinities.
	DefaultEntries = 65536
)

// Table is the node's flow table. All methods may be called by any goroutine.
type Table struct {
	head    *header
	entries []entry
	mask    uint32 // of bucket numbers
	now     func() uint32
	unmap   func() error

	restored int
	reopened bool
	flows    atomic.Int64 // directions in use
	evicted  atomic.Uint64

	shards [numShards]shard

	affinities affinities
}

type shard struct {
	mu sync.Mutex
	_  [56]byte // a cache line each
}

// New returns a table in memory, which ends with the process. entries is rounded up to a power of two; 0 means
// DefaultEntries.
func New(entries int) *Table {
	n := roundEntries(entries)
	t := &Table{head: &header{}, entries: make([]entry, n), unmap: func() error { return nil }}
	t.head.init(n)
	t.affinities.entries = make([]affinity, affinitiesBeside(n))
	t.finish()
	return t
}

func (t *Table) finish() {
	t.mask = uint32(len(t.entries)/ways - 1)
	t.now = bootClock()
}

func roundEntries(n int) int {
	if n <= 0 {
		n = DefaultEntries
	}
	n = max(n, ways*numShards)
	return 1 << bits.Len(uint(n-1))
}

// Close unmaps the table. No method may be called after it.
func (t *Table) Close() error { return t.unmap() }

// Seed returns the secret seed by which flows are hashed (Flow.Hash).
func (t *Table) Seed() uint64 { return t.head.seed }

// Reopened reports whether the table's file was one that a former daemon of this boot has used.
func (t *Table) Reopened() bool { return t.reopened }

// Restored returns how many directions of flows were found when the table was opened.
func (t *Table) Restored() int { return t.restored }

// Len returns how many directions of flows the table holds; a flow has two.
func (t *Table) Len() int { return int(t.flows.Load()) }

// Evicted returns how many directions were given up for newer flows because a bucket was full.
func (t *Table) Evicted() uint64 { return t.evicted.Load() }

// NextGeneration returns a generation of the tables that no entry was judged by, also across restarts.
func (t *Table) NextGeneration() uint32 { return t.head.generation.Add(1) }

func (t *Table) bucket(hash uint64) uint32    { return uint32(hash>>20) & t.mask }
func (t *Table) lockOf(bucket uint32) *shard  { return &t.shards[bucket%numShards] }
func (t *Table) bucketOf(ref Ref) uint32      { return uint32(ref) / ways }
func (t *Table) slots(bucket uint32) []entry  { return t.entries[bucket*ways : (bucket+1)*ways] }
func (t *Table) ref(bucket uint32, i int) Ref { return Ref(bucket*ways + uint32(i)) }
func (t *Table) hash(f packet.Flow) uint64    { return f.Hash(t.head.seed) }

// findIn returns the entry of f in its bucket. It needs the bucket's shard locked.
func (t *Table) findIn(bucket uint32, f *packet.Flow) (Ref, bool) {
	for i := range t.slots(bucket) {
		if e := &t.entries[t.ref(bucket, i)]; e.is(used) && e.flow == *f {
			return t.ref(bucket, i), true
		}
	}
	return 0, false
}

// Lookup returns a copy of the entry of f, and notes that a packet came in this direction.
func (t *Table) Lookup(f packet.Flow) (Copy, bool) {
	return t.lookup(&f, t.hash(f), t.now())
}

func (t *Table) lookup(f *packet.Flow, hash uint64, now uint32) (Copy, bool) {
	bucket := t.bucket(hash)
	s := t.lockOf(bucket)
	s.mu.Lock()
	ref, ok := t.findIn(bucket, f)
	if ok && t.widowed(ref) && !t.entries[ref].mirrors() {
		alone := t.takeLocked(ref)
		s.mu.Unlock()
		return t.Enter(&alone)
	}
	defer s.mu.Unlock()
	if !ok {
		return Copy{}, false
	}
	e := &t.entries[ref]
	if !e.is(seenOne) {
		e.state.Or(seenOne)
	}
	e.seen.Store(now)
	return e.copy(ref), true
}

// Peek returns a copy of the entry of f without noting a packet: for packets that are about a flow and not of it.
func (t *Table) Peek(f packet.Flow) (Copy, bool) {
	bucket := t.bucket(t.hash(f))
	s := t.lockOf(bucket)
	s.mu.Lock()
	defer s.mu.Unlock()
	ref, ok := t.findIn(bucket, &f)
	if !ok {
		return Copy{}, false
	}
	return t.entries[ref].copy(ref), true
}

// widowed reports whether an entry's twin is gone, evicted or expired. Replies would come through untranslated, or belong to another
// flow that has since come to leave as this one does. Such a flow is entered anew, as it was: either direction tells the other. It
// needs no lock.
func (t *Table) widowed(ref Ref) bool { return t.twinOf(ref) == nil }

// takeLocked frees an entry whose twin is gone and returns how to enter the flow again. Its verdicts are none that tables gave,
// so that the next packets are judged. It needs the entry's shard locked.
func (t *Table) takeLocked(ref Ref) Pair {
	e := &t.entries[ref]
	p := Pair{Flow: e.flow, Translated: e.leavesAs(), Verdict: e.verdict(), Generation: unjudged, opened: !e.is(opener), over: e.state.Load() & (ended | reset), FromOutside: e.is(outside)}
	t.free(ref)
	return p
}

// unjudged is a generation that no tables have (NextGeneration begins with 1).
const unjudged = 0

// Enter enters both directions of a flow and returns a copy of the entry of its packets. Where another worker was faster
// its entry stands and is returned, whatever translation it has. ok is false, and nothing was entered, if replies to
// p.Translated belong to another flow: the two would leave as one, so the caller has to translate to another port. A full
// bucket gives up an entry: an expired one, else one of a TCP connection that is over, else one that is neither translated nor an
// established TCP connection, or of TCP or UDP and was never answered, or of UDP and idle for longer than one that was not may be, else
// the one idle longest.
func (t *Table) Enter(p *Pair) (c Copy, ok bool) {
	p.Entered = false
	reply, back := p.Translated.Reverse(), p.Flow.Reverse()
	b0, b1 := t.bucket(t.hash(p.Flow)), t.bucket(t.hash(reply))
	t.lockBoth(b0, b1)
	defer t.unlockBoth(b0, b1)
	now := t.now()
	if ref, ok := t.findIn(b0, &p.Flow); ok {
		t.entries[ref].state.Or(seenOne)
		t.entries[ref].seen.Store(now)
		return t.entries[ref].copy(ref), true
	}
	twin, there := t.findIn(b1, &reply)
	if there && t.entries[twin].leavesAs() != back {
		return Copy{}, false
	}
	ref := t.claimBut(b0, now, twinIf(there, twin))
	t.put(ref, p.Flow, p.Translated, p.Verdict, p.Generation, now)
	opened := p.opened || there && t.entries[twin].is(opener)
	both := p.over | outsideIf(p.FromOutside)
	t.entries[ref].state.Or(seenOne | openerIf(!opened) | both)
	if reply == p.Flow { // a packet to its own address and port
		return t.entries[ref].copy(ref), true
	}
	if !there {
		twin = t.claimBut(b1, now, ref)
		t.put(twin, reply, back, p.Reply, p.Generation, now)
		t.entries[twin].state.Or(openerIf(opened) | both)
	}
	t.entries[ref].twin.Store(uint32(twin))
	t.entries[twin].twin.Store(uint32(ref))
	p.Entered = true
	return t.entries[ref].copy(ref), true
}

// openerIf returns the bit for the direction that opened the flow.
func openerIf(this bool) uint32 {
	if this {
		return opener
	}
	return 0
}

func outsideIf(this bool) uint32 {
	if this {
		return outside
	}
	return 0
}

func twinIf(there bool, twin Ref) Ref {
	if there {
		return twin
	}
	return noRef
}

// lockBoth locks the shards of two buckets, always in the same order.
func (t *Table) lockBoth(b0, b1 uint32) {
	s0, s1 := b0%numShards, b1%numShards
	t.shards[min(s0, s1)].mu.Lock()
	if s0 != s1 {
		t.shards[max(s0, s1)].mu.Lock()
	}
}

func (t *Table) unlockBoth(b0, b1 uint32) {
	s0, s1 := b0%numShards, b1%numShards
	if s0 != s1 {
		t.shards[s1].mu.Unlock()
	}
	t.shards[s0].mu.Unlock()
}

func (t *Table) put(ref Ref, f, leavesAs packet.Flow, v Verdict, generation, now uint32) {
	e := &t.entries[ref]
	e.write(func() {
		e.flow, e.generation, e.created = f, generation, now
		e.translated = packet.Flow{}
		if leavesAs != f {
			e.translated = leavesAs
		}
		e.twin.Store(uint32(ref))
		e.state.Store(used)
		e.setVerdict(v)
		e.seen.Store(now)
	})
	t.flows.Add(1)
}

const noRef = ^Ref(0)

// claimBut returns a free entry of the bucket, freeing one if it must, but not keep.
func (t *Table) claimBut(bucket, now uint32, keep Ref) Ref {
	victim, victimClass, victimIdle := noRef, -1, time.Duration(0)
	for i := range t.slots(bucket) {
		ref := t.ref(bucket, i)
		e := &t.entries[ref]
		if !e.is(used) {
			return ref
		}
		if ref == keep {
			continue
		}
		class := 1
		// The twin's fields are hints here: its shard may not be locked.
		twin := t.twinOf(ref)
		idle := idleFor(e, twin, now)
		switch life := lifetime(e, twin); {
		case idle > life:
			class = 3
		case life == tcpReset || life == tcpClosing:
			class = 2
		case life == udpAnswered && idle > udpOneWay: // a fresh one has yet to see its answer
		case life == tcpEstablished || e.translates() && (life != tcpOpening && life != udpOneWay || twin == nil):
			class = 0
		}
		if class > victimClass || class == victimClass && idle > victimIdle {
			victim, victimClass, victimIdle = ref, class, idle
		}
	}
	t.free(victim)
	t.evicted.Add(1)
	return victim
}

// twinOf returns the other direction of the entry's flow, or nil if it is gone.
func (t *Table) twinOf(ref Ref) *entry {
	e := &t.entries[ref]
	other := Ref(e.twin.Load())
	twin := &t.entries[other]
	if other == ref || !twin.is(used) || Ref(twin.twin.Load()) != ref {
		return nil
	}
	return twin
}

func (t *Table) free(ref Ref) {
	e := &t.entries[ref]
	e.write(func() { e.state.Store(0) })
	t.flows.Add(-1)
}

// Rejudge gives the entry that c was copied from a new verdict, by tables of a newer generation, and returns the new copy.
// ok is false if the entry is gone.
func (t *Table) Rejudge(c *Copy, v Verdict, generation uint32) (Copy, bool) {
	s := t.lockOf(t.bucketOf(c.ref))
	s.mu.Lock()
	defer s.mu.Unlock()
	e := &t.entries[c.ref]
	if !e.is(used) || e.flow != c.Flow {
		return Copy{}, false
	}
	if e.answersOutside() {
		v = Verdict{Action: ToOutside}
	}
	e.write(func() {
		e.setVerdict(v)
		e.generation = generation
	})
	return e.copy(c.ref), true
}

// Closing notes a TCP packet with FIN or RST. That the connection is over is written to both directions: either may be evicted first.
func (t *Table) Closing(c *Copy, flags uint8) {
	t.note(c, func(e, twin *entry) {
		over := uint32(0)
		if flags&packet.FIN != 0 {
			e.state.Or(fin)
			if twin != e && twin.is(fin) {
				over |= ended
			}
		}
		if flags&packet.RST != 0 {
			over |= reset
		}
		e.state.Or(over)
		twin.state.Or(over)
	})
}

// Opening notes a TCP packet with SYN: a flow that was closed lives again.
func (t *Table) Opening(c *Copy) {
	t.note(c, func(e, twin *entry) {
		e.state.And(^uint32(fin | ended | reset))
		twin.state.And(^uint32(fin | ended | reset))
	})
}

// note calls f with the entry that c was copied from and its twin, which is the entry itself where there is none, both locked, unless
// the entry is gone.
func (t *Table) note(c *Copy, f func(e, twin *entry)) {
	e := &t.entries[c.ref]
	for {
		other := Ref(e.twin.Load())
		b0, b1 := t.bucketOf(c.ref), t.bucketOf(other)
		t.lockBoth(b0, b1)
		same := Ref(e.twin.Load()) == other
		if same && e.is(used) && e.flow == c.Flow {
			twin := t.twinOf(c.ref)
			if twin == nil {
				twin = e
			}
			f(e, twin)
		}
		t.unlockBoth(b0, b1)
		if same {
			return
		}
	}
}

// Renew frees a TCP flow in which a SYN came, and reports whether it did: the flow is then opened anew. So it is with a translated one if
// its former connection was reset, or closed by the SYN's sender, and where forsaken says that nobody serves at its other end any
// more; and with one whose other direction is gone.
func (t *Table) Renew(c *Copy, forsaken bool) bool {
	return t.renews(c, forsaken) && t.freeBoth(&c.Flow, c.LeavesAs())
}

func (t *Table) renews(c *Copy, forsaken bool) bool {
	return c.Translates() && (forsaken || t.over(c)) || t.widowed(c.ref) && !c.mirrors()
}

// over reports whether the connection that c was copied from was reset, or closed in this direction.
func (t *Table) over(c *Copy) bool {
	s := t.lockOf(t.bucketOf(c.ref))
	s.mu.Lock()
	defer s.mu.Unlock()
	e := &t.entries[c.ref]
	if !e.is(used) || e.flow != c.Flow {
		return false
	}
	return e.is(reset | fin)
}

// sweepSeconds is how long one pass over the table takes.
const sweepSeconds = 10

// Run frees expired flows until ctx ends.
func (t *Table) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	buckets := uint32(len(t.entries) / ways)
	for next := uint32(0); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for range (buckets + sweepSeconds - 1) / sweepSeconds {
			t.expire(next)
			next = (next + 1) & t.mask
		}
	}
}

// expire frees what is past its lifetime in one bucket.
func (t *Table) expire(bucket uint32) {
	s := t.lockOf(bucket)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := t.now()
	for i := range t.slots(bucket) {
		ref := t.ref(bucket, i)
		e := &t.entries[ref]
		if !e.is(used) {
			continue
		}
		if twin := t.twinOf(ref); idleFor(e, twin, now) > lifetime(e, twin) {
			t.free(ref)
		}
	}
}

// String describes the table for people.
func (t *Table) String() string {
	return fmt.Sprintf("%d of %d entries", t.Len(), len(t.entries))
}
