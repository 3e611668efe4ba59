package service

import (
	"cmp"
	"slices"

	"github.com/middleway-net/middleway/stack/packet"
)

// maglevSizes are primes. The one for n backends is at least 100·n, so that no backend's share is off by more than about one in
// a hundred (Maglev, section 5.3), or the largest.
var maglevSizes = [...]int{251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521}

// maglev returns the lookup table of the Maglev paper, section 3.4: each backend has a permutation of the slots, from its
// address and port alone, and they take turns in taking the next free one of theirs. Nodes that have the same backends, in
// whatever order, make the same table.
func maglev(backends []Backend) []uint16 {
	size := maglevSize(len(backends))
	order := make([]int, len(backends))
	for i := range order {
		order[i] = i
	}
	hash := func(i int) uint64 {
		f := packet.Flow{}.WithDestination(backends[i].Addr, backends[i].Port)
		return f.Hash(1)
	}
	slices.SortFunc(order, func(i, j int) int { return cmp.Compare(hash(i), hash(j)) })
	type walk struct{ at, skip int }
	walks := make([]walk, len(order))
	for i, backend := range order {
		h := hash(backend)
		walks[i] = walk{int(h % uint64(size)), int(h>>32%uint64(size-1)) + 1}
	}
	const free = 0xffff
	table := make([]uint16, size)
	for i := range table {
		table[i] = free
	}
	for filled := 0; ; {
		for i := range walks {
			w := &walks[i]
			for table[w.at] != free {
				w.at = (w.at + w.skip) % size
			}
			table[w.at] = uint16(order[i])
			if filled++; filled == size {
				return table
			}
		}
	}
}

func maglevSize(backends int) int {
	for _, size := range maglevSizes {
		if size >= 100*backends {
			return size
		}
	}
	return maglevSizes[len(maglevSizes)-1]
}
