package egress

import (
	"github.com/middleway-net/middleway/bench"
	"github.com/middleway-net/middleway/lab/perf"
)

// turns are runs over two ways, one after the other. Which of them is first changes from round to round, so that a machine that slows down
// favours none.
type turns struct{ own, beside []bench.Result }

// add runs one more round.
func (r *turns) add(t perf.Test, own, beside *bench.Pair) error {
	steps := []func() error{
		func() error { return run(&r.own, t, own) },
		func() error { return run(&r.beside, t, beside) },
	}
	first := len(r.own) % 2
	if err := steps[first](); err != nil {
		return err
	}
	return steps[1-first]()
}

func run(results *[]bench.Result, t perf.Test, p *bench.Pair) error {
	r, err := bench.Run(p, t)
	if err == nil {
		*results = append(*results, r)
	}
	return err
}

// ratios returns a figure of each of our own runs by that of its round's other.
func (r *turns) ratios(figure func(bench.Result) float64) []float64 {
	ratios := make([]float64, len(r.own))
	for i, own := range r.own {
		ratios[i] = figure(own) / figure(r.beside[i])
	}
	return ratios
}
