package e2e

import (
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// live reads what ginkgo prints with -v while it runs, and tells a person how far it is. A test's end is two lines:
//
//   - [FAILED] [12.345 seconds]
//     [sig-network] Services should …
type live struct {
	out      io.Writer
	terminal bool // out is one: there is a line that moves
	begin    time.Time

	rest         string // of a line that is not complete
	total        int    // tests that were chosen
	done, failed int
	verdict      string // of the test whose name is in the next line
	said         time.Time
}

var (
	willRun = regexp.MustCompile(`^Will run (\d+) of \d+ specs`)
	ended   = regexp.MustCompile(`^(•|S|P) (?:\[([A-Z]+)\] )?\[\d+\.\d+ seconds\]`)
)

// quiet is how long nothing is said where there is no terminal and no test fails.
const quiet = 15 * time.Second

func (l *live) Write(b []byte) (int, error) {
	lines := strings.Split(l.rest+string(b), "\n")
	l.rest = lines[len(lines)-1]
	for _, line := range lines[:len(lines)-1] {
		l.line(line)
	}
	return len(b), nil
}

func (l *live) line(line string) {
	if m := willRun.FindStringSubmatch(line); m != nil {
		l.total, _ = strconv.Atoi(m[1])
		return
	}
	if m := ended.FindStringSubmatch(line); m != nil {
		l.verdict = m[2]
		if m[1] == "•" && m[2] == "" {
			l.verdict = "passed"
		}
		return
	}
	if l.verdict == "" || !strings.HasPrefix(line, "[sig-") {
		return
	}
	if l.verdict != "SKIPPED" && l.verdict != "PENDING" {
		l.done++
	} else if l.total > 0 {
		l.total-- // it has no place here
	}
	failed := l.verdict != "passed" && l.verdict != "SKIPPED" && l.verdict != "PENDING"
	l.verdict = ""
	if failed {
		l.failed++
		l.say("FAIL  " + line + "\n")
	}
	if l.terminal {
		l.say("")
	} else if time.Since(l.said) >= quiet {
		l.say("\n")
	}
}

// say writes a line of its own, or with nothing to say moves the one that tells how far it is.
func (l *live) say(what string) {
	progress := fmt.Sprintf("%4.0f s  %d of %d tests done, %d failed", time.Since(l.begin).Seconds(), l.done, l.total, l.failed)
	switch {
	case l.terminal && what != "":
		fmt.Fprintf(l.out, "\r\x1b[K%s%s", what, progress)
	case l.terminal:
		fmt.Fprintf(l.out, "\r\x1b[K%s", progress)
	case what == "\n":
		fmt.Fprintln(l.out, progress)
		l.said = time.Now()
	default:
		fmt.Fprint(l.out, what)
	}
}

// end leaves the terminal's line for the table.
func (l *live) end() {
	if l.terminal {
		fmt.Fprint(l.out, "\r\x1b[K")
	}
}
