package bench

import (
	"fmt"
	"slices"
	"time"
)

// Result is what a Load measured.
type Result struct {
	// Bytes were read by the receivers within Elapsed.
	Bytes   int64
	Elapsed time.Duration
	// DaemonCPU is the processor time, user and system, that the pair's daemons used meanwhile. The kernel's work in their
	// system calls is theirs; what it does in interrupts is not.
	DaemonCPU time.Duration
}

// Gbits returns the rate in Gbit/s.
func (r Result) Gbits() float64 { return float64(r.Bytes) * 8 / float64(r.Elapsed) }

// CPUPerGB returns the daemons' processor time in seconds for each gigabyte (10⁹ bytes).
func (r Result) CPUPerGB() float64 { return r.DaemonCPU.Seconds() * 1e9 / float64(r.Bytes) }

// Rounds measures the pairs in turn, n times over. The result is by pair, then by round.
func (l Load) Rounds(n int, pairs ...*Pair) ([][]Result, error) {
	results := make([][]Result, len(pairs))
	for round := range n {
		for i, p := range pairs {
			r, err := l.Run(p)
			if err != nil {
				return nil, fmt.Errorf("round %d, pair %d: %w", round, i, err)
			}
			results[i] = append(results[i], r)
		}
	}
	return results, nil
}

// Rates returns the rates of results in Gbit/s.
func Rates(results []Result) []float64 {
	rates := make([]float64, len(results))
	for i, r := range results {
		rates[i] = r.Gbits()
	}
	return rates
}

// Ratios returns, for each round, a's rate by b's.
func Ratios(a, b []Result) []float64 {
	ratios := make([]float64, len(a))
	for i := range a {
		ratios[i] = a[i].Gbits() / b[i].Gbits()
	}
	return ratios
}

// Median returns the middle value, or the mean of the two.
func Median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
