package demo

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Draw shows a frame of the underlay as boxes, a layer in each, and at the right who made it:
//
//	┌───────────────────────────────────────────────────────┐
//	│ Ethernet    14 B  02:6d:77:00:00:01 → 02:6d:77:00:00… │ ─ the network between the nodes
//	╞═══════════════════════════════════════════════════════╡
//	│ IPv4        20 B  192.168.254.11 → 192.168.254.12     │ ┐ 28 bytes added by the daemon's UDP socket
//	├───────────────────────────────────────────────────────┤ │
//	│ UDP          8 B  port 39778 → 8472                   │ ┘
//	╞═══════════════════════════════════════════════════════╡
//	…
//
// What it cannot read it says in the last box.
func Draw(frame []byte) string {
	layers, err := dissect(frame)
	if err != nil {
		rest := len(frame)
		for _, l := range layers {
			rest -= l.Bytes
		}
		layers = append(layers, Layer{Name: "?", Bytes: rest, Words: err.Error()})
	}
	return box(rows(layers))
}

// row is one line of the drawing inside its box.
type row struct {
	words string
	note  string // right of the box
	group int    // rows of one group have one maker
	layer int
}

func rows(layers []Layer) (all []row) {
	group := -1
	for i, l := range layers {
		if i == 0 || l.By != layers[i-1].By {
			group++
		}
		for j, line := range strings.Split(l.Words, "\n") {
			words := fmt.Sprintf("%8s  %6s  %s", "", "", line)
			if j == 0 {
				words = fmt.Sprintf("%-8s  %4d B  %s", l.Name, l.Bytes, line)
			}
			all = append(all, row{words: words, group: group, layer: i})
		}
		if i == 0 || l.By != layers[i-1].By {
			all[len(all)-1-strings.Count(l.Words, "\n")].note = note(layers[i:])
		}
	}
	return all
}

// note tells who made the layers up to the next maker's.
func note(layers []Layer) string {
	size := 0
	for _, l := range layers {
		if l.By != layers[0].By {
			break
		}
		size += l.Bytes
	}
	switch layers[0].By {
	case byLink:
		return "the network between the nodes"
	case byKernel:
		return fmt.Sprintf("%d bytes added by the daemon's UDP socket", size)
	case byDaemon:
		return fmt.Sprintf("%d bytes added by the daemon", size)
	case byPod:
		return fmt.Sprintf("%d bytes: the pod's own packet", size)
	}
	return ""
}

// box draws the frame around the rows.
func box(all []row) string {
	width := 0
	for _, r := range all {
		width = max(width, utf8.RuneCountInString(r.words))
	}
	var b strings.Builder
	line := func(left, middle, right, margin string) {
		s := left + strings.Repeat(middle, width+2) + right + " " + margin
		b.WriteString(strings.TrimRight(s, " ") + "\n")
	}
	line("┌", "─", "┐", "")
	for i, r := range all {
		if i > 0 {
			switch before := all[i-1]; {
			case before.group != r.group:
				line("╞", "═", "╡", "")
			case before.layer != r.layer:
				line("├", "─", "┤", "│")
			}
		}
		pad := strings.Repeat(" ", width-utf8.RuneCountInString(r.words))
		b.WriteString(strings.TrimRight("│ "+r.words+pad+" │ "+brace(all, i)+" "+r.note, " ") + "\n")
	}
	line("└", "─", "┘", "")
	return b.String()
}

// brace returns the piece beside row i of the brace around its group.
func brace(all []row, i int) string {
	same := func(j int) bool { return j >= 0 && j < len(all) && all[j].group == all[i].group }
	switch above, below := same(i-1), same(i+1); {
	case above && below:
		return "│"
	case above:
		return "┘"
	case below:
		return "┐"
	}
	if all[i].note == "" {
		return ""
	}
	return "─"
}
