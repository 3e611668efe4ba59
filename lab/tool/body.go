package tool

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Head is a writer that keeps the begin of what is written to it. Once that is more than Limit bytes, all of it goes to Rest, from the
// first byte on.
type Head struct {
	Limit int // bytes
	Rest  io.Writer

	kept []byte
	over bool
}

// Bytes returns what is kept: all, unless Over.
func (h *Head) Bytes() []byte { return h.kept }

// Over reports whether there was more than Limit, and Rest has it.
func (h *Head) Over() bool { return h.over }

func (h *Head) Write(p []byte) (int, error) {
	if room := h.Limit - len(h.kept); !h.over && len(p) > room {
		if _, err := h.Rest.Write(h.kept); err != nil {
			return 0, err
		}
		h.kept, h.over = append(h.kept, p[:room]...), true
		return h.Rest.Write(p)
	}
	if h.over {
		return h.Rest.Write(p)
	}
	h.kept = append(h.kept, p...)
	return len(p), nil
}

// JSONText writes what is written to it as the inside of a JSON string (RFC 8259, section 7), piece by piece. What is no UTF-8
// becomes U+FFFD, as with encoding/json. Close ends it.
type JSONText struct {
	W io.Writer

	in  []byte // between two writes the begin of a rune
	out []byte // scratch
}

func (j *JSONText) Write(p []byte) (int, error) {
	j.in = append(j.in, p...)
	j.out = j.out[:0]
	j.in = append(j.in[:0], j.escape(j.in)...)
	if _, err := j.W.Write(j.out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close writes what is left of a rune that never ended.
func (j *JSONText) Close() error {
	_, err := io.WriteString(j.W, strings.Repeat(`\ufffd`, len(j.in)))
	j.in = nil
	return err
}

// escape adds runes to out, and returns the begin of one that is not whole.
func (j *JSONText) escape(p []byte) (begun []byte) {
	for len(p) > 0 && utf8.FullRune(p) {
		if n := plain(p); n > 0 {
			j.out = append(j.out, p[:n]...)
			p = p[n:]
			continue
		}
		r, n := utf8.DecodeRune(p)
		switch {
		case r == utf8.RuneError && n == 1:
			j.out = append(j.out, `\ufffd`...)
		case r == '"' || r == '\\':
			j.out = append(j.out, '\\', byte(r))
		case r == '\n':
			j.out = append(j.out, `\n`...)
		case r < ' ' || r == 0x7f || r == '\u2028' || r == '\u2029': // the last ones end a line in JavaScript, 0x7f upsets terminals
			j.out = fmt.Appendf(j.out, `\u%04x`, r)
		default:
			j.out = append(j.out, p[:n]...)
		}
		p = p[n:]
	}
	return p
}

// plain returns how many bytes at the begin stand for themselves, and are easily seen to.
func plain(p []byte) int {
	for i, c := range p {
		if c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return i
		}
	}
	return len(p)
}
