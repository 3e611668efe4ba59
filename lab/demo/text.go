package demo

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// text prints a run for people, line by line as it comes. A nil text prints nothing.
type text struct {
	w     io.Writer
	color bool
}

// Escape sequences of ECMA-48, which every terminal since the VT100 knows.
const (
	bold  = "1"
	faint = "2"
	red   = "1;31"
	green = "32"
)

func (t *text) paint(style, s string) string {
	if !t.color {
		return s
	}
	return "\x1b[" + style + "m" + s + "\x1b[0m"
}

// An error of writing is the terminal's: there is nobody left to tell.
func (t *text) printf(format string, args ...any) { _, _ = fmt.Fprintf(t.w, format, args...) }

func (t *text) intro(c Config) {
	if t == nil {
		return
	}
	t.printf("Two nodes and four pods on this machine, for about %d seconds: who reaches whom, one packet taken apart,\n"+
		"a daemon killed under a download of %s, throughput beside the kernel's own.\n",
		3+int(5*c.Duration.Seconds()), Bytes(c.Download))
}

func (t *text) heading(s step) {
	if t != nil {
		t.printf("\n%s  %s\n", t.paint(bold, s.name), t.paint(faint, s.about))
	}
}

// check prints a line like
//
//	ok     0.92 ms  other node   what was seen
//	FAIL   1.00 s   other node   the cause
func (t *text) check(c Check) {
	if t == nil {
		return
	}
	mark, words := t.paint(green, "ok  "), ""
	if c.Facts != nil {
		words = c.Facts.text()
	}
	if !c.OK {
		mark = t.paint(red, "FAIL")
		words = strings.TrimSpace(t.paint(red, c.Error) + "\n" + words)
	}
	t.printf("  %s %s  %-16s %s\n", mark, t.paint(faint, fmt.Sprintf("%8s", c.Took)), c.Name, indent(words, 34))
	if d, ok := c.Facts.(interface{ drawing() string }); ok {
		t.printf("    %s\n", indent(strings.TrimSpace(d.drawing()), 4))
	}
}

// indent moves all lines but the first.
func indent(s string, columns int) string {
	return strings.ReplaceAll(s, "\n", "\n"+strings.Repeat(" ", columns))
}

func (t *text) end(r Report) {
	if t == nil {
		return
	}
	failed := map[string]bool{}
	var names []string
	for _, c := range r.Checks {
		if !c.OK {
			names = append(names, c.Step+", "+c.Name)
			failed[c.Step] = true
		}
	}
	t.printf("\n")
	switch {
	case r.Interrupted:
		t.printf("%s after %v and %d checks; nothing is left behind.\n", t.paint(red, "Interrupted"), r.Took, len(r.Checks))
	case len(names) > 0:
		t.printf("%s in %v: %s.\n", t.paint(red, fmt.Sprintf("%d of %d checks failed", len(names), len(r.Checks))), r.Took, strings.Join(names, "; "))
	default:
		t.printf("%s in %v: %s. Nothing is left behind.\n", t.paint(green, fmt.Sprintf("All %d checks passed", len(r.Checks))), r.Took, strings.Join(r.Steps, ", "))
		t.printf("Next: `middleway up -d`, a cluster of your own; `middleway node --help`, a node; `make test`, all that is promised; `make bench`, all that is measured.\n")
	}
}

// short writes a duration with the digits that a person reads.
func short(d time.Duration) string {
	switch ms := float64(d) / float64(time.Millisecond); {
	case ms < 9.995:
		return fmt.Sprintf("%.2f ms", ms)
	case ms < 999.5:
		return fmt.Sprintf("%.0f ms", ms)
	default:
		return fmt.Sprintf("%.2f s", d.Seconds())
	}
}
