package flow

import "github.com/middleway-net/middleway/stack/packet"

// cacheSlots is how many copies a worker holds: 512 KiB, two cache lines each, within a core's second-level cache. Two flows on one slot
// take turns and cost the shared table's lock each time.
const cacheSlots = 4096

// Cache is one worker's copies of entries. It is not safe for concurrent use.
type Cache struct {
	table *Table
	slots []Copy

	glance bool // see Glance
}

// NewCache returns an empty cache of t.
func NewCache(t *Table) *Cache { return &Cache{table: t, slots: make([]Copy, cacheSlots)} }

// Get returns the worker's copy of f's entry, from the cache or the shared table, or nil if the node does not know the
// flow. now is the current second (Now). The copy is valid until the next call of Get or Put.
func (c *Cache) Get(f *packet.Flow, now uint32) *Copy {
	hash := f.Hash(c.table.head.seed)
	slot := &c.slots[hash%cacheSlots]
	if slot.Flow == *f && slot.version != 0 {
		e := &c.table.entries[slot.ref]
		if e.version.Load() == slot.version {
			if slot.seen == now {
				return slot
			}
			if !c.table.widowed(slot.ref) || slot.mirrors() { // asked once a second
				slot.seen = now
				e.seen.Store(now)
				return slot
			}
		}
	}
	var ok bool
	if c.glance {
		*slot, ok = c.table.Peek(*f)
		slot.version = 0 // asked anew each time
	} else {
		*slot, ok = c.table.lookup(f, hash, now)
	}
	if !ok {
		return nil
	}
	return slot
}

// Put keeps a copy.
func (c *Cache) Put(copied Copy) *Copy {
	slot := &c.slots[copied.Flow.Hash(c.table.head.seed)%cacheSlots]
	*slot = copied
	return slot
}

// Now returns the current second on the table's clock.
func (c *Cache) Now() uint32 { return c.table.now() }
