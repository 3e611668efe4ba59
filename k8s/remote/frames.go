package remote

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// What goes to the relay's standard input is in frames, so that a client that says nothing is told from one that has gone:
//
//	 0               1
//	 0 1 2 3 4 5 6 7 0 1 2 3 4 5 6 7
//	+-------------------------------+----------------
//	| length, in bytes, big endian  | bytes …            length 0: the client is there
//	+-------------------------------+----------------
//
// The network tells of a client's end where it can; one that has lost it, or sleeps, is found out by silence. TCP alone would take a
// quarter of an hour, as long as it has something to send.
const (
	frameHeader = 2
	maxFrame    = 1<<16 - 1
	// heartbeat is how often a client says that it is there, and silence how long it may say nothing.
	heartbeat = 10 * time.Second
	silence   = time.Minute
)

// errSilence ends a command whose client has gone without a word.
var errSilence = fmt.Errorf("the client has said nothing for %v", silence)

// frames writes frames. It may be used by several goroutines.
type frames struct {
	mu sync.Mutex
	w  io.Writer
}

func (f *frames) Write(b []byte) (n int, err error) {
	for len(b) > 0 && err == nil {
		part := b[:min(len(b), maxFrame)]
		if err = f.send(part); err == nil {
			n += len(part)
		}
		b = b[len(part):]
	}
	return n, err
}

func (f *frames) send(b []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, err := f.w.Write(append(binary.BigEndian.AppendUint16(make([]byte, 0, frameHeader+len(b)), uint16(len(b))), b...))
	return err
}

// beat says that the client is there until done is closed.
func (f *frames) beat(done <-chan struct{}) {
	t := time.NewTicker(heartbeat)
	defer t.Stop()
	for {
		select {
		case <-done:
			return
		case <-t.C:
			if f.send(nil) != nil {
				return
			}
		}
	}
}

// attend copies what frames hold to w until in ends, or says nothing for silence. It may return while in is still being read.
func attend(in io.Reader, w io.Writer) error {
	heard, ended := make(chan struct{}), make(chan error, 1)
	given := make(chan struct{})
	defer close(given)
	go func() {
		ended <- unframe(in, w, func() {
			select {
			case heard <- struct{}{}:
			case <-given:
			}
		})
	}()
	t := time.NewTimer(silence)
	defer t.Stop()
	for {
		select {
		case err := <-ended:
			return err
		case <-heard:
			t.Reset(silence)
		case <-t.C:
			return errSilence
		}
	}
}

// unframe copies what frames hold until in ends.
func unframe(in io.Reader, w io.Writer, heard func()) error {
	b := make([]byte, maxFrame)
	for {
		if _, err := io.ReadFull(in, b[:frameHeader]); err != nil {
			return ended(err)
		}
		part := b[:binary.BigEndian.Uint16(b)]
		if _, err := io.ReadFull(in, part); err != nil {
			return ended(err)
		}
		heard()
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
}

// ended tells a client that went from an error.
func ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}
