package remote

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

// A client that is there may say nothing for as long as it wants; one that has gone ends what it was there for.
func TestAttend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, w := io.Pipe()
		f, done, result := &frames{w: w}, make(chan struct{}), make(chan error, 1)
		var got bytes.Buffer
		go func() { result <- attend(in, &got) }()
		go f.beat(done)
		if n, err := f.Write(bytes.Repeat([]byte("x"), 3*maxFrame/2)); err != nil || n != 3*maxFrame/2 {
			t.Errorf("got %d, %v", n, err)
		}
		time.Sleep(time.Hour)
		select {
		case err := <-result:
			t.Fatalf("ended beside its client: %v", err)
		default:
		}
		gone := time.Now()
		close(done)
		if err := <-result; !errors.Is(err, errSilence) || time.Since(gone) > silence || got.Len() != 3*maxFrame/2 {
			t.Errorf("got %v after %v, %d bytes", err, time.Since(gone), got.Len())
		}
		in.Close()
	})
}

func TestAttendEnds(t *testing.T) {
	for name, text := range map[string]string{"between frames": "\x00\x01a\x00\x00", "in a header": "\x00\x01a\x00", "in a frame": "\x00\x01a\x00\x02b"} {
		var got bytes.Buffer
		if err := attend(bytes.NewReader([]byte(text)), &got); err != nil || got.String() != "a" {
			t.Errorf("%s: got %q, %v", name, &got, err)
		}
	}
	if err := attend(bytes.NewReader([]byte("\x00\x01a")), full{}); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("full: got %v", err)
	}
}

// full takes nothing.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, io.ErrShortWrite }
