package flow

import (
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/middleway-net/middleway/stack/packet"
)

// affinities are where clients' connections went last, in the table's file behind its entries: at most one for each client and
// port of a Service. A full bucket gives up the one that was used longest ago.
type affinities struct {
	entries []affinity
	shards  [affinityShards]sync.Mutex
}

// affinity is one of them as it lies in the mapped file: 64 bytes, a cache line. A version works as that of an entry does.
type affinity struct {
	version atomic.Uint32
	last    uint32 // second of the last connection, on the clock of Table.now; 0: free
	id      uint64
	client  packet.AddrKey
	addr    packet.AddrKey
	port    uint16
	_       [affinitySize - 50]byte
}

const (
	affinitySize   = 64
	affinityWays   = 8
	affinityShards = 16
)

var _ [affinitySize]byte = [unsafe.Sizeof(affinity{})]byte{}

// affinitiesBeside returns how many affinities a table of n entries has: as many as half of its flows.
func affinitiesBeside(n int) int { return n / 4 }

// Recall returns where the last connection of a client to the Service port of the given ID went, if that is no longer ago than
// within.
func (t *Table) Recall(client packet.AddrKey, id uint64, within time.Duration) (addr packet.AddrKey, port uint16, ok bool) {
	bucket, mu := t.affinities.bucket(client, id, t.head.seed)
	mu.Lock()
	defer mu.Unlock()
	for i := range bucket {
		if a := &bucket[i]; a.is(client, id) {
			age := time.Duration(max(int32(t.now()-a.last), 0)) * time.Second
			return a.addr, a.port, age < within
		}
	}
	return packet.AddrKey{}, 0, false
}

// Remember notes where a new connection of a client to the Service port of the given ID goes.
func (t *Table) Remember(client packet.AddrKey, id uint64, addr packet.AddrKey, port uint16) {
	bucket, mu := t.affinities.bucket(client, id, t.head.seed)
	mu.Lock()
	defer mu.Unlock()
	oldest := &bucket[0]
	for i := range bucket {
		a := &bucket[i]
		if a.is(client, id) {
			oldest = a
			break
		}
		if oldest.last != 0 && (a.last == 0 || int32(a.last-oldest.last) < 0) {
			oldest = a
		}
	}
	v := oldest.version.Load() | 1
	oldest.version.Store(v)
	oldest.client, oldest.id, oldest.addr, oldest.port, oldest.last = client, id, addr, port, t.now()
	oldest.version.Store(v + 1)
}

func (a *affinity) is(client packet.AddrKey, id uint64) bool {
	return a.last != 0 && a.id == id && a.client == client
}

func (as *affinities) bucket(client packet.AddrKey, id, seed uint64) ([]affinity, *sync.Mutex) {
	f := packet.Flow{}.WithSource(client, 0)
	n := f.Hash(seed^id) % uint64(len(as.entries)/affinityWays)
	return as.entries[n*affinityWays:][:affinityWays], &as.shards[n%affinityShards]
}

// recover frees what was torn in the middle of a write, and what claims to be of the future.
func (as *affinities) recover(now uint32) {
	for i := range as.entries {
		a := &as.entries[i]
		if torn := a.version.Load()&1 == 1; torn || int32(now-a.last) < 0 {
			a.last = 0
			a.version.Store((a.version.Load() | 1) + 1)
		}
	}
}
