package tap

import "sync/atomic"

// ring hands records from one goroutine, the producer, to another, the reader. Both rings of it, records and their bytes, are
// counted by numbers that only grow:
//
//	taken ≤ published ≤ next ≤ taken + len(slots)
//	      └ the reader's ┘ └ the producer's: it may change them
type ring struct {
	slots []Record // their number is a power of two
	bytes []byte

	next     uint64 // of records
	nextByte uint64

	published atomic.Uint64
	taken     atomic.Uint64
	takenByte atomic.Uint64
}

func newRing(slots, bytes int) ring {
	return ring{slots: make([]Record, slots), bytes: make([]byte, bytes)}
}

func (r *ring) slot(n uint64) *Record { return &r.slots[n&uint64(len(r.slots)-1)] }

// reserve returns the number of a new record with room for n bytes, which lie in one piece, or false if there is no room. It is
// the producer's.
func (r *ring) reserve(n int) (number uint64, room []byte, ok bool) {
	size, want := uint64(len(r.bytes)), uint64(n)
	begin := r.nextByte
	if left := size - begin%size; want > left {
		begin += left
	}
	if r.next-r.taken.Load() == uint64(len(r.slots)) || begin+want-r.takenByte.Load() > size {
		return 0, nil, false
	}
	number = r.next
	*r.slot(number) = Record{begin: begin, end: begin + want}
	r.next, r.nextByte = number+1, begin+want
	return number, r.data(r.slot(number)), true
}

func (r *ring) data(rec *Record) []byte {
	at := rec.begin % uint64(len(r.bytes))
	return r.bytes[at : at+rec.end-rec.begin]
}

// publish hands what was reserved to the reader.
func (r *ring) publish() {
	if r.next != r.published.Load() {
		r.published.Store(r.next)
	}
}

// read calls take with each record that was published. Record and bytes are borrowed until it returns.
func (r *ring) read(take func(*Record, []byte)) {
	for n, end := r.taken.Load(), r.published.Load(); n < end; n++ {
		rec := r.slot(n)
		last := rec.end
		take(rec, r.data(rec))
		r.takenByte.Store(last)
		r.taken.Store(n + 1)
	}
}
