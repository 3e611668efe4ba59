package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"time"
)

// Options choose what is read, in kubectl's words.
type Options struct {
	// Previous reads the last run that has ended and was, or will be, followed by another; without it the present or last one.
	Previous bool
	// Follow goes on with what is printed from now on, in this run and in those after it, until the log is finished.
	Follow bool
	// Tail is the number of lines from the end to begin with; negative for all.
	Tail int
	// Since leaves out what was printed before.
	Since time.Time
	// Timestamps begins each line with its time, Prefix with a text.
	Timestamps bool
	Prefix     string
}

// What can be read of a container may be nothing.
var (
	ErrNotStarted = errors.New("it has not started yet")
	ErrNoPrevious = errors.New("it has no previous run")
	// ErrTooSlow is the error of a reader that stood still while what it had not read yet was dropped.
	ErrTooSlow = errors.New("lines are lost: the reader stood still, and what it had not read yet was dropped for newer lines")
)

// reader is somebody who reads a log. Its fields are guarded by the log's mu, but for those of who reads.
type reader struct {
	at    int // serial of its file
	last  int // serial of the last file that it will read
	moved time.Time
	idle  bool // it has read everything

	log     *Log
	options Options
	file    *os.File
	segment *segment
	offset  int64
	end     int64 // of the last file; negative for whatever comes
	midline bool  // what was given last did not end a line
	broken  bool  // nor will the run end it
}

// Read gives what the container printed to emit, in pieces of any length that are valid until emit returns. It ends with
// ctx, by an error of emit, or when everything was given.
func (l *Log) Read(ctx context.Context, o Options, emit func([]byte) error) error {
	r := &reader{log: l, options: o, moved: time.Now()}
	l.mu.Lock()
	for o.Follow && !o.Previous && l.run < 0 && !l.finished {
		if err := l.sleepLocked(ctx); err != nil {
			l.mu.Unlock()
			return err
		}
	}
	err := r.beginLocked()
	l.mu.Unlock()
	if err != nil {
		return err
	}
	defer r.leave()
	if o.Tail >= 0 {
		if err := r.skipToTail(o.Tail); err != nil {
			return err
		}
	}
	return r.run(ctx, emit)
}

// sleepLocked waits for a change.
func (l *Log) sleepLocked(ctx context.Context) error {
	change := l.change
	l.mu.Unlock()
	defer l.mu.Lock()
	select {
	case <-change:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// beginLocked goes to the beginning of the run that is to be read.
func (r *reader) beginLocked() error {
	l, run := r.log, r.log.run
	if run < 0 {
		return ErrNotStarted
	}
	waits := !l.finished && l.segments[len(l.segments)-1].full // for the next run
	if r.options.Previous && !waits {
		run--
	}
	files := l.ofRunLocked(run)
	if len(files) == 0 {
		return ErrNoPrevious
	}
	r.last, r.end = math.MaxInt, -1
	if r.options.Previous || !r.options.Follow {
		last := files[len(files)-1]
		r.last, r.end = last.serial, last.size
	}
	l.readers[r] = true
	if err := r.openLocked(files[0]); err != nil {
		delete(l.readers, r)
		return err
	}
	return nil
}

// openLocked goes to the beginning of a file.
func (r *reader) openLocked(s *segment) error {
	file, err := os.Open(s.path)
	if err != nil {
		return fmt.Errorf("read a container's output: %w", err)
	}
	if r.file != nil {
		r.file.Close()
	}
	r.file, r.segment, r.offset, r.at, r.moved = file, s, 0, s.serial, time.Now()
	return nil
}

func (r *reader) leave() {
	r.file.Close()
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	delete(r.log.readers, r)
	r.log.changedLocked()
}

// run gives everything from here on.
func (r *reader) run(ctx context.Context, emit func([]byte) error) error {
	var text []byte
	buf := make([]byte, 4*maxEntry)
	for {
		more, err := r.wait(ctx)
		if err != nil || more == 0 {
			return err
		}
		n, err := r.file.ReadAt(buf[:min(int64(len(buf)), more)], r.offset)
		if int64(n) < min(int64(len(buf)), more) {
			return fmt.Errorf("read a container's output: %w", err)
		}
		entries := buf[:1+bytes.LastIndexByte(buf[:n], '\n')]
		if len(entries) == 0 {
			return fmt.Errorf("read a container's output: %s: %w", r.file.Name(), errEntry)
		}
		text = text[:0]
		if r.broken {
			text, r.broken, r.midline = append(text, '\n'), false, false
		}
		if text, err = r.format(text, entries); err != nil {
			return fmt.Errorf("read a container's output: %s: %w", r.file.Name(), err)
		}
		if err := emit(text); err != nil {
			return err
		}
		r.offset += int64(len(entries))
	}
}

// wait returns how many bytes of the file are there to be read, after it has waited for them if it follows; 0 at the end.
func (r *reader) wait(ctx context.Context) (int64, error) {
	l := r.log
	l.mu.Lock()
	defer l.mu.Unlock()
	r.moved = time.Now()
	for {
		end := r.segment.size
		if r.at == r.last && r.end >= 0 {
			end = r.end
		}
		if r.offset < end {
			return end - r.offset, nil
		}
		if r.at == r.last {
			return 0, nil
		}
		next := l.afterLocked(r.at)
		switch {
		case next == nil && l.finished:
			return 0, nil
		case next == nil:
			r.idle = true
			if err := l.sleepLocked(ctx); err != nil {
				return 0, err
			}
		case next.serial > r.at+1:
			return 0, ErrTooSlow
		default:
			r.broken = r.midline && next.run != r.segment.run
			if err := r.openLocked(next); err != nil {
				return 0, err
			}
			l.changedLocked()
		}
	}
}

// afterLocked returns the first file after one; nil if there is none.
func (l *Log) afterLocked(serial int) *segment {
	for _, s := range l.segments {
		if s.serial > serial {
			return s
		}
	}
	return nil
}

// format appends what is to be seen of entries.
func (r *reader) format(text, entries []byte) ([]byte, error) {
	var since []byte
	if !r.options.Since.IsZero() {
		since = r.options.Since.UTC().AppendFormat(nil, timeFormat)
	}
	for len(entries) > 0 {
		line, rest, _ := bytes.Cut(entries, newline)
		entries = rest
		e, err := parseEntry(line)
		if err != nil {
			return nil, err
		}
		if since != nil && bytes.Compare(e.time, since) < 0 {
			continue
		}
		if !r.midline {
			text = append(text, r.options.Prefix...)
			if r.options.Timestamps {
				text = append(append(text, e.time...), ' ')
			}
		}
		text = append(text, e.content...)
		if r.midline = e.partial; !e.partial {
			text = append(text, '\n')
		}
	}
	return text, nil
}

// skipToTail goes to where the last lines begin. Until then the reader stays at the first file, so that the others are kept.
func (r *reader) skipToTail(lines int) error {
	files, sizes := r.files()
	var begin *segment
	offset, found := 0, 0
	for i, done := len(files)-1, false; i >= 0 && !done; i-- {
		b, err := r.log.readAll(files[i], sizes[i])
		if errors.Is(err, os.ErrNotExist) && begin != nil {
			break // it was dropped meanwhile
		}
		if err == nil {
			offset, done, err = tailOf(b, lines, &found)
		}
		if err != nil {
			return fmt.Errorf("read a container's output: %s: %w", r.log.dir, err)
		}
		begin = files[i]
	}
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	if err := r.openLocked(begin); err != nil {
		return err
	}
	r.offset = int64(offset)
	return nil
}

// files returns the files of the run that is read, and how much of them is to be read.
func (r *reader) files() (files []*segment, sizes []int64) {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	files = slices.DeleteFunc(r.log.ofRunLocked(r.segment.run), func(s *segment) bool { return s.serial > r.last })
	for _, s := range files {
		sizes = append(sizes, s.size)
	}
	if r.end >= 0 {
		sizes[len(sizes)-1] = r.end
	}
	return files, sizes
}

// readAll returns the first bytes of a file.
func (l *Log) readAll(s *segment, size int64) ([]byte, error) {
	l.mu.Lock()
	file, err := os.Open(s.path)
	l.mu.Unlock()
	if err != nil {
		return nil, err
	}
	defer file.Close()
	b := make([]byte, size)
	_, err = file.ReadAt(b, 0)
	return b, err
}

// tailOf returns where the last lines of entries begin, and whether all of them are there; found counts them from file to file,
// the newest first.
func tailOf(entries []byte, lines int, found *int) (at int, done bool, err error) {
	for end := len(entries); end > 0; {
		begin := 1 + bytes.LastIndexByte(entries[:end-1], '\n')
		e, err := parseEntry(entries[begin : end-1])
		if err != nil {
			return 0, false, err
		}
		if !e.partial || *found == 0 {
			if *found == lines {
				return end, true, nil
			}
			*found++
		}
		end = begin
	}
	return 0, false, nil
}
