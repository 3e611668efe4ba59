package demo

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0.00 ms", 123456 * time.Nanosecond: "0.12 ms", 42 * time.Millisecond: "42 ms", 1234 * time.Millisecond: "1.23 s",
		9999 * time.Microsecond: "10 ms", 999600 * time.Microsecond: "1.00 s",
	} {
		if got := short(d); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
}

func TestBytes(t *testing.T) {
	for s, want := range map[string]Bytes{
		"1": 1, "1KiB": 1 << 10, "256MiB": 256 << 20, "2 GiB": 2 << 30, "": 0, "-1": 0, "0": 0, "1MB": 0, "x": 0, "9999999GiB": 0,
	} {
		var got Bytes
		if err := got.Set(s); got != want || (err == nil) != (want != 0) {
			t.Errorf("%q: got %v, %v, want %v", s, got, err, want)
		}
	}
	for b, want := range map[Bytes]string{
		0: "0 bytes", 1000: "1000 bytes", 1 << 10: "1 KiB", 256 << 20: "256 MiB", 90_000_000: "86 MiB", 1 << 30: "1 GiB", 1<<30 + 1<<20: "1025 MiB",
	} {
		if got := b.String(); got != want {
			t.Errorf("%d: got %q, want %q", int64(b), got, want)
		}
	}
}

func TestMillis(t *testing.T) {
	b, err := json.Marshal(Millis(1234567 * time.Nanosecond))
	if err != nil || string(b) != "1.234" {
		t.Errorf("got %s, %v, want 1.234", b, err)
	}
	var m Millis
	if err := json.Unmarshal(b, &m); err != nil || m != Millis(1234*time.Microsecond) {
		t.Errorf("got %v, %v", time.Duration(m), err)
	}
}

func TestDropped(t *testing.T) {
	before := map[string]uint64{"vni": 7, "scope": 1, "ttl": 9}
	after := map[string]uint64{"vni": 9, "scope": 5, "no-route": 3, "ttl": 2} // fewer ttl: a new daemon
	if got, want := dropped(before, after), "3 (no-route), 2 (ttl), 2 (vni)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestWrap(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"one two", "one two"},
		{"one two three", "one two\nthree"},
		{"one two\n  three four five", "one two\n  three\n  four\n  five"},
		{"a-long-word-stays a-long-word-stays", "a-long-word-stays a-long-word-stays"},
		{"→→→ →→→→→→ →→→", "→→→ →→→→→→\n→→→"}, // columns, not bytes
		{"", ""},
	} {
		if got := wrap(tt.in, 12, 2); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.in, got, tt.want)
		}
	}
}

// Colour, and a line that tells what is under way and gives way to the check's own.
func TestTerminal(t *testing.T) {
	var b strings.Builder
	tx := newText(&b, Config{Color: true, Progress: true, Width: 80})
	tx.begin("same node")
	tx.check(Check{Name: "same node", OK: true, Took: Millis(time.Millisecond)})
	tx.check(Check{Name: "other node", Error: "no reply", Took: Millis(time.Second)})
	got := b.String()
	if !strings.HasPrefix(got, "\r  ..      0.0 s  same node") {
		t.Errorf("the line of what is under way: %q", got)
	}
	if _, after, wiped := strings.Cut(got, "\r\x1b[K"); !wiped || !strings.Contains(after, "  \x1b[32mok  \x1b[0m") || !strings.Contains(after, "\x1b[1;31mFAIL\x1b[0m") {
		t.Errorf("got %q", got)
	}
}

// Without a terminal there is nothing but text, and without UTF-8 nothing but ASCII, in the same columns.
func TestPlain(t *testing.T) {
	frame := request(t)
	print := func(c Config) string {
		var b strings.Builder
		c.Width = 80
		tx := newText(&b, c)
		tx.intro(c)
		for _, s := range slices.Concat(early, late) {
			tx.heading(s)
		}
		tx.begin("x")
		tx.check(Check{Name: "x", OK: true, Facts: &packetFact{frame: frame}})
		tx.check(Check{Name: "y", Error: "took 5µs → ✓"})
		tx.end(Report{}, []hint{{"middleway up", "a cluster"}})
		return b.String()
	}
	utf8Text, asciiText := print(Config{}), print(Config{ASCII: true})
	if strings.ContainsAny(utf8Text+asciiText, "\x1b\r") {
		t.Errorf("escape sequences in %q", utf8Text)
	}
	if strings.ContainsFunc(asciiText, func(r rune) bool { return r >= 0x80 }) || !strings.Contains(asciiText, "took 5us > ?") {
		t.Errorf("not ASCII:\n%s", asciiText)
	}
	for i, line := range strings.Split(asciiText, "\n") {
		if want := columns(strings.Split(utf8Text, "\n")[i]); len(line) != want || want > 80 {
			t.Errorf("line %d has %d columns, want %d, of 80: %s", i+1, len(line), want, line)
		}
	}
}
