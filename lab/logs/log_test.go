package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// newLog returns a log in a directory of the test's own.
func newLog(t *testing.T) *Log {
	t.Helper()
	l := New(filepath.Join(t.TempDir(), "pod", "main"))
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(l.dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the directory: %v, want it gone", err)
		}
	})
	return l
}

// printed makes a run that prints something, stdout before stderr.
func printed(t *testing.T, l *Log, out, err string) {
	t.Helper()
	r := begin(t, l)
	for i, text := range []string{out, err} {
		if _, err := io.WriteString(r.Streams()[1+i], text); err != nil {
			t.Error(err)
		}
	}
	r.Started()
	r.End()
}

func begin(t *testing.T, l *Log) *Run {
	t.Helper()
	r, err := l.Begin()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// all are the options of a plain `middleway logs`.
var all = Options{Tail: -1}

func read(l *Log, o Options) (string, error) {
	var b bytes.Buffer
	err := l.Read(context.Background(), o, func(piece []byte) error { b.Write(piece); return nil })
	return b.String(), err
}

func mustRead(t *testing.T, l *Log, o Options, want string) {
	t.Helper()
	if got, err := read(l, o); err != nil || got != want {
		t.Errorf("%+v: got %.200q, %v, want %.200q", o, got, err, want)
	}
}

func TestRead(t *testing.T) {
	l := newLog(t)
	if _, err := read(l, all); !errors.Is(err, ErrNotStarted) {
		t.Errorf("before the first run: got %v", err)
	}
	printed(t, l, "one\ntwo\nthree", "")
	mustRead(t, l, all, "one\ntwo\nthree")
	mustRead(t, l, Options{Previous: true, Tail: 1}, "three") // while the second run is waited for
	for lines, want := range map[int]string{0: "", 1: "three", 2: "two\nthree", 3: "one\ntwo\nthree", 9: "one\ntwo\nthree"} {
		mustRead(t, l, Options{Tail: lines}, want)
	}
	mustRead(t, l, Options{Tail: -1, Prefix: "[p] "}, "[p] one\n[p] two\n[p] three")
	mustRead(t, l, Options{Tail: -1, Since: time.Now().Add(-time.Hour)}, "one\ntwo\nthree")
	mustRead(t, l, Options{Tail: -1, Since: time.Now().Add(time.Hour)}, "")
	stamped, err := read(l, Options{Tail: 2, Timestamps: true})
	lines := strings.Split(stamped, "\n")
	if err != nil || len(lines) != 2 {
		t.Fatalf("got %q, %v", stamped, err)
	}
	for i, word := range []string{"two", "three"} {
		when, text, _ := strings.Cut(lines[i], " ")
		if at, err := time.Parse(time.RFC3339Nano, when); err != nil || time.Since(at).Abs() > time.Hour || text != word {
			t.Errorf("got %q", lines[i])
		}
	}
	second := begin(t, l)
	if _, err := io.WriteString(second.Streams()[2], "again\n"); err != nil {
		t.Fatal(err)
	}
	wait(t, "it is kept", func() bool { return l.Tail() != "" })
	mustRead(t, l, all, "again\n")
	mustRead(t, l, Options{Previous: true, Tail: -1}, "one\ntwo\nthree")
	mustRead(t, l, Options{Previous: true, Follow: true, Tail: 1}, "three")
	second.Started()
	second.End()
	mustRead(t, l, Options{Previous: true, Tail: -1}, "again\n")
	if got := l.Tail(); got != "again\n" {
		t.Errorf("the tail: got %q", got)
	}
	b, err := os.ReadFile(l.Path())
	if err != nil || !strings.HasSuffix(string(b), " stderr F again\n") {
		t.Errorf("the file: got %q, %v", b, err)
	}
	printed(t, l, "third\n", "")
	l.Finish()
	mustRead(t, l, all, "third\n")
	mustRead(t, l, Options{Previous: true, Tail: -1}, "again\n")
	if names := files(t, l); !slices.Equal(names, []string{"1.log", "2.log"}) {
		t.Errorf("got %v, want the files of the last two runs", names)
	}
}

func files(t *testing.T, l *Log) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// What is no text, long lines and empty ones come back byte for byte.
func TestReadExactly(t *testing.T) {
	l := newLog(t)
	var b bytes.Buffer
	for i := range 300 {
		b.Write(bytes.Repeat([]byte{byte(i)}, i*i*3))
		b.WriteString("\n\r\n\x00\n\n")
	}
	r := begin(t, l)
	go func() {
		defer r.Started()
		_, _ = r.Streams()[1].Write(b.Bytes())
	}()
	got := follow(t, l, all)
	wait(t, "it is read", func() bool { return got.len() == b.Len() })
	r.End()
	l.Finish()
	if text := got.end(t); text != b.String() {
		t.Errorf("got %d bytes, want %d as they were printed", len(text), b.Len())
	}
	mustRead(t, l, all, b.String())
	if n := b.Len(); n < 20*maxContent {
		t.Errorf("%d bytes are few", n)
	}
}

// follower is a Read that follows.
type follower struct {
	mu   sync.Mutex
	text strings.Builder
	done chan error
}

func follow(t *testing.T, l *Log, o Options) *follower {
	t.Helper()
	o.Follow = true
	f := &follower{done: make(chan error, 1)}
	go func() {
		f.done <- l.Read(context.Background(), o, func(b []byte) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.text.Write(b)
			return nil
		})
	}()
	return f
}

func (f *follower) len() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.text.Len()
}

// end waits until it has come to its end, and returns what it has read.
func (f *follower) end(t *testing.T) string {
	t.Helper()
	if err := <-f.done; err != nil {
		t.Error(err)
	}
	return f.text.String()
}

func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// Who follows sees the runs that come, a prompt without a newline soon, and comes to an end with the log.
func TestFollow(t *testing.T) {
	l := newLog(t)
	f := follow(t, l, all)
	r := begin(t, l)
	if _, err := io.WriteString(r.Streams()[1], "name? "); err != nil {
		t.Fatal(err)
	}
	wait(t, "the prompt is seen", func() bool { return f.len() > 0 })
	r.Started()
	r.End()
	late := follow(t, l, Options{Tail: 0})
	printed(t, l, "second\n", "")
	printed(t, l, "third\n", "")
	l.Finish()
	if got := f.end(t); got != "name? \nsecond\nthird\n" {
		t.Errorf("got %q", got)
	}
	if got := late.end(t); !strings.HasSuffix(got, "third\n") || strings.Contains(got, "name") {
		t.Errorf("from now on: got %q", got)
	}
}

// Whoever cancels or closes is let go.
func TestFollowEnds(t *testing.T) {
	l := newLog(t)
	printed(t, l, "one\n", "")
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	err := l.Read(ctx, Options{Follow: true, Tail: -1}, func([]byte) error { cancel(gone); return nil })
	if !errors.Is(err, gone) {
		t.Errorf("cancelled: got %v", err)
	}
	if err := l.Read(t.Context(), all, func([]byte) error { return gone }); !errors.Is(err, gone) {
		t.Errorf("closed: got %v", err)
	}
	empty := New(filepath.Join(t.TempDir(), "none"))
	empty.Finish()
	if _, err := read(empty, Options{Follow: true, Tail: -1}); !errors.Is(err, ErrNotStarted) {
		t.Errorf("never started: got %v", err)
	}
	once := newLog(t)
	printed(t, once, "one\n", "")
	once.Finish()
	if _, err := read(once, Options{Previous: true, Tail: -1}); !errors.Is(err, ErrNoPrevious) {
		t.Errorf("never started again: got %v", err)
	}
}

// flood prints numbered lines as fast as they are taken.
func flood(r *Run, lines int) {
	defer r.Started()
	var b []byte
	for i := range lines {
		b = fmt.Appendf(b, "%d %0100d\n", i, 0)
		if len(b) > 50_000 || i == lines-1 {
			if _, err := r.Streams()[1].Write(b); err != nil {
				return
			}
			b = b[:0]
		}
	}
}

// A container prints more than is kept: who follows from the start sees every line in order, and the files stay within bounds.
func TestFlood(t *testing.T) {
	const lines = 1_000_000
	l := newLog(t)
	next := 0
	done := make(chan error, 1)
	go func() {
		var held []byte
		done <- l.Read(context.Background(), Options{Follow: true, Tail: -1}, func(b []byte) error {
			held = append(held, b...)
			for {
				line, rest, whole := bytes.Cut(held, newline)
				if !whole {
					return nil
				}
				if !bytes.HasPrefix(line, fmt.Appendf(nil, "%d ", next)) {
					return fmt.Errorf("after line %d came %.20q", next-1, line)
				}
				next++
				held = rest
			}
		})
	}()
	r := begin(t, l)
	flood(r, lines)
	r.End()
	names := files(t, l)
	var kept int64
	for _, name := range names {
		info, err := os.Stat(filepath.Join(l.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		kept += info.Size()
		if info.Size() > maxSize {
			t.Errorf("%s has %d bytes, want at most %d", name, info.Size(), maxSize)
		}
	}
	if len(names) != maxFiles || kept < (maxFiles-1)*(maxSize-int64(maxEntry)) {
		t.Errorf("got %v of %d bytes, want %d files, all but one of them full", names, kept, maxFiles)
	}
	l.Finish()
	if err := <-done; err != nil || next != lines {
		t.Errorf("got %d lines, %v, want %d", next, err, lines)
	}
	for _, tail := range []int{10, 200_000} { // of the last file, and of several
		text, err := read(l, Options{Tail: tail})
		if n := strings.Count(text, "\n"); err != nil || n != tail || !strings.HasPrefix(text, fmt.Sprintf("%d ", lines-tail)) {
			t.Errorf("tail of %d: got %d lines from %.20q, %v", tail, n, text, err)
		}
	}
}

// A reader that stands still does not keep the container for long, and is told that it has lost lines.
func TestStandsStill(t *testing.T) {
	l := newLog(t)
	r := begin(t, l)
	hold, done := make(chan struct{}), make(chan error, 1)
	reading := make(chan struct{})
	go func() {
		first := sync.OnceFunc(func() { close(reading) })
		done <- l.Read(context.Background(), Options{Follow: true, Tail: -1}, func([]byte) error { first(); <-hold; return nil })
	}()
	if _, err := io.WriteString(r.Streams()[1], "first\n"); err != nil {
		t.Fatal(err)
	}
	<-reading
	flood(r, 1_000_000)
	r.End()
	close(hold)
	if err := <-done; !errors.Is(err, ErrTooSlow) {
		t.Errorf("got %v, want %v", err, ErrTooSlow)
	}
}

// The end of a run waits for those who hold its pipes, but not for ever; what is printed meanwhile is kept.
func TestEndWhileHeld(t *testing.T) {
	l := newLog(t)
	r := begin(t, l)
	if _, err := io.WriteString(r.Streams()[2], "still here\n"); err != nil {
		t.Fatal(err)
	}
	r.End()
	r.Started()
	mustRead(t, l, all, "still here\n")
}

// A file that something else has written to is an error, not nonsense on a terminal.
func TestDamaged(t *testing.T) {
	l := newLog(t)
	printed(t, l, "one\ntwo\n", "")
	b, err := os.ReadFile(l.Path())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(l.Path(), bytes.ReplaceAll(b, []byte("stdout"), []byte("nonsen")), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tail := range []int{-1, 1} {
		if got, err := read(l, Options{Tail: tail}); !errors.Is(err, errEntry) {
			t.Errorf("got %q, %v", got, err)
		}
	}
	if err := os.Truncate(l.Path(), 3); err != nil {
		t.Fatal(err)
	}
	if got, err := read(l, all); err == nil {
		t.Errorf("cut short: got %q", got)
	}
}

// A disk that takes nothing is no matter of the container.
func TestLost(t *testing.T) {
	l := newLog(t)
	r := begin(t, l)
	l.writing.Lock()
	l.file.Close()
	l.writing.Unlock()
	if _, err := io.WriteString(r.Streams()[1], "lost\n"); err != nil {
		t.Error(err)
	}
	r.Started()
	r.End()
	mustRead(t, l, all, "")
}
