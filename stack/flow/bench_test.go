package flow

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/middleway-net/middleway/stack/packet"
)

// filled returns a table with n flows of two directions each and those that are in it.
func filled(b *testing.B, entries, n int) (*Table, []packet.Flow) {
	table := New(entries)
	var flows []packet.Flow
	for i := range n {
		f := numbered(packet.UDP, i)
		create(table, f, toPod, toPeer, 1)
		flows = append(flows, f)
	}
	if table.Evicted() > 0 {
		b.Logf("%d evicted, %v", table.Evicted(), table)
	}
	rand.Shuffle(n, func(i, j int) { flows[i], flows[j] = flows[j], flows[i] })
	return table, flows
}

// BenchmarkFlowLookup finds one flow again and again (hot), and random ones among many, through a worker's cache, in the
// shared table, and in a Go map under a lock.
func BenchmarkFlowLookup(b *testing.B) {
	for _, size := range []struct {
		name           string
		entries, flows int
	}{{"hot", 1 << 16, 1}, {"64k", 1 << 16, 20_000}, {"1M", 1 << 20, 320_000}} {
		table, flows := filled(b, size.entries, size.flows)
		b.Run(size.name+"/cache", func(b *testing.B) {
			cache := NewCache(table)
			now := cache.Now()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				cache.Get(&flows[i%len(flows)], now)
			}
		})
		b.Run(size.name+"/table", func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				table.Lookup(flows[i%len(flows)])
			}
		})
		b.Run(size.name+"/map", func(b *testing.B) {
			var mu sync.Mutex
			m := make(map[packet.Flow]Copy, 2*len(flows))
			for _, f := range flows {
				m[f], m[f.Reverse()] = Copy{Flow: f, Verdict: toPod}, Copy{Flow: f.Reverse(), Verdict: toPeer}
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				mu.Lock()
				_, ok := m[flows[i%len(flows)]]
				mu.Unlock()
				if !ok {
					b.Fatal("lost")
				}
			}
		})
	}
}

// BenchmarkFlowInsert is a miss and the insert of both directions, into a table that is full.
func BenchmarkFlowInsert(b *testing.B) {
	table, _ := filled(b, 1<<16, 1<<16)
	cache := NewCache(table)
	now := cache.Now()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		f := numbered(packet.TCP, i&(1<<24-1))
		if cache.Get(&f, now) == nil {
			cache.Put(create(table, f, toPod, toPeer, 1))
		}
	}
}

// BenchmarkFlowRejudge is what a flow's first packet costs after a change of the tables.
func BenchmarkFlowRejudge(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprintf("%d flows", n), func(b *testing.B) {
			table, flows := filled(b, 1<<16, n)
			cache := NewCache(table)
			now, generation := cache.Now(), uint32(1)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if i%n == 0 {
					generation++
				}
				c := cache.Get(&flows[i%n], now)
				if c.Generation == generation {
					b.Fatal("judged already")
				}
				fresh, _ := table.Rejudge(c, toPod, generation)
				cache.Put(fresh)
			}
		})
	}
}
