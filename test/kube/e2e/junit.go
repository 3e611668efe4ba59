package e2e

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// A Verdict is what came of a test.
type Verdict string

// The verdicts. A test that was not chosen has none.
const (
	Pass Verdict = "pass"
	Fail Verdict = "fail"
	Skip Verdict = "skip" // it found by itself that it has no place here
)

// A Result is what came of one test.
type Result struct {
	Name    string  `json:"name"`
	Verdict Verdict `json:"verdict"`
	Seconds float64 `json:"seconds"`
	Why     string  `json:"why,omitempty"` // of a failure or a skip
}

// junitCase is a test in ginkgo's JUnit report (https://onsi.github.io/ginkgo/#generating-reports-programmatically).
type junitCase struct {
	Name    string   `xml:"name,attr"`
	Time    float64  `xml:"time,attr"`
	Failure *message `xml:"failure"`
	Error   *message `xml:"error"`
	Skipped *message `xml:"skipped"`
}

type message struct {
	Text string `xml:"message,attr"`
}

// parseJUnit returns the results of the tests that began, in the order of their names.
func parseJUnit(text []byte) ([]Result, error) {
	var report struct {
		Suites []struct {
			Cases []junitCase `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(text, &report); err != nil {
		return nil, fmt.Errorf("read ginkgo's report: %w", err)
	}
	var all []Result
	for _, s := range report.Suites {
		for _, c := range s.Cases {
			if r, ok := c.result(); ok {
				all = append(all, r)
			}
		}
	}
	slices.SortFunc(all, func(a, b Result) int { return cmp.Compare(a.Name, b.Name) })
	return all, nil
}

// labels is what ginkgo adds to names; those of Kubernetes' tests stand in the names themselves.
var labels = regexp.MustCompile(` \[sig-[^][]*\]$`)

// result is false for what is no test, and for a test that was not chosen.
func (c junitCase) result() (Result, bool) {
	name, isTest := strings.CutPrefix(c.Name, "[It] ")
	name = labels.ReplaceAllString(name, "")
	r := Result{Name: name, Verdict: Pass, Seconds: c.Time}
	switch {
	case c.Failure != nil:
		r.Verdict, r.Why = Fail, c.Failure.Text
	case c.Error != nil:
		r.Verdict, r.Why = Fail, c.Error.Text
	case c.Skipped != nil:
		r.Verdict, r.Why = Skip, strings.TrimPrefix(c.Skipped.Text, "skipped - ")
		if c.Skipped.Text == "" || c.Skipped.Text == "skipped" {
			return r, false
		}
	}
	r.Why = strings.Join(strings.Fields(r.Why), " ")
	return r, isTest || r.Verdict == Fail
}
