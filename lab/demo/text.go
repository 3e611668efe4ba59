package demo

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// text prints a run for people, line by line as it comes. A nil text prints nothing.
type text struct {
	w        io.Writer
	color    bool
	width    int // columns of a line
	progress *progress
}

// Escape sequences of ECMA-48, which every terminal since the VT100 knows.
const (
	bold   = "1"
	faint  = "2"
	red    = "1;31"
	green  = "32"
	yellow = "33"
	cyan   = "36"
)

const (
	// nameColumns hold the longest name of a check.
	nameColumns = len("other node IPv6")
	// hintColumns hold most of the commands to try next.
	hintColumns = 25
	// wordsAt is where the words of a check begin: after mark, time and name.
	wordsAt = len("  ok    3.43 ms  ") + nameColumns + len("  ")
)

func newText(w io.Writer, c Config) *text {
	if c.ASCII {
		w = ASCII{w}
	}
	t := &text{w: w, color: c.Color, width: c.Width}
	if c.Progress {
		t.progress = &progress{w: w}
	}
	return t
}

func (t *text) paint(style, s string) string {
	if !t.color || style == "" {
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
	t.printf("%s\n", wrap(fmt.Sprintf("%s: two nodes and four pods on this machine, for about %d seconds. "+
		"Nothing of the machine's own network is touched.", t.paint(bold, "middleway"), 3+int(5*c.Duration.Seconds())), t.width, 0))
}

func (t *text) heading(s step) {
	if t != nil {
		t.wipe()
		t.printf("\n%s  %s\n", t.paint(bold, s.name), t.paint(faint, s.about))
	}
}

// machine prints what there is, in lines of "has    tun, queues, …".
func (t *text) machine(lines []string) {
	if t == nil {
		return
	}
	t.wipe()
	for _, line := range lines {
		t.printf("%s\n", wrap(line, t.width, 0))
	}
}

// begin shows on a terminal what is being checked.
func (t *text) begin(name string) {
	if t != nil && t.progress != nil {
		t.progress.begin(name)
	}
}

// check prints a line like
//
//	ok    0.92 ms  other node       what was seen
//	FAIL  1.00 s   other node       the cause
func (t *text) check(c Check) {
	if t == nil {
		return
	}
	t.wipe()
	mark, words := t.paint(green, "ok  "), ""
	if c.Facts != nil {
		words = wrap(c.Facts.text(), t.width, wordsAt)
	}
	if !c.OK {
		mark = t.paint(red, "FAIL")
		words = strings.TrimSpace(t.paint(red, wrap(c.Error, t.width, wordsAt)) + "\n" + words)
	}
	t.printf("  %s  %s  %-*s  %s\n", mark, t.paint(faint, fmt.Sprintf("%7s", c.Took)), nameColumns, c.Name, indent(words, wordsAt))
	if d, ok := c.Facts.(interface {
		drawing(paint func(style, s string) string) string
	}); ok {
		t.printf("%s", d.drawing(t.paint))
	}
}

// wipe takes away what begin has shown.
func (t *text) wipe() {
	if t != nil && t.progress != nil {
		t.progress.end()
	}
}

// indent moves all lines but the first.
func indent(s string, columns int) string {
	return strings.ReplaceAll(s, "\n", "\n"+strings.Repeat(" ", columns))
}

// wrap breaks lines between words, so that they fit between two columns, if a word does at all. What was indented stays so.
func wrap(s string, width, at int) string {
	var lines []string
	for line := range strings.SplitSeq(s, "\n") {
		margin := line[:len(line)-len(strings.TrimLeft(line, " "))]
		for columns(line) > width-at {
			cut := strings.LastIndex(string([]rune(line)[:width-at+1]), " ")
			if cut <= len(margin) {
				break
			}
			lines = append(lines, line[:cut])
			line = margin + strings.TrimLeft(line[cut:], " ")
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

func (t *text) end(r Report, next []hint) {
	if t == nil {
		return
	}
	t.wipe()
	failed := r.failed()
	t.printf("\n")
	switch {
	case r.Interrupted:
		t.printf("%s after %v and %d checks; nothing is left behind.\n", t.paint(red, "Interrupted"), r.Took, len(r.Checks))
	case len(failed) > 0:
		t.printf("%s in %v:\n", t.paint(red, fmt.Sprintf("%d of %d checks failed", len(failed), len(r.Checks))), r.Took)
		for _, c := range failed {
			t.printf("  %s, %s\n", c.Step, c.Name)
		}
	default:
		t.printf("%s in %v. Nothing is left behind. What to try next:\n", t.paint(green, fmt.Sprintf("All %d checks passed", len(r.Checks))), r.Took)
		for _, h := range next {
			t.printf("  %s%s  %s\n", t.paint(bold, h.command), strings.Repeat(" ", max(0, hintColumns-len(h.command))), h.about)
		}
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
