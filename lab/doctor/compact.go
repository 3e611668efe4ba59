package doctor

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// compactWidth is the longest line of Compact, in columns.
const compactWidth = 100

// summary are the findings of Compact, in its words. What middleway does not need comes apart.
var summary = []struct {
	word string
	kind int
	name string
}{
	{"tun", ours, "tun-device"},
	{"queues", ours, "tun-queues"},
	{"checksum offload", ours, "tun-checksum"},
	{"TSO", ours, "tun-tso"},
	{"USO", ours, "tun-uso"},
	{"tap", ours, "tap"},
	{"UDP_SEGMENT", ours, "udp-segment"},
	{"UDP_GRO", ours, "udp-gro"},
	{"user namespaces", ours, "user-namespace"},
	{"IPv6", ours, "ipv6-socket"},
	{"veth", kernels, "veth"},
	{"bridge", kernels, "bridge"},
	{"vxlan", kernels, "vxlan"},
	{"nf_tables", kernels, "nf-tables"},
}

const (
	ours = iota
	kernels
)

// Compact returns the report in a few lines without colour, of at most 100 columns, for a first screen: what this kernel has and
// lacks.
func (r *Report) Compact() []string {
	lines := []string{fmt.Sprintf("%s, %s, as %s", r.Kernel, r.Machine, r.who())}
	for _, part := range []struct {
		label string
		kind  int
		state State
	}{
		{"has", ours, Works},
		{"lacks", ours, Missing},
		{"not known", ours, Unknown},
		{"its own", kernels, Works},
		{"not needed", kernels, Missing},
	} {
		var words []string
		for _, s := range summary {
			if f, ok := r.Finding(s.name); ok && f.State == part.state && s.kind == part.kind {
				words = append(words, s.word)
			}
		}
		text := strings.Join(words, ", ")
		switch {
		case text == "":
			continue
		case part.label == "its own":
			text += "; middleway uses none of them"
		case part.label == "not needed":
			text = "lacks " + text + ", and middleway uses none of them"
		}
		lines = append(lines, wrap(fmt.Sprintf("%-10s ", part.label), text, compactWidth)...)
	}
	return lines
}

// who names the user.
func (r *Report) who() string {
	if r.UID == 0 {
		return "root"
	}
	return fmt.Sprintf("user %d", r.UID)
}

// wrap breaks text behind label, which later lines leave free, at blanks.
func wrap(label, text string, width int) []string {
	var lines []string
	line := label
	for _, word := range strings.Fields(text) {
		if len(line) > len(label) && utf8.RuneCountInString(line)+utf8.RuneCountInString(word) > width {
			lines = append(lines, strings.TrimRight(line, " "))
			line = strings.Repeat(" ", len(label))
		}
		line += word + " "
	}
	return append(lines, strings.TrimRight(line, " "))
}
