package dns

import (
	"hash/maphash"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// Sizes of the cache.
const (
	// DefaultCacheEntries are 2 MB of ordinary answers.
	DefaultCacheEntries = 10000
	// maxEntry is the largest answer that is kept, in bytes.
	maxEntry = 4096
	ways     = 4
)

// cache holds upstreams' answers: sets of a few slots each, so that it is bounded, and looking something up takes no lock.
type cache struct {
	slots []atomic.Pointer[entry] // ways times a power of two
	stale time.Duration           // how long an entry is kept beyond its life

	mu      sync.Mutex // guards what slots are set to
	evicted atomic.Uint64
}

func newCache(entries int, stale time.Duration) *cache {
	sets := 1 << bits.Len(uint(max(entries-1, 0)/ways))
	return &cache{slots: make([]atomic.Pointer[entry], ways*sets), stale: stale}
}

// Flags of a key.
const (
	keyDNSSECOK = 1 << iota
	keyUnchecked
)

// maxKey is the length of the longest key: name, type, flags.
const maxKey = maxName + 3

// appendKey appends what an answer is kept under.
func appendKey(b []byte, nm *name, q *query) []byte {
	flags := byte(0)
	if q.dnssecOK {
		flags |= keyDNSSECOK
	}
	if q.flags&bitCD != 0 {
		flags |= keyUnchecked
	}
	return append(append(b, nm.wire()...), byte(q.qtype>>8), byte(q.qtype), flags)
}

func (c *cache) set(hash uint64) []atomic.Pointer[entry] {
	i := int(hash) & (len(c.slots)/ways - 1) * ways
	return c.slots[i : i+ways]
}

// get returns the entry of the key, however old it is; nil if there is none.
func (c *cache) get(key []byte) *entry {
	set := c.set(maphash.Bytes(seed, key))
	for i := range set {
		if e := set[i].Load(); e != nil && e.key == string(key) {
			return e
		}
	}
	return nil
}

// put keeps an entry, in place of the one of its key or of that whose life ends first.
func (c *cache) put(e *entry, now time.Duration) {
	if e.ttl <= 0 || len(e.msg) > maxEntry {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	set := c.set(maphash.String(seed, e.key))
	victim := &set[0]
	for i := range set {
		old := set[i].Load()
		if old == nil || old.key == e.key {
			victim = &set[i]
			break
		}
		if old.expired < victim.Load().expired {
			victim = &set[i]
		}
	}
	if old := victim.Load(); old != nil && old.key != e.key && old.fresh(now) {
		c.evicted.Add(1)
	}
	victim.Store(e)
}

// keep makes the entry one of the key, whose life begins now.
func (e *entry) keep(key string, now time.Duration) *entry {
	e.key, e.stored, e.expired = key, now, now+e.ttl
	return e
}

// fresh reports whether the entry may be given as it is.
func (e *entry) fresh(now time.Duration) bool { return now < max(e.expired, e.recheck) }

// usable reports whether the entry may be given if there is no newer one.
func (c *cache) usable(e *entry, now time.Duration) bool {
	return e != nil && e.code != ServFail && now < e.expired+c.stale
}

// late reports whether an entry that is asked for is worth asking anew before its life ends: it is in the last tenth of it, and popular. One
// caller is told so.
func (e *entry) late(now time.Duration) bool {
	return e.code != ServFail && now > e.expired-e.ttl/10 && e.recheck == 0 &&
		e.lateHits.Add(1) >= lateHits && e.refreshing.CompareAndSwap(false, true)
}

// lateHits are so many questions in the last tenth of an answer's life that make it popular.
const lateHits = 2
