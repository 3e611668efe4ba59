package demo

import (
	"io"
	"strings"
	"unicode/utf8"
)

// ASCII writes text for those whose locale is not UTF-8: one character for one, so that columns stay where they are.
type ASCII struct{ W io.Writer }

// Write takes whole lines or words: no character is cut at the end of p.
func (w ASCII) Write(p []byte) (int, error) {
	if _, err := io.WriteString(w.W, ascii(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

func ascii(s string) string { return strings.Map(asciiRune, s) }

func asciiRune(r rune) rune {
	switch r {
	case '┌', '┐', '└', '┘', '╔', '╗', '╚', '╝':
		return '+'
	case '─':
		return '-'
	case '═':
		return '='
	case '│':
		return '|'
	case '║':
		return '"'
	case '→':
		return '>'
	case '←':
		return '<'
	case 'µ':
		return 'u'
	}
	if r >= utf8.RuneSelf {
		return '?'
	}
	return r
}
