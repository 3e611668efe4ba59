package tool

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestHead(t *testing.T) {
	for _, tt := range []struct {
		written    string // in pieces
		kept, rest string
	}{
		{"", "", ""}, {"ab c", "abc", ""}, {"abc d", "abcd", ""}, {"abc de f", "abcd", "abcdef"}, {"abcdef", "abcd", "abcdef"}, {"abcd  e", "abcd", "abcde"},
	} {
		var rest strings.Builder
		h := Head{Limit: 4, Rest: &rest}
		for piece := range strings.SplitSeq(tt.written, " ") {
			if n, err := h.Write([]byte(piece)); n != len(piece) || err != nil {
				t.Errorf("%q: wrote %d, %v", piece, n, err)
			}
		}
		if string(h.Bytes()) != tt.kept || rest.String() != tt.rest || h.Over() != (tt.rest != "") {
			t.Errorf("%q: kept %q, %q went on, over %v", tt.written, h.Bytes(), &rest, h.Over())
		}
	}
	h := Head{Rest: failing{}}
	if _, err := h.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("got %v", err)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// FuzzJSONText: however a text is cut into pieces, it is what encoding/json reads from its own writing of the whole.
func FuzzJSONText(f *testing.F) {
	f.Add([]byte("plain"), 3)
	f.Add([]byte("\"\\/\b\f\n\r\t\x00\x1f\x7f<>&"), 1)
	f.Add([]byte("é€😀\u2028\u2029"), 1)
	f.Add([]byte("\xe2\xf0\x9f\x98"), 1)
	f.Add([]byte("\xe2\x82a\xff"), 2)
	f.Fuzz(func(t *testing.T, text []byte, piece int) {
		piece = max(piece, 1)
		var b bytes.Buffer
		b.WriteByte('"')
		j := JSONText{W: &b}
		for rest := text; len(rest) > 0; {
			n, err := j.Write(rest[:min(piece, len(rest))])
			if err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		b.WriteByte('"')
		whole, err := json.Marshal(string(text))
		if err != nil {
			t.Fatal(err)
		}
		var got, want string
		if err := errors.Join(json.Unmarshal(b.Bytes(), &got), json.Unmarshal(whole, &want)); err != nil {
			t.Fatalf("%v: %s", err, &b)
		}
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}
