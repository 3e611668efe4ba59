package dns

import (
	"hash/maphash"
	"slices"
)

// seed makes hashes that nobody outside can foresee.
var seed = maphash.MakeSeed()

func hashOf(b []byte) uint32       { return uint32(maphash.Bytes(seed, b)) }
func hashOfString(s string) uint32 { return uint32(maphash.String(seed, s)) }

// Sizes of a table: slots a bucket on average, at most, and buckets a page.
const (
	fill     = 8
	pageBits = 6
)

// table is an immutable hash table. Whoever looks something up compares what lies under its hash. An edit shares with the table all
// pages that it does not touch, so that a change costs a page, a bucket and 1/512 of the table in pointers.
type table[V comparable] struct {
	pages []*page[V] // a power of two of them
	n     int
}

type page[V comparable] [1 << pageBits][]slot[V]

type slot[V comparable] struct {
	hash  uint32
	value V
}

// under returns the slots among which those of the hash are.
func (t *table[V]) under(hash uint32) []slot[V] {
	if len(t.pages) == 0 {
		return nil
	}
	return t.pages[int(hash>>pageBits)&(len(t.pages)-1)][hash&(1<<pageBits-1)]
}

// edit makes the next table. The table that it began with stays as it is.
type edit[V comparable] struct {
	table[V]
	own []bool // pages that no other table has
}

func (t table[V]) edit() edit[V] {
	if len(t.pages) == 0 {
		return edit[V]{table: table[V]{pages: []*page[V]{{}}}, own: []bool{true}}
	}
	return edit[V]{table[V]{slices.Clone(t.pages), t.n}, make([]bool, len(t.pages))}
}

func (e *edit[V]) bucket(hash uint32) *[]slot[V] {
	i := int(hash>>pageBits) & (len(e.pages) - 1)
	if !e.own[i] {
		p := *e.pages[i]
		e.pages[i], e.own[i] = &p, true
	}
	return &e.pages[i][hash&(1<<pageBits-1)]
}

// add adds a value.
func (e *edit[V]) add(hash uint32, v V) {
	if e.n >= fill<<pageBits*len(e.pages) {
		e.grow()
	}
	b := e.bucket(hash)
	*b = slices.Concat(*b, []slot[V]{{hash, v}})
	e.n++
}

// remove removes a value that is there.
func (e *edit[V]) remove(hash uint32, v V) {
	b := e.bucket(hash)
	if i := slices.Index(*b, slot[V]{hash, v}); i >= 0 {
		*b = slices.Concat((*b)[:i], (*b)[i+1:])
		e.n--
	}
}

// grow doubles the number of pages.
func (e *edit[V]) grow() {
	old := e.pages
	e.pages = make([]*page[V], 2*len(old))
	e.own = make([]bool, len(e.pages))
	for i := range e.pages {
		e.pages[i], e.own[i] = &page[V]{}, true
	}
	for _, p := range old {
		for _, bucket := range p {
			for _, s := range bucket {
				b := e.bucket(s.hash)
				*b = append(*b, s)
			}
		}
	}
}
