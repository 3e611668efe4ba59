package bench

import (
	"math"
	"slices"
	"time"

	"github.com/middleway-net/middleway/lab/perf"
)

// Result is what one run over a pair measured.
type Result struct {
	perf.Result
	// DaemonCPU is the processor time, user and system, that the pair's daemons used meanwhile. The kernel's work in their
	// system calls is theirs; what it does in interrupts is not.
	DaemonCPU time.Duration
}

// GeneratorCPU returns the processor time of both load generators: all the price of a way in the kernel that can be seen. Work in
// interrupts is in it where the kernel counts it to whom it interrupts (without CONFIG_IRQ_TIME_ACCOUNTING).
func (r Result) GeneratorCPU() time.Duration { return r.ClientCPU + r.ServerCPU }

// Rounds are runs over a pair and over the kernel's, in turn: kernel, pair, kernel, pair, …, kernel.
type Rounds struct {
	Own    []Result
	Kernel []Result // one more than Own; empty on a kernel that has no such way
}

// Add runs one more round. The kernel's pair may be nil.
func (r *Rounds) Add(t perf.Test, p, kernel *Pair) error {
	if kernel != nil && len(r.Kernel) == 0 {
		if err := add(&r.Kernel, t, kernel); err != nil {
			return err
		}
	}
	if err := add(&r.Own, t, p); err != nil || kernel == nil {
		return err
	}
	return add(&r.Kernel, t, kernel)
}

func add(results *[]Result, t perf.Test, p *Pair) error {
	r, err := Run(p, t)
	if err == nil {
		*results = append(*results, r)
	}
	return err
}

// Ratios returns a figure of each run over the pair by the mean of the kernel's two beside it.
func (r Rounds) Ratios(figure func(Result) float64) []float64 {
	ratios := make([]float64, len(r.Own))
	for i, own := range r.Own {
		ratios[i] = figure(own) / ((figure(r.Kernel[i]) + figure(r.Kernel[i+1])) / 2)
	}
	return ratios
}

// Noise returns how far the kernel is from itself: the median of the differences from one of its runs to the next, as shares.
func (r Rounds) Noise(figure func(Result) float64) float64 {
	changes := make([]float64, len(r.Own))
	for i := range changes {
		changes[i] = math.Abs(figure(r.Kernel[i+1])/figure(r.Kernel[i]) - 1)
	}
	return Median(changes)
}

// Figures returns a figure of each run.
func Figures(results []Result, figure func(Result) float64) []float64 {
	values := make([]float64, len(results))
	for i, r := range results {
		values[i] = figure(r)
	}
	return values
}

// Median returns the middle value, or the mean of the two.
func Median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
