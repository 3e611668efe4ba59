package playground

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// The file holds all that was written, or whole lines from the end of it, and never more than its bound.
func TestOutput(t *testing.T) {
	path := filepath.Join(t.TempDir(), "default", "web", "main.log")
	o, err := newOutput(path)
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	read := func() []byte {
		t.Helper()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	write := func(b []byte) {
		t.Helper()
		if n, err := o.Write(b); n != len(b) || err != nil {
			t.Fatalf("got %d, %v", n, err)
		}
	}
	write([]byte("first\n"))
	write(nil)
	write([]byte("second\n"))
	if got := string(read()); got != "first\nsecond\n" {
		t.Errorf("got %q", got)
	}
	var all bytes.Buffer
	for i := 0; all.Len() < 3*maxOutput; i++ {
		line := fmt.Sprintf("line %d of a container that says much\n", i)
		all.WriteString(line)
		write([]byte(line))
	}
	got := read()
	if len(got) > maxOutput || len(got) < maxOutput/2-100 || !bytes.HasSuffix(all.Bytes(), got) || !bytes.HasPrefix(got, []byte("line ")) {
		t.Errorf("got %d bytes, beginning with %.20q, want the last lines", len(got), got)
	}
	write(all.Bytes()) // at once
	if got := read(); len(got) > maxOutput || !bytes.HasSuffix(all.Bytes(), got) {
		t.Errorf("got %d bytes, want the last of those", len(got))
	}
	long := bytes.Repeat([]byte("x"), 2*maxOutput) // one line
	write(long)
	if got := read(); len(got) > maxOutput || !bytes.HasSuffix(got, long[:maxOutput/4]) {
		t.Errorf("got %d bytes of a long line", len(got))
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("got %v, %v, want one file", entries, err)
	}
}

// A disk that takes nothing is no matter of the container.
func TestOutputLost(t *testing.T) {
	o, err := newOutput(filepath.Join(t.TempDir(), "main.log"))
	if err != nil {
		t.Fatal(err)
	}
	if err := o.close(); err != nil {
		t.Fatal(err)
	}
	if n, err := o.Write([]byte("lost\n")); n != 5 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
}
