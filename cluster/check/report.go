package check

import (
	"encoding/json"
	"slices"
	"time"
)

// Report is what a run found out.
type Report struct {
	Server    string   `json:"server"`              // the API server's address
	Namespace string   `json:"namespace,omitempty"` // that the run made
	Image     string   `json:"image,omitempty"`
	Nodes     []string `json:"nodes"` // that were looked at
	// Passed: all was checked that could be, and nothing failed.
	Passed bool     `json:"passed"`
	Checks []*Check `json:"checks"`
	// Notes are what else to know, in sentences.
	Notes []string `json:"notes,omitempty"`
	Took  Millis   `json:"tookMs"`
}

// State is a verdict.
type State string

// Verdicts.
const (
	OK      State = "ok"
	Failed  State = "failed"
	Skipped State = "skipped"
)

// Check is one kind of question in one family, from all nodes to all that were asked.
type Check struct {
	Group  string `json:"group"`
	Name   string `json:"name"`
	Family string `json:"family,omitempty"` // IPv4 or IPv6, where it is asked in both
	State  State  `json:"state"`
	Why    string `json:"why,omitempty"` // it was skipped
	// Asked counts questions, or what was looked at; Answered those with the right answer.
	Asked    int `json:"asked"`
	Answered int `json:"answered"`
	// Median and Slowest are of the right answers.
	Median  Millis `json:"medianMs,omitzero"`
	Slowest Millis `json:"slowestMs,omitzero"`
	// Notes are what to know though it works: what was answered late, for example.
	Notes    []string  `json:"notes,omitempty"`
	Failures []Failure `json:"failures,omitempty"`
	// Next is what to look at after a failure, in sentences.
	Next []string `json:"next,omitempty"`

	times []time.Duration // of the right answers
	pairs []pair          // all that were asked
	late  []string        // which were answered at a further try only
}

// Failure is a question without the right answer.
type Failure struct {
	From  string `json:"from,omitempty"` // a node
	To    string `json:"to,omitempty"`   // a node, or what else was asked
	Error string `json:"error"`
}

// pair is a question of a matrix.
type pair struct {
	from, to string
	failed   bool
}

// Millis is a time that is written in JSON as milliseconds.
type Millis time.Duration

// MarshalJSON writes milliseconds, to the microsecond.
func (m Millis) MarshalJSON() ([]byte, error) {
	return json.Marshal(float64(time.Duration(m).Microseconds()) / 1000)
}

// UnmarshalJSON reads milliseconds.
func (m *Millis) UnmarshalJSON(b []byte) error {
	var ms float64
	if err := json.Unmarshal(b, &ms); err != nil {
		return err
	}
	*m = Millis(ms * float64(time.Millisecond))
	return nil
}

// fail adds what was not as it should be.
func (c *Check) fail(from, to, why string) {
	c.Asked++
	c.Failures = append(c.Failures, Failure{from, to, why})
	c.pairs = append(c.pairs, pair{from, to, true})
}

// pass adds what was.
func (c *Check) pass(from, to string, took time.Duration) {
	c.Asked++
	c.Answered++
	c.times = append(c.times, took)
	c.pairs = append(c.pairs, pair{from, to, false})
}

func (c *Check) judge() {
	switch {
	case len(c.Failures) > 0:
		c.State = Failed
	case c.Asked > 0:
		c.State = OK
		c.Notes, c.late = append(c.Notes, c.late...), nil
	default:
		c.State = Skipped
	}
	slices.Sort(c.Notes)
	if len(c.times) > 0 && slices.Max(c.times) > 0 {
		slices.Sort(c.times)
		c.Median, c.Slowest = Millis(c.times[len(c.times)/2]), Millis(c.times[len(c.times)-1])
	}
	slices.SortStableFunc(c.Failures, func(a, b Failure) int { return compare(a.From, b.From, a.To, b.To) })
}

// judge gives every check its verdict, and the run its own.
func (r *Report) judge() {
	for _, c := range r.Checks {
		c.judge()
	}
	r.Passed = slices.ContainsFunc(r.Checks, func(c *Check) bool { return c.State == OK && c.Group != groupNodes }) &&
		!slices.ContainsFunc(r.Checks, func(c *Check) bool { return c.State == Failed })
}

// count returns how many checks have a verdict.
func (r *Report) count(s State) (n int) {
	for _, c := range r.Checks {
		if c.State == s {
			n++
		}
	}
	return n
}
