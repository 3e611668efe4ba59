package demo

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// headingOf, checkOf and layerOf find what does not change from run to run: the names of steps, checks and layers.
var (
	headingOf = regexp.MustCompile(`^([a-z]+)  [^ ].*$`)
	checkOf   = regexp.MustCompile(`^  (?:ok  |FAIL) +[0-9.]+ m?s  ([^ ].*?)(?:  |$)`)
	layerOf   = regexp.MustCompile(`[┌╔] ([A-Za-z0-9]+) [0-9]+ B`)
)

// skeleton returns the names of a run's steps, checks and layers, in their order. Kernels without IPv6 have no checks of it.
func skeleton(text string) (names []string) {
	for line := range strings.Lines(text) {
		for _, name := range []*regexp.Regexp{headingOf, checkOf, layerOf} {
			if m := name.FindStringSubmatch(strings.TrimRight(line, "\n")); m != nil && !strings.HasSuffix(m[1], "IPv6") {
				names = append(names, m[1])
			}
		}
	}
	return names
}

// readmeRun is the run that a README shows; "…" stands for lines that were left out.
func readmeRun(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, run, _ := strings.Cut(string(b), "```text\n")
	run, _, _ = strings.Cut(run, "```\n")
	return run
}

// compareWithReadme compares a run with what the READMEs show: all steps and layers are there, and the checks that are shown.
func compareWithReadme(t *testing.T, run string) {
	t.Helper()
	for _, file := range []string{"../../README.md", "../../README.ja.md"} {
		shown := readmeRun(t, file)
		got, rest := skeleton(shown), skeleton(run)
		if len(got) < 20 {
			t.Errorf("%s shows only %q", file, got)
		}
		for _, name := range got {
			for len(rest) > 0 && rest[0] != name {
				rest = rest[1:]
			}
			if len(rest) == 0 {
				t.Errorf("%s shows %q, which the run does not have there:\n%s", file, name, run)
				break
			}
			rest = rest[1:]
		}
		for line := range strings.Lines(run) {
			m := headingOf.FindStringSubmatch(strings.TrimRight(line, "\n"))
			if m != nil && !strings.Contains("\n"+shown, "\n"+line) {
				t.Errorf("%s lacks the heading %q", file, line)
			}
			if m := layerOf.FindStringSubmatch(line); m != nil && !strings.Contains(shown, " "+m[1]+" ") {
				t.Errorf("%s lacks the layer %s", file, m[1])
			}
		}
	}
}
