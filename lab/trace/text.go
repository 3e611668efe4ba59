package trace

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/middleway-net/middleway/node"
	"github.com/middleway-net/middleway/stack"
)

// Style is how a trace is drawn.
type Style struct {
	// Paint colours words by the parameters of an escape sequence (ECMA-48, SGR). Default: not at all.
	Paint func(style, words string) string
	Width int // columns of a line; default 100
}

// Parameters of escape sequences.
const (
	bold   = "1"
	faint  = "2"
	red    = "1;31"
	green  = "32"
	yellow = "33"
	cyan   = "36"
)

// colors are those of the stages; the others have none.
var colors = map[string]string{stack.StageService: cyan, stack.StageTranslate: yellow, stack.StageTunnel: cyan, stack.StageDrop: red}

const (
	defaultWidth = 100
	stageColumns = 11 // the longest stage, and two more
	rail         = "│ "
)

// drawing is a trace under way to be text.
type drawing struct {
	b     strings.Builder
	style Style
}

// Write draws the trace:
//
//	shop/visitor asks front:80
//	┌─ node-1 ────────────────────────
//	│ name       front.shop.svc.cluster.local. A 10.96.0.80
//	│ service    …
//	└─→ node-2 ──────────────────────
//	│ device     …
//	└─→ pod shop/front-1: tcp 10.244.1.2:49152 → 10.244.2.2:8080
func (t *Trace) Write(w io.Writer, s Style) error {
	if s.Width == 0 {
		s.Width = defaultWidth
	}
	if s.Paint == nil {
		s.Paint = func(_, words string) string { return words }
	}
	d := &drawing{style: s}
	fmt.Fprintf(&d.b, "%s asks %s\n", d.paint(bold, t.From), d.paint(bold, t.To))
	for _, n := range t.Notes {
		fmt.Fprintln(&d.b, n)
	}
	corner := "┌─ "
	for i := range t.Hops {
		d.heading(corner, t.Hops[i].Node)
		d.hop(&t.Hops[i], i == 0)
		corner = "└─→ "
	}
	d.end(t)
	_, err := io.WriteString(w, d.b.String())
	return err
}

func (d *drawing) paint(style, s string) string {
	if style == "" {
		return s
	}
	return d.style.Paint(style, s)
}

func (d *drawing) heading(corner, name string) {
	line := strings.Repeat("─", max(0, d.style.Width-utf8.RuneCountInString(corner+name)-1))
	fmt.Fprintf(&d.b, "%s%s %s\n", corner, d.paint(bold, name), line)
}

func (d *drawing) hop(h *node.TraceHop, first bool) {
	for _, l := range h.Names {
		d.name(l)
	}
	if h.Trace == nil {
		return
	}
	if first {
		d.line("packet", h.Packet.Protocol+" "+arrow(h.Packet), "", "")
	}
	for _, s := range h.Steps {
		if h.PeerName != "" {
			s.Text = strings.ReplaceAll(s.Text, "peer "+h.Peer.String(), "peer "+h.PeerName+", "+h.Peer.String())
		}
		d.step(s)
	}
}

// name draws a question to DNS.
func (d *drawing) name(l node.NameLookup) {
	text := l.Name + " has no " + l.Type
	if len(l.Answers) > 0 {
		text = strings.Join(l.Answers, ", ")
	}
	d.line("name", text, l.Code+" from the cluster's DNS, on this node", "")
}

func (d *drawing) step(s stack.Step) {
	why := s.Why
	if s.Route.IsValid() {
		why = strings.TrimPrefix(why+"; route "+s.Route.String(), "; ")
	}
	if s.Service != nil && len(s.Service.Backends) > 1 {
		why = strings.TrimPrefix(why+"; to choose from: "+joined(s.Service), "; ")
	}
	stage := s.Stage
	if s.Answer && stage != stack.StageAnswer {
		stage = "← " + stage
	}
	d.line(stage, strings.ReplaceAll(s.Text, " -> ", " → "), why, colors[s.Stage])
}

func joined(s *stack.TracedService) string {
	var words []string
	for _, b := range s.Backends {
		words = append(words, b.String())
	}
	const shown = 6
	if len(words) > shown {
		words = append(words[:shown], fmt.Sprintf("%d more", len(words)-shown))
	}
	return strings.Join(words, ", ")
}

// line draws what was found, and why: behind it where there is room, else beneath it.
func (d *drawing) line(stage, text, why, color string) {
	columns := d.style.Width - utf8.RuneCountInString(rail) - stageColumns
	lines := wrap(text, columns)
	label := fmt.Sprintf("%-*s", stageColumns, stage)
	room := len(lines) == 1 && utf8.RuneCountInString(text)+len(" ()")+utf8.RuneCountInString(why) <= columns
	for _, l := range lines {
		d.b.WriteString(rail + d.paint(faint, label) + d.paint(color, l))
		if room && why != "" {
			d.b.WriteString(d.paint(faint, " ("+why+")"))
		}
		d.b.WriteString("\n")
		label = strings.Repeat(" ", stageColumns)
	}
	if room || why == "" {
		return
	}
	for _, l := range wrap(why, columns) {
		d.b.WriteString(rail + label + d.paint(faint, l) + "\n")
	}
}

// end draws what becomes of the packet.
func (d *drawing) end(t *Trace) {
	last := t.Hops[len(t.Hops)-1]
	switch t.Verdict {
	case NoAddress:
		d.b.WriteString("└─ " + d.paint(red, "no address: the name leads nowhere, and nothing is sent") + "\n")
	case "dropped":
		d.b.WriteString("└─ " + d.paint(red, "dropped: "+t.Reason) + "\n")
	case "answered":
		d.b.WriteString("└─ " + d.paint(green, "answered by the node") + "\n")
	default:
		text := t.Ends
		if last.LeavesAs != nil {
			text += ": " + last.LeavesAs.Protocol + " " + arrow(*last.LeavesAs)
		}
		d.b.WriteString("└─→ " + d.paint(green, text) + "\n")
	}
}

func arrow(t stack.Tuple) string {
	if t.Dst.Port() == 0 || strings.HasPrefix(t.Protocol, "icmp") { // whose ports are the identifier of a ping
		return t.Src.Addr().String() + " → " + t.Dst.Addr().String()
	}
	return t.Src.String() + " → " + t.Dst.String()
}

// wrap breaks text between words into lines of so many columns; a longer word stays whole.
func wrap(text string, columns int) (lines []string) {
	line := ""
	for _, word := range strings.Fields(text) {
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > columns:
			lines = append(lines, line)
			line = word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}
