package bench

import (
	"math"

	"github.com/middleway-net/middleway/lab/perf"
)

// Paired are runs to pods' own addresses and through a Service, in turn. Both of a round share the generators, the pods and the
// daemons; which of them is first changes from round to round, so that a machine that slows down favours none.
type Paired struct{ Direct, Service []Result }

// Add runs one more round.
func (p *Paired) Add(t perf.Test, s *ServicePair) error {
	direct := func() error { return s.add(&p.Direct, t, s.pods) }
	service := func() error { return s.add(&p.Service, t, s.frontend) }
	if len(p.Direct)%2 > 0 {
		direct, service = service, direct
	}
	if err := direct(); err != nil {
		return err
	}
	return service()
}

// Ratios returns a figure of each run through the Service by that of its round's to the pods.
func (p Paired) Ratios(figure func(Result) float64) []float64 {
	ratios := make([]float64, len(p.Direct))
	for i, direct := range p.Direct {
		ratios[i] = figure(p.Service[i]) / figure(direct)
	}
	return ratios
}

// Interval returns the geometric mean of ratios and its 95 % interval: Student's of the logarithms, so that it makes no difference
// which of two is divided by which. It takes two ratios or more.
func Interval(ratios []float64) (mean, low, high float64) {
	n := float64(len(ratios))
	sum, squares := 0.0, 0.0
	for _, r := range ratios {
		sum += math.Log(r)
	}
	for _, r := range ratios {
		squares += math.Pow(math.Log(r)-sum/n, 2)
	}
	half := student(len(ratios)-1) * math.Sqrt(squares/(n-1)/n)
	return math.Exp(sum / n), math.Exp(sum/n - half), math.Exp(sum/n + half)
}

// studentTable has the 97.5 % quantiles of Student's distribution with 1 to 30 degrees of freedom.
var studentTable = [...]float64{
	12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
	2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
}

// student returns a quantile of studentTable; with more degrees of freedom that of 30, which is 4 % too much at most.
func student(freedom int) float64 {
	if freedom < 1 {
		return math.NaN()
	}
	return studentTable[min(freedom, len(studentTable))-1]
}
