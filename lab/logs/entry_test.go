package logs

import (
	"bytes"
	"strings"
	"testing"
)

const at = "2026-11-23T04:45:42.000000000Z"

func TestEntries(t *testing.T) {
	long := strings.Repeat("x", maxContent)
	for _, tt := range []struct {
		name, printed string
		want          string // with "T" for the time
	}{
		{"nothing", "", ""},
		{"a line", "one\n", "T stdout F one\n"},
		{"lines", "one\n\ntwo\n", "T stdout F one\nT stdout F \nT stdout F two\n"},
		{"a part", "one\ntwo", "T stdout F one\nT stdout P two\n"},
		{"what is no text", "\x00\xff\r F \n", "T stdout F \x00\xff\r F \n"},
		{"a line as long as an entry", long + "\n", "T stdout F " + long + "\n"},
		{"a longer line", long + "yz\n", "T stdout P " + long + "\nT stdout F yz\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := string(appendEntries(nil, []byte(at), Stdout, []byte(tt.printed)))
			if want := strings.ReplaceAll(tt.want, "T ", at+" "); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestEntryErrors(t *testing.T) {
	for _, text := range []string{"", "one", at, at + " stdout", at + " stdout F", at + " stdin F x", at + " stdout Q x", at + " stdout FP x", "now stdout F x", " stdout F x"} {
		if e, err := parseEntry([]byte(text)); err == nil {
			t.Errorf("%q: got %+v, want an error", text, e)
		}
	}
}

// What was printed comes back as it was, whatever it is; and what is parsed is an entry as it would be written.
func FuzzEntries(f *testing.F) {
	f.Add([]byte("one\n\ntwo"))
	f.Add([]byte("\x00\xff\r F \n"))
	f.Add([]byte(at + " stderr P x"))
	f.Add(bytes.Repeat([]byte("x"), 2*maxContent+1))
	f.Fuzz(func(t *testing.T, b []byte) {
		var back []byte
		for rest := appendEntries(nil, []byte(at), Stderr, b); len(rest) > 0; {
			var line []byte
			line, rest, _ = bytes.Cut(rest, newline)
			e, err := parseEntry(line)
			if err != nil || len(line) >= maxEntry || string(e.time) != at {
				t.Fatalf("%q: got %+v, %v", line, e, err)
			}
			back = append(back, e.content...)
			if !e.partial {
				back = append(back, '\n')
			}
		}
		if !bytes.Equal(back, b) {
			t.Errorf("got %q, want %q", back, b)
		}
		if e, err := parseEntry(b); err == nil && !bytes.HasSuffix(b, e.content) {
			t.Errorf("%q: got %+v", b, e)
		}
	})
}
