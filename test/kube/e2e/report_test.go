package e2e

import (
	"strings"
	"testing"

	"github.com/middleway-net/middleway/test/kube/inspect"
)

func TestWriteTable(t *testing.T) {
	reference := Report{Network: "reference", Seconds: 100, Results: []Result{{Name: "a", Verdict: Pass, Seconds: 4}, {Name: "b", Verdict: Pass, Seconds: 5}}}
	r := Report{
		Network: "middleway", Seconds: 80, Dir: "/there", Nodes: 2, Family: "ipv4",
		Results:  []Result{{Name: "a", Verdict: Pass, Seconds: 3.14}, {Name: "b", Verdict: Fail, Seconds: 2, Why: "no answer"}, {Name: "c", Verdict: Skip}},
		Findings: map[string][]inspect.Finding{"kube-1": {{What: "device cni0 bridge"}}},
	}
	var out strings.Builder
	if err := r.WriteTable(&out, &reference); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"pass       3.1      pass       4.0      a\n",
		"fail       2.0      pass       5.0      b\n",
		"skip       0.0      -          -        c\n",
		"FAIL  b\n      no answer\n",
		"middleway: 1 passed, 1 failed, 1 skipped in 80 s",
		"middleway took 0.80 of its time",
		"left on kube-1: device cni0 bridge\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, out.String())
		}
	}
}

func TestProblem(t *testing.T) {
	passed := []Result{{Name: "a", Verdict: Pass}, {Name: "b", Verdict: Skip}}
	for _, c := range []struct {
		name   string
		report Report
		want   string // part of the error; empty: none
	}{
		{"good", Report{Results: passed}, ""},
		{"clean", Report{Results: passed, Findings: map[string][]inspect.Finding{"kube-1": nil}}, ""},
		{"kubelet's own rule", Report{Results: passed, Findings: map[string][]inspect.Finding{"kube-1": {{What: "x", Kubelet: true}}}}, ""},
		{"a rule of ours", Report{Results: passed, Findings: map[string][]inspect.Finding{"kube-1": {{What: "x"}}}}, "1 rules"},
		{"a failure", Report{Results: []Result{{Verdict: Fail}}}, "1 tests failed"},
		{"nothing ran", Report{}, "no test ran"},
	} {
		err := c.report.Problem()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

func TestChoose(t *testing.T) {
	for _, c := range []struct {
		name, focus, skip          string
		suite, wantFocus, wantSkip string
	}{
		{"", "", "", "conformance", `\[sig-network\].*\[Conformance\]`, ""},
		{"conformance", "", "DNS", "chosen", `\[sig-network\].*\[Conformance\]`, "DNS"},
		{"", "DNS", "", "chosen", "DNS", ""},
	} {
		s, err := Choose(c.name, c.focus, c.skip)
		if err != nil || s.Name != c.suite || s.Focus != c.wantFocus || s.Skip != c.wantSkip {
			t.Errorf("Choose(%q, %q, %q) = %+v, %v", c.name, c.focus, c.skip, s, err)
		}
	}
	for _, bad := range [][3]string{{"no such", "", ""}, {"", "(", ""}, {"rest", "", "["}} {
		if _, err := Choose(bad[0], bad[1], bad[2]); err == nil {
			t.Errorf("Choose(%q) was taken", bad)
		}
	}
}

func TestReferencesAreWhole(t *testing.T) {
	files, err := references.ReadDir("reference")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		suite, family, _ := strings.Cut(strings.TrimSuffix(f.Name(), ".json"), "-")
		r, known, err := Reference(suite, family)
		if err != nil || !known {
			t.Errorf("%s: %v, %v", f.Name(), known, err)
		}
		if len(r.Results) == 0 || r.Seconds == 0 || r.Suite != suite || r.Family != family || r.Dir != "" {
			t.Errorf("%s is of suite %q, family %q, %d results, %v s, %q", f.Name(), r.Suite, r.Family, len(r.Results), r.Seconds, r.Dir)
		}
	}
}
