// Package fragment finds the flow of fragments in transit, without putting packets together.
//
// Only the first fragment of a packet has ports. It enters the packet's flow in a table of the node, and later fragments
// take it from there, whichever worker they reach: they share the verdict of the first. Those that come before the first
// wait as copies until it comes.
//
//	first ──► First: enters the flow ──► is forwarded, and behind it what has waited
//	later ──► Later: flow is known ──► is forwarded
//	               └ not yet ──► a copy waits, at most waitFor
//
// Everything is bounded: packets, fragments a packet, waiting bytes, time. Sources are spread over shards by their address,
// and where a shard has no room the source that takes most of it yields: one that floods the table harms itself, and by the
// bytes of what waits those few that share its shard.
package fragment

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/middleway-net/middleway/stack/packet"
)

// Bounds of the table.
const (
	numShards = 16
	// shardPackets is how many packets of a shard are known: 256 with fragments under way at the same time are more than 16
	// hosts have, and an entry that is pushed out costs only those of its fragments that wait or are still to come.
	shardPackets = 256
	// shardBytes bounds the waiting fragments of a shard, 4 MiB in all: four packets of 64 KiB of which the first fragment
	// comes last.
	shardBytes = 4 * 64 << 10
	// maxWaiting is how many fragments of a packet wait: a packet of 64 KiB has 119 on a way of 576 bytes.
	maxWaiting = 128

	// lifetime is how long a packet's flow is known after its first fragment, the time that Linux gives to reassembly.
	lifetime = 30 * time.Second
	// lingering is how long it is known after all of the packet has passed: for duplicates. An IPv4 source that sends fast
	// uses an ID again soon (RFC 4963).
	lingering = time.Second
	// waitFor is how long a fragment waits for its packet's first: longer than packets overtake each other, shorter than
	// anybody waits for an answer.
	waitFor = time.Second
	// sweepEvery is how often fragments that have waited too long are looked for.
	sweepEvery = waitFor / 4
)

// Table is the node's table. All methods may be called by any goroutine. Times are since any fixed moment.
type Table struct {
	// Lost, if it is set before the table is used, is called with each fragment that waited and is dropped, for the reason. It must
	// neither block nor call the table; the fragment is borrowed.
	Lost func(b []byte, r packet.DropReason)

	seed     uint64
	shards   [numShards]shard
	waiting  atomic.Int64  // fragments
	timeouts atomic.Uint64 // fragments whose packet's first did not come in time
	pushed   atomic.Uint64 // waiting fragments that were pushed out by others
}

type shard struct {
	mu      sync.Mutex
	buckets [shardPackets / ways]bucket
	bytes   int // of waiting fragments
}

// ways is how many packets share a bucket.
const ways = 8

type bucket [ways]entry

// entry is what is known of one packet. Its zero value is free.
type entry struct {
	id       packet.PacketID
	deadline time.Duration // the entry is free from then on; 0: is free
	flow     packet.Flow
	hasFlow  bool
	known    bool     // the first fragment has come
	refused  bool     // first fragments contradicted each other
	from     uint16   // the least offset of a later fragment: behind the transport header
	seen     int      // bytes of fragments that came
	total    int      // bytes of the packet; 0: not yet known
	waiting  [][]byte // packets
}

// New returns an empty table.
func New() *Table { return &Table{seed: rand.Uint64()} }

// First enters the flow of a first fragment, whose headers are p, and returns the fragments that waited for it, whole packets
// which the caller owns. It is dropped if the reason is not packet.Kept.
func (t *Table) First(p *packet.Parsed, now time.Duration) (waiting [][]byte, r packet.DropReason) {
	id := p.PacketID()
	s := t.shard(&id)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := t.find(s, &id, now)
	if e == nil {
		e = t.take(s, &id, now)
	}
	if e.known && p.Version == 6 && (e.refused || e.flow != p.Flow || e.from != p.TransportEnd()) {
		// Its bytes overlap those of the first one: the packet is no more (RFC 8200, section 4.5; RFC 5722). Over IPv4 the ID was
		// used again.
		e.refused = true
		return nil, packet.DropFragment
	}
	waiting = e.waiting
	t.forget(s, e)
	e.flow, e.hasFlow, e.known, e.from = p.Flow, p.HasFlow, true, p.TransportEnd()
	e.seen, e.total = p.Len-p.Piece, 0
	e.deadline = now + lifetime
	return waiting, packet.Kept
}

// Later finds the flow of a later fragment b, whose headers p then tell it. If the first has not come yet, found is false and
// a copy of b waits. It is dropped if the reason is not packet.Kept.
func (t *Table) Later(b []byte, p *packet.Parsed, now time.Duration) (found bool, r packet.DropReason) {
	id := p.PacketID()
	s := t.shard(&id)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := t.find(s, &id, now)
	if e == nil {
		e = t.take(s, &id, now)
		e.deadline = now + waitFor
	}
	if !e.known {
		return false, t.keep(s, e, b[:p.Len])
	}
	if e.refused || p.FragmentOffset < e.from {
		return false, packet.DropFragment
	}
	n := p.Len - p.Piece
	e.seen += n
	if !p.MoreFragments {
		e.total = int(p.FragmentOffset) + n
	}
	if e.total > 0 && e.seen >= e.total {
		e.deadline = min(e.deadline, now+lingering)
	}
	p.Follow(e.flow, e.hasFlow)
	return true, packet.Kept
}

// keep makes a copy of b wait. The shard is locked.
func (t *Table) keep(s *shard, e *entry, b []byte) packet.DropReason {
	if len(e.waiting) == maxWaiting || s.bytes+len(b) > shardBytes {
		return packet.DropFragmentFull
	}
	e.waiting = append(e.waiting, append([]byte(nil), b...))
	s.bytes += len(b)
	t.waiting.Add(1)
	return packet.Kept
}

// forget takes an entry's waiting fragments out of the count. The shard is locked.
func (t *Table) forget(s *shard, e *entry) {
	for _, b := range e.waiting {
		s.bytes -= len(b)
	}
	t.waiting.Add(-int64(len(e.waiting)))
	e.waiting = nil
}

func (t *Table) shard(id *packet.PacketID) *shard {
	return &t.shards[id.HashSource(t.seed)%numShards]
}

func (s *shard) bucket(t *Table, id *packet.PacketID) *bucket {
	return &s.buckets[id.Hash(t.seed)%uint64(len(s.buckets))]
}

// find returns the entry of a packet, or nil. The shard is locked.
func (t *Table) find(s *shard, id *packet.PacketID, now time.Duration) *entry {
	b := s.bucket(t, id)
	for i := range b {
		if e := &b[i]; e.deadline > now && e.id == *id {
			return e
		}
	}
	return nil
}

// take returns an entry for a packet that has none: one that is free, or else a victim. The shard is locked.
func (t *Table) take(s *shard, id *packet.PacketID, now time.Duration) *entry {
	b := s.bucket(t, id)
	for i := range b {
		if e := &b[i]; e.deadline <= now {
			t.expire(s, e)
			*e = entry{id: *id}
			return e
		}
	}
	e := b.victim(id)
	t.pushed.Add(uint64(len(e.waiting)))
	t.tellLost(e, packet.DropFragmentFull)
	t.forget(s, e)
	*e = entry{id: *id}
	return e
}

// victim returns the entry that makes room for packet id, when none is free: of the source that has most, the newcomer counted,
// so that nobody pushes out those who have less than himself; and among that one's the oldest. Their deadlines say nothing of
// that: a fragment waits for a second, a first one that was abandoned is known for thirty.
func (b *bucket) victim(id *packet.PacketID) *entry {
	var victim *entry
	most := 0
	for i := range b {
		e, n := &b[i], 0
		if e.id.SameSource(id) {
			n++
		}
		for j := range b {
			if e.id.SameSource(&b[j].id) {
				n++
			}
		}
		if n > most || n == most && e.age() < victim.age() {
			victim, most = e, n
		}
	}
	return victim
}

// age orders entries: by when they were entered, those first of which all has passed.
func (e *entry) age() time.Duration {
	if e.known {
		return e.deadline - lifetime
	}
	return e.deadline - waitFor
}

// expire counts what waited in vain. The shard is locked.
func (t *Table) expire(s *shard, e *entry) {
	t.timeouts.Add(uint64(len(e.waiting)))
	t.tellLost(e, packet.DropFragmentTimeout)
	t.forget(s, e)
}

func (t *Table) tellLost(e *entry, r packet.DropReason) {
	if t.Lost == nil {
		return
	}
	for _, b := range e.waiting {
		t.Lost(b, r)
	}
}

// Run drops fragments that have waited too long, until ctx ends. clock tells the time.
func (t *Table) Run(ctx context.Context, clock func() time.Duration) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			t.sweep(clock())
		}
	}
}

func (t *Table) sweep(now time.Duration) {
	if t.waiting.Load() == 0 {
		return
	}
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for b := range s.buckets {
			for w := range s.buckets[b] {
				if e := &s.buckets[b][w]; len(e.waiting) > 0 && e.deadline <= now {
					t.expire(s, e)
					e.deadline = 0
				}
			}
		}
		s.mu.Unlock()
	}
}

// AddDrops adds the fragments that the table itself has dropped to sum, by the names of the reasons.
func (t *Table) AddDrops(sum map[string]uint64) {
	for r, n := range map[packet.DropReason]uint64{
		packet.DropFragmentTimeout: t.timeouts.Load(), packet.DropFragmentFull: t.pushed.Load(),
	} {
		if n > 0 {
			sum[r.String()] += n
		}
	}
}
