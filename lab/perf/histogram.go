package perf

import (
	"math/bits"
	"time"
)

// Histogram counts times in buckets whose width grows with the time, as HdrHistogram's do: what it tells is at most 1/64
// too much. The zero value is empty.
type Histogram struct {
	counts [buckets]int64
	count  int64
	max    time.Duration
}

// Below 2^subBits ns a bucket is 1 ns wide; from there on each doubling of the time has 2^subBits/2 buckets.
const (
	subBits = 7
	half    = 1 << (subBits - 1)
	buckets = (64 - subBits + 2) * half
)

func bucketOf(d time.Duration) int {
	n := uint64(max(d, 0))
	shift := max(0, bits.Len64(n)-subBits)
	return shift*half + int(n>>shift)
}

// upper returns the greatest time that falls into a bucket.
func upper(bucket int) time.Duration {
	shift := max(0, bucket/half-1)
	return time.Duration((uint64(bucket-shift*half)+1)<<shift - 1)
}

// Add counts a time.
func (h *Histogram) Add(d time.Duration) {
	h.counts[bucketOf(d)]++
	h.count++
	h.max = max(h.max, d)
}

// Merge adds what another histogram has counted.
func (h *Histogram) Merge(o *Histogram) {
	for i, n := range o.counts {
		h.counts[i] += n
	}
	h.count += o.count
	h.max = max(h.max, o.max)
}

// Count returns how many times were added.
func (h *Histogram) Count() int64 { return h.count }

// Max returns the greatest time, exactly.
func (h *Histogram) Max() time.Duration { return h.max }

// Quantile returns the time that a share q of all do not exceed: 0.5 is the median. It is 0 for an empty histogram.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank := max(1, int64(q*float64(h.count)+0.5))
	for i, n := range h.counts {
		if rank -= n; rank <= 0 {
			return min(upper(i), h.max)
		}
	}
	return h.max
}
