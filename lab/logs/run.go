package logs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

const (
	// readSize is what is read from a container at once, in bytes: what a pipe holds.
	readSize = 64 << 10
	// lineWait is how long the beginning of a line waits for its end before it is kept as a part: a prompt is seen soon.
	lineWait = 100 * time.Millisecond
	// endWait bounds the wait for the end of output of a container that has ended: something else may hold its pipes.
	endWait = 2 * time.Second
)

// Run is one run of a container.
type Run struct {
	log     *Log
	streams [3]*os.File
	pipes   [2]*os.File // ours
	copying sync.WaitGroup

	mu     sync.Mutex
	ending bool
}

// Begin begins a run. End must be called, whether the container could be started or not.
func (l *Log) Begin() (*Run, error) {
	r := &Run{log: l}
	if err := r.open(); err != nil {
		r.Started()
		closeFiles(r.pipes[:])
		return nil, fmt.Errorf("keep a container's output: %w", err)
	}
	if err := l.beginRun(); err != nil {
		r.Started()
		closeFiles(r.pipes[:])
		return nil, err
	}
	for i, s := range []Stream{Stdout, Stderr} {
		r.copying.Go(func() { r.copy(r.pipes[i], s) })
	}
	return r, nil
}

func (r *Run) open() (err error) {
	if r.streams[0], err = os.Open(os.DevNull); err != nil {
		return err
	}
	for i := range r.pipes {
		if r.pipes[i], r.streams[1+i], err = os.Pipe(); err != nil {
			return err
		}
	}
	return nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// Streams returns standard input, which is empty, output and error for the container, until Started.
func (r *Run) Streams() *[3]*os.File { return &r.streams }

// Started closes the streams; the container has its own by now.
func (r *Run) Started() { closeFiles(r.streams[:]) }

// End returns when all is kept that the container, which has ended, printed.
func (r *Run) End() {
	r.mu.Lock()
	r.ending = true
	for _, f := range r.pipes {
		_ = f.SetReadDeadline(time.Now().Add(endWait)) // it has come to its end otherwise
	}
	r.mu.Unlock()
	r.copying.Wait()
	closeFiles(r.pipes[:])
	r.log.endRun()
}

// copy keeps what comes out of a pipe, lines as a whole where they come soon and are not too long.
func (r *Run) copy(pipe *os.File, s Stream) {
	buf := make([]byte, readSize)
	held := 0 // the beginning of a line, at the beginning of buf
	for {
		last := r.setDeadline(pipe, held > 0)
		n, err := pipe.Read(buf[held:])
		all := buf[:held+n]
		whole := len(all)
		if err == nil && len(all)-(1+bytes.LastIndexByte(all, '\n')) < maxContent {
			whole = 1 + bytes.LastIndexByte(all, '\n')
		}
		r.log.add(s, all[:whole])
		switch held = copy(buf, all[whole:]); {
		case err == nil:
		case !errors.Is(err, os.ErrDeadlineExceeded), last && whole == 0:
			return
		}
	}
}

// setDeadline bounds the next read, and reports whether that is the last one unless it brings something.
func (r *Run) setDeadline(pipe *os.File, held bool) (last bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var deadline time.Time
	switch {
	case held:
		deadline = time.Now().Add(lineWait)
	case r.ending:
		deadline = time.Now().Add(endWait)
	}
	_ = pipe.SetReadDeadline(deadline) // pipes have them
	return r.ending && !held
}
