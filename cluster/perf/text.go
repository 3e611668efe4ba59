package perf

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Print writes a table of each pair of nodes.
func (r *Report) Print(w io.Writer) error {
	var b strings.Builder
	for i, p := range r.Pairs {
		if i > 0 {
			b.WriteString("\n")
		}
		title := p.From + " → " + p.To
		if p.From == p.To {
			title = "on " + p.From
		}
		fmt.Fprintf(&b, "%s, the median of %d rounds of %v s, in turn\n\n", title, r.Rounds, r.Seconds)
		p.table(&b)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// table prints the ways as rows, each with its ratios below it.
func (p *Pair) table(b *strings.Builder) {
	var rows strings.Builder
	t := tabwriter.NewWriter(&rows, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "\tTCP\tUDP\tconnections\tround trip")
	var failures []string
	for _, w := range p.Ways {
		cells, ratios := []string{w.Name}, []string{"  of node → node"}
		compared := false
		for _, m := range w.Measures {
			cells, ratios = append(cells, m.words()), append(ratios, m.ratio())
			compared = compared || m.Ratio > 0
			if m.Error != "" {
				failures = append(failures, fmt.Sprintf("%s, %s: %s", w.Name, m.Kind, m.Error))
			}
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
		if compared {
			fmt.Fprintln(t, strings.Join(ratios, "\t"))
		}
	}
	t.Flush() // a Builder takes all
	for line := range strings.Lines(rows.String()) {
		b.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	for _, f := range failures {
		fmt.Fprintf(b, "FAILED  %s\n", f)
	}
}

func (m *Measure) words() string {
	switch {
	case m.Error != "" && m.Median == 0:
		return "FAILED"
	case m.Median == 0:
		return "-"
	case m.Kind == "tcp":
		return fmt.Sprintf("%.2f Gbit/s", m.Median/1e9)
	case m.Kind == "udp":
		return fmt.Sprintf("%.0f packets/s", m.Median)
	case m.Kind == "connections":
		return fmt.Sprintf("%.0f /s", m.Median)
	}
	return fmt.Sprintf("p50 %.0f µs, p99 %.0f µs", m.Median*1e3, m.P99*1e3)
}

func (m *Measure) ratio() string {
	if m.Ratio == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f (%.2f–%.2f)", m.Ratio, m.RatioMin, m.RatioMax)
}
