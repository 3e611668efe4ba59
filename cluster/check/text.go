package check

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Style says how a report is printed.
type Style struct {
	Color bool // ECMA-48 escape sequences
	Width int  // columns; default 100
}

// Escape sequences.
const (
	bold   = "1"
	faint  = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
)

// Columns.
const (
	stateColumn = 11 // where a check's name begins
	nameColumn  = 65 // how wide it is
	// mostMatrix is the number of nodes up to which failures between nodes are drawn, mostFailures that up to which they are listed.
	mostMatrix   = 16
	mostFailures = 6
	mostNotes    = 3
)

// printer writes a report for people.
type printer struct {
	Style
	w    io.Writer
	err  error           // the first one of writing
	said map[string]bool // what to look at next
}

// Print writes the report for people: a line a check, and what there is to know about those that failed.
func (r *Report) Print(w io.Writer, s Style) error {
	if s.Width == 0 {
		s.Width = 100
	}
	p := &printer{Style: s, w: w, said: map[string]bool{}}
	p.line("%s", p.paint(bold, fmt.Sprintf("cluster %s, %s, image %s", r.Server, count(len(r.Nodes), "node"), r.Image)))
	group := ""
	for _, c := range r.merged() {
		if c.Group != group {
			p.line("")
			p.line("%s", p.paint(bold, c.Group))
			group = c.Group
		}
		p.check(c)
	}
	p.line("")
	for _, n := range r.Notes {
		p.wrapped("", "note       "+n, stateColumn)
	}
	p.verdict(r)
	return p.err
}

// merged returns the checks with those of two families as one where they say the same.
func (r *Report) merged() (all []*Check) {
	for _, c := range r.Checks {
		i := slices.IndexFunc(all, func(o *Check) bool {
			return o.Group == c.Group && o.Name == c.Name && o.State == c.State && o.Why == c.Why && slices.Equal(o.Failures, c.Failures)
		})
		if i < 0 {
			all = append(all, c)
			continue
		}
		both := *all[i]
		both.Family += " and " + c.Family
		both.Asked, both.Answered = both.Asked+c.Asked, both.Answered+c.Answered
		both.Slowest, both.Notes = max(both.Slowest, c.Slowest), slices.Concat(both.Notes, c.Notes)
		if both.times = slices.Concat(both.times, c.times); len(both.times) > 0 {
			slices.Sort(both.times)
			both.Median = Millis(both.times[len(both.times)/2])
		}
		all[i] = &both
	}
	return all
}

func (p *printer) verdict(r *Report) {
	took := time.Duration(r.Took).Round(100 * time.Millisecond)
	words := fmt.Sprintf("%d ok, %d failed, %d skipped, in %v", r.count(OK), r.count(Failed), r.count(Skipped), took)
	switch {
	case r.count(Failed) > 0:
		p.line("%s  %s", p.paint(red, "FAILED"), words)
	case r.Passed:
		p.line("%s  %s", p.paint(green, "passed"), words)
	default:
		p.line("%s  %s", p.paint(yellow, "nothing was checked"), words)
	}
}

// count is a number of things in words.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func (p *printer) check(c *Check) {
	name := c.Name
	if c.Family != "" {
		name += ", " + c.Family
	}
	word, style := map[State]string{OK: "ok", Failed: "FAILED", Skipped: "skipped"}[c.State], map[State]string{OK: green, Failed: red, Skipped: yellow}[c.State]
	state := "  " + p.paint(style, word) + strings.Repeat(" ", stateColumn-2-len(word))
	if c.State == Skipped {
		why := c.Why
		if why == "" {
			why = "there is nothing ready to ask"
		}
		p.wrapped(state, name+": "+why, stateColumn)
		return
	}
	figures := fmt.Sprintf("%d of %d", c.Answered, c.Asked)
	if c.Slowest > 0 {
		figures += p.paint(faint, fmt.Sprintf("   %s, at most %s", short(c.Median), short(c.Slowest)))
	}
	p.line("%s%s%s %s", state, name, strings.Repeat(" ", max(0, nameColumn-utf8.RuneCountInString(name))), figures)
	p.details(c)
}

func (p *printer) details(c *Check) {
	indent := strings.Repeat(" ", stateColumn)
	if c.State == Failed {
		p.matrix(c)
	}
	for i, l := range failureLines(c.Failures) {
		if i == mostFailures {
			p.line("%sand %d more failures; -o json has all", indent, len(c.Failures)-i)
			break
		}
		p.wrapped(indent, l, stateColumn+2)
	}
	for i, n := range c.Notes {
		if i == mostNotes {
			p.line("%sand %d more notes; -o json has all", indent, len(c.Notes)-i)
			break
		}
		p.wrapped(indent, p.paint(yellow, "note")+"  "+n, stateColumn+6)
	}
	for _, n := range c.Next {
		if p.said[n] {
			p.line("%s%s as above", indent, p.paint(yellow, "next"))
			break
		}
		p.said[n] = true
		p.wrapped(indent, p.paint(yellow, "next")+"  "+n, stateColumn+6)
	}
}

// mostPairs is how many pairs with the same error a line names.
const mostPairs = 6

// failureLines names those together that failed for the same reason.
func failureLines(failures []Failure) (lines []string) {
	who := map[string][]string{}
	var reasons []string
	for _, f := range failures {
		pair := pairWords(f.From, f.To)
		if who[f.Error] == nil {
			reasons = append(reasons, f.Error)
		}
		who[f.Error] = append(who[f.Error], pair)
	}
	for _, reason := range reasons {
		pairs := who[reason]
		if len(pairs) > mostPairs {
			pairs = append(slices.Clip(pairs[:mostPairs]), fmt.Sprintf("and %d more", len(pairs)-mostPairs))
		}
		lines = append(lines, strings.Join(pairs, ", ")+": "+reason)
	}
	return lines
}

// matrix draws which nodes do not reach which, where it is about pairs of nodes, of which there are not too many.
func (p *printer) matrix(c *Check) {
	var from, to []string
	failed := map[[2]string]string{}
	for _, q := range c.pairs {
		if q.to == "" {
			return
		}
		from, to = append(from, q.from), append(to, q.to)
		failed[[2]string{q.from, q.to}] = map[bool]string{true: "X", false: "."}[q.failed]
	}
	from, to = unique(from), unique(to)
	if len(from) < 3 || len(to) < 3 || len(from) > mostMatrix || len(to) > mostMatrix {
		return
	}
	indent, wide := strings.Repeat(" ", stateColumn), 0
	for _, n := range from {
		wide = max(wide, len(n))
	}
	head := fmt.Sprintf("%-*s", wide+6, "from, to")
	for i := range to {
		head += fmt.Sprintf(" %2d", i+1)
	}
	p.line("%s%s", indent, p.paint(faint, head))
	for i, f := range from {
		row := fmt.Sprintf("%2d  %-*s", i+1, wide+2, f)
		for _, t := range to {
			row += fmt.Sprintf(" %2s", failed[[2]string{f, t}])
		}
		p.line("%s%s", indent, row)
	}
}

func unique(words []string) []string {
	slices.Sort(words)
	return slices.Compact(words)
}

// short is a time of three digits.
func short(m Millis) string {
	d := time.Duration(m)
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.2f ms", d.Seconds()*1e3)
	case d < time.Second:
		return fmt.Sprintf("%.0f ms", d.Seconds()*1e3)
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

func (p *printer) paint(style, s string) string {
	if !p.Color {
		return s
	}
	return "\x1b[" + style + "m" + s + "\x1b[0m"
}

// wrapped prints text in lines of at most the width, those after the first indented.
func (p *printer) wrapped(first, text string, indent int) {
	line, used := first, indent
	if first != "" {
		used = utf8.RuneCountInString(strings.TrimRight(first, " "))
		used = max(used, stateColumn)
	} else {
		used = 0
	}
	for i, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		if i > 0 && used+1+n > p.Width {
			p.line("%s", line)
			line, used = strings.Repeat(" ", indent), indent
		} else if i > 0 {
			line, used = line+" ", used+1
		}
		line, used = line+word, used+n
	}
	p.line("%s", line)
}

func (p *printer) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintln(p.w, strings.TrimRight(fmt.Sprintf(format, args...), " "))
	}
}
