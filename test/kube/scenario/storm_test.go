package scenario

import (
	"math"
	"testing"
)

func TestHistogram(t *testing.T) {
	const before = `# TYPE add_seconds histogram
add_seconds_bucket{le="0.01"} 10
add_seconds_bucket{le="0.1"} 10
add_seconds_bucket{le="+Inf"} 10
add_seconds_sum 0.05
add_seconds_count 10
other_bucket{le="0.01"} 7
`
	const after = `add_seconds_bucket{le="0.01"} 60
add_seconds_bucket{le="0.1"} 109
add_seconds_bucket{le="+Inf"} 110
`
	var h histogram
	h.add(parseSamples(after), "add_seconds", 1)
	h.add(parseSamples(before), "add_seconds", -1)
	if h.count() != 100 {
		t.Errorf("%v observations, want 100", h.count())
	}
	for _, row := range []struct{ part, want float64 }{{0.25, 0.005}, {0.5, 0.01}, {0.99, 0.1}, {1, 0.1}} {
		if got := h.quantile(row.part); math.Abs(got-row.want) > 1e-9 {
			t.Errorf("quantile %v: %v, want %v", row.part, got, row.want)
		}
	}
	if got := (histogram{}).quantile(0.5); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
}
