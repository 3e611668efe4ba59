package perf

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// Every time lies in the bucket whose upper end is the least that is not below it, and the bucket is at most 1/64 wide.
func TestBuckets(t *testing.T) {
	for _, d := range []time.Duration{0, 1, 127, 128, 129, 130, 255, 256, 1e6, 1e9 + 1, math.MaxInt64} {
		b := bucketOf(d)
		if u := upper(b); u < d || float64(u-d) > float64(d)/64 {
			t.Errorf("%d ns: bucket %d up to %d ns", int64(d), b, int64(u))
		}
		if b > 0 && upper(b-1) >= d {
			t.Errorf("%d ns: bucket %d, but the one below reaches to %d ns", int64(d), b, int64(upper(b-1)))
		}
	}
	if bucketOf(-1) != 0 || bucketOf(math.MaxInt64) >= buckets {
		t.Error("times at the ends have no bucket")
	}
}

func TestQuantiles(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var h, one, two Histogram
	if h.Quantile(0.5) != 0 || h.Max() != 0 || h.Count() != 0 {
		t.Error("an empty histogram is not 0")
	}
	var times []time.Duration
	for i := range 10_000 {
		d := time.Duration(math.Exp(random.Float64() * 20))
		times = append(times, d)
		if i%2 == 0 {
			one.Add(d)
		} else {
			two.Add(d)
		}
	}
	h.Merge(&one)
	h.Merge(&two)
	slices.Sort(times)
	for _, q := range []float64{0, 0.5, 0.9, 0.99, 1} {
		want := times[max(0, int(q*10_000+0.5)-1)]
		if got := h.Quantile(q); got < want || float64(got-want) > float64(want)/64 {
			t.Errorf("quantile %v: got %v, want %v", q, got, want)
		}
	}
	if h.Count() != 10_000 || h.Max() != times[9_999] {
		t.Errorf("got %d times up to %v", h.Count(), h.Max())
	}
}

func TestLoss(t *testing.T) {
	for _, tt := range []struct {
		r    Result
		want float64
	}{
		{Result{}, 0},
		{Result{Packets: 3, Sent: 4}, 0.25},
		{Result{Packets: 5, Sent: 4}, 0}, // one was late
		{Result{Requests: 1, Unanswered: 3}, 0.75},
	} {
		if got := tt.r.Loss(); got != tt.want {
			t.Errorf("%+v: got %v, want %v", tt.r, got, tt.want)
		}
	}
	if got := (Result{}).Gbits(); got != 0 {
		t.Errorf("nothing: got %v", got)
	}
}
