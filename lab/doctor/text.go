package doctor

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// TextConfig says how a report is printed.
type TextConfig struct {
	Color bool // ECMA-48 escape sequences
	Width int  // columns of a line; default 100. Remedies are not broken, so that they can be copied.
	All   bool // each finding that works has a line of its own, too
}

const (
	defaultWidth = 100
	minWidth     = 50
)

// Escape sequences.
const (
	bold   = "1"
	faint  = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
)

// printer writes a report for people.
type printer struct {
	TextConfig
	w   io.Writer
	err error // the first one of writing
}

// Print writes the report for people: what was found, by groups, and the ways of running.
func (r *Report) Print(w io.Writer, c TextConfig) error {
	if c.Width == 0 {
		c.Width = defaultWidth
	}
	c.Width = max(c.Width, minWidth)
	p := &printer{TextConfig: c, w: w}
	took := time.Duration(r.TookMs * float64(time.Millisecond))
	p.line("%s  %s", p.paint(bold, fmt.Sprintf("%s, %s, as %s", r.Kernel, r.Machine, r.who())),
		p.paint(faint, fmt.Sprintf("tried %d things in %.2f s", len(r.Findings), took.Seconds())))
	for _, by := range r.Confined {
		p.line("This process is confined by %s.", by)
	}
	for i := 0; i < len(r.Findings); {
		n := 1
		for i+n < len(r.Findings) && r.Findings[i+n].Group == r.Findings[i].Group {
			n++
		}
		p.group(r.Findings[i : i+n])
		i += n
	}
	p.ways(r)
	return p.err
}

// group prints the findings of one group: those that work in short, and those that were not tried for the same reason; the others
// with all there is to say.
func (p *printer) group(findings []Finding) {
	p.line("")
	p.line("%s", p.paint(bold, findings[0].Group))
	var fine []string
	untried := map[string][]string{} // titles by detail
	for _, f := range findings {
		switch {
		case f.State == Works && !p.All:
			fine = append(fine, f.Title)
		case f.State == Unknown:
			untried[f.Detail] = append(untried[f.Detail], f.Title)
		}
	}
	p.titles(Works, fine, "")
	for _, f := range findings {
		switch titles := untried[f.Detail]; {
		case f.State == Unknown && titles != nil:
			p.titles(Unknown, titles, ": "+f.Detail)
			delete(untried, f.Detail)
		case f.State == Missing, f.State == Works && p.All:
			p.finding(f)
		}
	}
}

// titles prints what several findings have in common.
func (p *printer) titles(s State, titles []string, detail string) {
	if len(titles) == 0 {
		return
	}
	const unbroken = "\x00" // in place of a title's blanks
	text := strings.ReplaceAll(strings.Join(titles, ",\n"), " ", unbroken)
	for i, line := range wrap(strings.Repeat(" ", stateColumn), text+detail, p.Width) {
		state := strings.Repeat(" ", stateColumn)
		if i == 0 {
			state = p.state(s)
		}
		p.line("%s%s", state, strings.ReplaceAll(line[stateColumn:], unbroken, " "))
	}
}

// stateColumn is the width of the column with the state.
const stateColumn = 11

func (p *printer) finding(f Finding) {
	text := f.Title
	if f.Detail != "" {
		text += ": " + f.Detail
	}
	p.line("%s%s", p.state(f.State), text)
	if f.Without != "" {
		p.line("%*s%s %s", stateColumn, "", p.paint(faint, "without it"), f.Without)
	}
	if f.Remedy != "" {
		p.line("%*s%s     %s", stateColumn, "", p.paint(faint, "remedy"), f.Remedy)
	}
}

// state returns the column with a state.
func (p *printer) state(s State) string {
	style := map[State]string{Works: green, Missing: red, Unknown: yellow}[s]
	return "  " + p.paint(style, s.String()) + strings.Repeat(" ", stateColumn-2-len(s.String()))
}

// ways prints which ways work, and what the others lack.
func (p *printer) ways(r *Report) {
	p.line("")
	p.line("%s", p.paint(bold, "What runs here"))
	for _, w := range r.Ways {
		mark := p.paint(green, "yes")
		if !w.Works {
			mark = p.paint(red, "no ")
		}
		p.line("  %s  %s", mark, w.Title)
		if w.Why != "" {
			p.line("       %s", w.Why)
		}
		if !w.Works {
			for _, name := range w.Lacks {
				if f, ok := r.Finding(name); ok && f.Remedy != "" {
					p.line("       %s %s", p.paint(faint, "remedy"), f.Remedy)
				}
			}
		}
	}
}

func (p *printer) paint(style, s string) string {
	if !p.Color {
		return s
	}
	return "\x1b[" + style + "m" + s + "\x1b[0m"
}

func (p *printer) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintln(p.w, strings.TrimRight(fmt.Sprintf(format, args...), " "))
	}
}
