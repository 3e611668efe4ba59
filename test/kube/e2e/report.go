package e2e

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/middleway-net/middleway/test/kube/inspect"
)

// A Report is what came of a run.
type Report struct {
	Suite      string   `json:"suite"`
	Kubernetes string   `json:"kubernetes"` // version
	Network    string   `json:"network"`
	Nodes      int      `json:"nodes"`
	Family     string   `json:"family"`
	Procs      int      `json:"procs"`   // tests at the same time
	Seconds    float64  `json:"seconds"` // from the first test's begin to the last one's end
	Results    []Result `json:"results"`
	// Findings is what nodes' kernels hold afterwards and did not at first, by node. The reference's are not looked for.
	Findings map[string][]inspect.Finding `json:"findings,omitempty"`
	Dir      string                       `json:"dir,omitempty"` // of log.txt, junit.xml and this as report.json
}

// Counts is how many tests had each verdict.
func (r Report) Counts() map[Verdict]int {
	counts := map[Verdict]int{}
	for _, t := range r.Results {
		counts[t.Verdict]++
	}
	return counts
}

// Problem is why a run is not good; nil if it is.
func (r Report) Problem() error {
	counts := r.Counts()
	if len(r.Results) == 0 {
		return fmt.Errorf("no test ran; %s has what ginkgo said", filepath.Join(r.Dir, "log.txt"))
	}
	var problems []string
	if counts[Fail] > 0 {
		problems = append(problems, fmt.Sprintf("%d tests failed", counts[Fail]))
	}
	left := 0
	for _, found := range r.Findings {
		for _, f := range found {
			if !f.Kubelet {
				left++
			}
		}
	}
	if left > 0 {
		problems = append(problems, fmt.Sprintf("nodes hold %d rules and devices that they had not at first", left))
	}
	if len(problems) == 0 {
		return nil
	}
	return errors.New(strings.Join(problems, ", and "))
}

//go:embed reference/*.json
var references embed.FS

// referenceFile is the name of the reference's results of a suite in a cluster of a family.
func referenceFile(suite, family string) string { return suite + "-" + family + ".json" }

// Reference is what the reference network came to in the same suite and family; false where that is not known.
func Reference(suite, family string) (Report, bool, error) {
	text, err := references.ReadFile("reference/" + referenceFile(suite, family))
	if errors.Is(err, fs.ErrNotExist) {
		return Report{}, false, nil
	}
	if err != nil {
		return Report{}, false, err
	}
	var r Report
	return r, true, json.Unmarshal(text, &r)
}

// SaveReference writes a run of the reference network into a checkout, where the next build of this program finds it, and returns
// the file.
func (r Report) SaveReference(repository string) (string, error) {
	if strings.HasPrefix(r.Network, "middleway") || strings.HasPrefix(r.Network, "mixed") {
		return "", fmt.Errorf("the reference is not %s: kube up --network reference makes a cluster to compare with", r.Network)
	}
	if r.Suite == "chosen" {
		return "", errors.New("only the results of a whole --suite are kept")
	}
	r.Dir = ""
	for i := range r.Results {
		r.Results[i].Why = shorten(r.Results[i].Why, 200)
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return "", err
	}
	file := filepath.Join(repository, "test/kube/e2e/reference", referenceFile(r.Suite, r.Family))
	return file, os.WriteFile(file, append(text, '\n'), 0o644)
}

// WriteTable writes a line for each test, with the reference's beside, and what is to be said of the run as a whole.
func (r Report) WriteTable(out io.Writer, reference *Report) error {
	beside := map[string]Result{}
	if reference != nil {
		for _, t := range reference.Results {
			beside[t.Name] = t
		}
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.ToUpper(r.Network)+"\tSECONDS\tREFERENCE\tSECONDS\tTEST")
	for _, t := range r.Results {
		other, known := beside[t.Name]
		verdict, seconds := "-", "-"
		if known {
			verdict, seconds = string(other.Verdict), fmt.Sprintf("%.1f", other.Seconds)
		}
		fmt.Fprintf(w, "%s\t%.1f\t%s\t%s\t%s\n", t.Verdict, t.Seconds, verdict, seconds, t.Name)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, t := range r.Results {
		if t.Verdict == Fail {
			fmt.Fprintf(out, "\nFAIL  %s\n      %s\n", t.Name, shorten(t.Why, 600))
		}
	}
	fmt.Fprintln(out)
	r.writeLine(out, "")
	if reference != nil {
		reference.writeLine(out, fmt.Sprintf("; %s took %.2f of its time", r.Network, r.Seconds/reference.Seconds))
	}
	r.writeFindings(out)
	_, err := fmt.Fprintf(out, "log, JUnit and JSON in %s\n", r.Dir)
	return err
}

func (r Report) writeLine(out io.Writer, more string) {
	counts := r.Counts()
	fmt.Fprintf(out, "%s: %d passed, %d failed, %d skipped in %.0f s; Kubernetes %s, %d nodes, %s, %d at a time%s\n",
		r.Network, counts[Pass], counts[Fail], counts[Skip], r.Seconds, r.Kubernetes, r.Nodes, r.Family, r.Procs, more)
}

func (r Report) writeFindings(out io.Writer) {
	if r.Findings == nil {
		return
	}
	clean := true
	for node, found := range r.Findings {
		for _, f := range found {
			whose := ""
			if f.Kubelet {
				whose = " (kubelet's own)"
			}
			clean = false
			fmt.Fprintf(out, "left on %s: %s%s\n", node, f.What, whose)
		}
	}
	if clean {
		fmt.Fprintln(out, "no node holds a rule of iptables, nft or ipvs, a bridge, veth or vxlan device that it had not at first")
	}
}

func shorten(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "…"
}
