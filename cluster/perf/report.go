package perf

import (
	"slices"
)

// Report is what a run measured.
type Report struct {
	Server  string  `json:"server"` // the API server's address
	Rounds  int     `json:"rounds"`
	Seconds float64 `json:"seconds"` // of each measurement
	Pairs   []*Pair `json:"pairs"`
}

// Pair is two nodes, or one.
type Pair struct {
	From string `json:"from"`
	To   string `json:"to"`
	Ways []*Way `json:"ways"`
}

// Way is from one pod to another. The first of a pair of two nodes is that without the pod network.
type Way struct {
	Name     string     `json:"name"`
	Base     bool       `json:"base,omitempty"`
	Measures []*Measure `json:"measures"`
	between  bool       // two nodes, so that it is compared
}

// Measure is one kind of measurement on a way.
type Measure struct {
	// Kind is tcp, udp, connections or latency.
	Kind string `json:"kind"`
	// Rounds are its figures, of each round in turn: bit/s of tcp, packets/s of udp that arrived, connections/s, and the median round trip
	// of latency in milliseconds. 0 stands for a round that failed.
	Rounds []float64 `json:"rounds,omitempty"`
	Median float64   `json:"median,omitempty"`
	// P99 is of latency in milliseconds, of the median round; Loss of udp, in percent.
	P99  float64 `json:"p99Ms,omitempty"`
	Loss float64 `json:"lossPercent,omitempty"`
	// Ratio is to the way without the pod network in the same round: the median of all rounds, and its least and greatest.
	Ratio    float64 `json:"ratio,omitempty"`
	RatioMin float64 `json:"ratioMin,omitempty"`
	RatioMax float64 `json:"ratioMax,omitempty"`
	Error    string  `json:"error,omitempty"` // of the last round that failed

	p99, loss []float64
}

func newWay(w way) *Way {
	way := &Way{Name: w.name, Base: w.base, between: w.name == "pod → pod" || w.streams != ""}
	for _, k := range kinds {
		way.Measures = append(way.Measures, &Measure{Kind: k.name})
	}
	return way
}

// add adds a round.
func (m *Measure) add(f figures, k kind, err error) {
	if err != nil {
		m.Error, m.Rounds = brief(err), append(m.Rounds, 0)
		return
	}
	m.Rounds, m.p99, m.loss = append(m.Rounds, k.value(f)), append(m.p99, f.P99), append(m.loss, f.Loss)
}

// median returns the middle one of the values that are not 0; 0 if there is none.
func median(values []float64) float64 {
	there := slices.DeleteFunc(slices.Clone(values), func(v float64) bool { return v == 0 })
	if len(there) == 0 {
		return 0
	}
	slices.Sort(there)
	return there[len(there)/2]
}

// compare computes medians, and ratios to the first way if that is without the pod network.
func (p *Pair) compare() {
	for _, w := range p.Ways {
		for i, m := range w.Measures {
			m.Median, m.P99, m.Loss = median(m.Rounds), median(m.p99), median(m.loss)
			if base := p.Ways[0]; base.Base && w.between {
				m.compareTo(base.Measures[i].Rounds)
			}
		}
	}
}

func (m *Measure) compareTo(base []float64) {
	var ratios []float64
	for i, v := range m.Rounds {
		if v > 0 && base[i] > 0 {
			ratios = append(ratios, v/base[i])
		}
	}
	if len(ratios) > 0 {
		m.Ratio, m.RatioMin, m.RatioMax = median(ratios), slices.Min(ratios), slices.Max(ratios)
	}
}

// Failed reports whether something could not be measured.
func (r *Report) Failed() bool {
	for _, p := range r.Pairs {
		for _, w := range p.Ways {
			if slices.ContainsFunc(w.Measures, func(m *Measure) bool { return m.Error != "" }) {
				return true
			}
		}
	}
	return false
}
