package demo

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Draw shows a frame of the underlay as boxes, each layer's around what it carries. The upper edges tell what stands in the
// headers and which network they belong to, the lower edges who made them:
//
//	┌ Ethernet 14 B  02:6d:77:00:00:01 → 02:6d:77:00:00:02 ─ node network ┐
//	│ ┌ IPv4 20 B  192.168.254.11 → 192.168.254.12, TTL 64 ─────────────┐ │
//	│ │ ┌ UDP 8 B  port 43823 → 8472 ─────────────────────────────────┐ │ │
//	  …
//	│ └ 28 bytes added by the daemon's UDP socket ──────────────────────┘ │
//	└ 14 bytes of the link between the nodes ─────────────────────────────┘
//
// What it cannot read it says in the innermost box.
func Draw(frame []byte) string {
	return draw(frame, func(_, s string) string { return s })
}

// draw paints each maker's boxes in a style of their own.
func draw(frame []byte, paint func(style, s string) string) string {
	layers, err := dissect(frame)
	if err != nil {
		rest := len(frame)
		for _, l := range layers {
			rest -= l.Bytes
		}
		layers = append(layers, Layer{Name: "?", Bytes: rest, Words: err.Error()})
	}
	return render(boxes(layers), paint)
}

// box is a layer as it is drawn.
type box struct {
	title string   // in the upper edge, at the left
	label string   // and at the right
	note  string   // in the lower edge
	body  []string // lines inside; only the innermost box has some
	edges edges
	style string
}

// edges are the characters of a box: corners, horizontal and vertical lines.
type edges struct{ topLeft, topRight, bottomLeft, bottomRight, line, side string }

var (
	single = edges{"┌", "┐", "└", "┘", "─", "│"}
	double = edges{"╔", "╗", "╚", "╝", "═", "║"}
)

// maker is how the layers of one maker are drawn.
type maker struct {
	label string // of its outermost layer
	note  string // takes the sum of its bytes
	outer edges  // of its outermost layer
	style string
}

var makers = map[string]maker{
	byLink:   {"node network", "%d bytes of the link between the nodes", single, cyan},
	byKernel: {"", "%d bytes added by the daemon's UDP socket", single, cyan},
	byDaemon: {"tunnel", "%d bytes added by the daemon", single, yellow},
	byPod:    {"pod network", "%d bytes: the pod's own packet", double, green},
}

func boxes(layers []Layer) []box {
	all := make([]box, len(layers))
	for i, l := range layers {
		m := makers[l.By]
		b := box{title: fmt.Sprintf("%s %d B", l.Name, l.Bytes), edges: single, style: m.style}
		if words := strings.Split(l.Words, "\n"); len(words) == 1 {
			b.title += "  " + l.Words
		} else {
			b.body = words
		}
		if first := i == 0 || layers[i-1].By != l.By; first && l.By != "" {
			b.label, b.edges, b.note = m.label, m.outer, fmt.Sprintf(m.note, bytesOf(layers[i:]))
		}
		all[i] = b
	}
	return all
}

// bytesOf sums the layers of the first one's maker.
func bytesOf(layers []Layer) (n int) {
	for _, l := range layers {
		if l.By == layers[0].By {
			n += l.Bytes
		}
	}
	return n
}

// width returns the columns that the box needs, edges included.
func (b *box) width() int {
	width := max(columns(b.top(0)), columns(b.bottom(0)))
	for _, s := range b.body {
		width = max(width, columns(s)+4)
	}
	return width
}

func (b *box) top(width int) string {
	label := ""
	if b.label != "" {
		label = " " + b.label + " "
	}
	return fill(b.edges.topLeft+" "+b.title+" ", b.edges.line, label+b.edges.topRight, width)
}

func (b *box) bottom(width int) string {
	note := ""
	if b.note != "" {
		note = " " + b.note + " "
	}
	return fill(b.edges.bottomLeft+note, b.edges.line, b.edges.bottomRight, width)
}

// fill puts pieces of a line, at least one, between left and right.
func fill(left, piece, right string, width int) string {
	return left + strings.Repeat(piece, max(1, width-columns(left)-columns(right))) + right
}

func columns(s string) int { return utf8.RuneCountInString(s) }

// render draws the boxes, each within the one before.
func render(all []box, paint func(style, s string) string) string {
	width := 0
	for depth, b := range all {
		width = max(width, b.width()+4*depth)
	}
	var out strings.Builder
	line := func(depth int, middle string) {
		for _, b := range all[:depth] {
			out.WriteString(paint(b.style, b.edges.side) + " ")
		}
		out.WriteString(middle)
		for _, b := range slices.Backward(all[:depth]) {
			out.WriteString(" " + paint(b.style, b.edges.side))
		}
		out.WriteByte('\n')
	}
	for depth, b := range all {
		line(depth, paint(b.style, b.top(width-4*depth)))
		for _, s := range b.body {
			line(depth+1, fmt.Sprintf("%-*s", width-4*(depth+1), s)) // counts runes
		}
	}
	for depth, b := range slices.Backward(all) {
		line(depth, paint(b.style, b.bottom(width-4*depth)))
	}
	return out.String()
}
