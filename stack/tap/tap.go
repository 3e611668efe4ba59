package tap

import "maps"

// Config configures a Tap.
type Config struct {
	Filter Filter
	// SnapLen is how many bytes of each packet are kept at most. Default and most: half of Bytes.
	SnapLen int
	// Writers is how many goroutines write. Required.
	Writers int
	// Slots and Bytes are how many records and bytes may wait for the reader, for each writer. Slots is a power of two. Default
	// 4,096 and 4 MiB: on a way of 1,400 bytes a packet that is 3,000 of them.
	Slots, Bytes int
}

// Defaults of a Config.
const (
	defaultSlots = 4096
	defaultBytes = 4 << 20
)

// Tap is what one onlooker sees.
type Tap struct {
	drops   bool
	writers []*Writer
}

// New returns a tap that nobody writes to yet.
func New(c Config) *Tap {
	if c.Slots == 0 {
		c.Slots = defaultSlots
	}
	if c.Bytes == 0 {
		c.Bytes = defaultBytes
	}
	// Bytes of a packet lie in one piece: in an empty ring there is always room for half of it.
	if most := c.Bytes / 2; c.SnapLen <= 0 || c.SnapLen > most {
		c.SnapLen = most
	}
	t := &Tap{drops: c.Filter.Drops}
	for range c.Writers {
		t.writers = append(t.writers, &Writer{
			filter: &c.Filter, snap: c.SnapLen, ring: newRing(c.Slots, c.Bytes), losing: map[Place]uint64{}, lost: map[Place]uint64{},
			train: make([]uint64, 0, trainRoom),
		})
	}
	return t
}

// trainRoom is how many packets a train has at most; more would cost an allocation.
const trainRoom = 128

// Writer returns the end of writer i.
func (t *Tap) Writer(i int) *Writer { return t.writers[i] }

// Read calls take with each record that was published since the last Read, of one writer after another. Record and bytes are
// borrowed until it returns. It is for one goroutine.
func (t *Tap) Read(take func(*Record, []byte)) {
	for _, w := range t.writers {
		w.read(func(rec *Record, data []byte) {
			if !t.drops || rec.Verdict == Dropped {
				take(rec, data)
			}
		})
	}
}

// Lost returns how many records were lost, by the interface, of which layer and name are set. Those of a batch under way may
// be missing.
func (t *Tap) Lost() map[Place]uint64 {
	all := map[Place]uint64{}
	for _, w := range t.writers {
		w.mu.Lock()
		for at, n := range maps.All(w.lost) {
			all[at] += n
		}
		w.mu.Unlock()
	}
	return all
}
