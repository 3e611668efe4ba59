// Package logs keeps what containers print as a kubelet does, and reads it as `kubectl logs` does: a file for each run, in the
// format of the Container Runtime Interface, rotated at 10 MiB; of a run five files are kept, and of the runs the present one
// and the one before. A container that prints faster than its files are written, or than one who follows reads, is slowed by
// its pipe: nothing is lost within what is kept, and memory does not grow.
//
//	container ── pipes ──► Run ──► 3.log, 3.log.2, 3.log.1 │ 2.log ──► Read ──► the socket of middleway logs
package logs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// What is kept, as a kubelet has it by default (containerLogMaxSize, containerLogMaxFiles).
const (
	maxSize  = 10 << 20 // of a file, bytes
	maxFiles = 5        // of a run
)

// patience is how long a reader may stand still before what it has not read yet may be dropped.
const patience = 5 * time.Second

// tailSize bounds what is remembered of the last run's end, in bytes.
const tailSize = 4 << 10

// Log is what one container prints, in all its runs. Its methods may be called by several goroutines, those of runs by one.
type Log struct {
	dir string

	writing sync.Mutex // held while entries are added; above mu
	file    *os.File   // of the last segment; nil if nothing runs
	encoded []byte     // for one writer at a time

	mu       sync.Mutex
	segments []*segment // oldest first
	serial   int        // of the segment that comes next
	run      int        // the present one, or the last; -1 before the first
	tail     []byte     // the end of what this run has printed
	finished bool       // no run will follow
	readers  map[*reader]bool
	change   chan struct{} // closed at the next change
}

// segment is a file.
type segment struct {
	run    int
	serial int
	path   string
	size   int64 // of whole entries, bytes
	full   bool  // nothing will be added
}

// New returns a log in a directory that the first run makes.
func New(dir string) *Log {
	return &Log{dir: dir, run: -1, readers: map[*reader]bool{}, change: make(chan struct{})}
}

// Path returns the file to which the present run prints, or the last one did; "" before the first.
func (l *Log) Path() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.run < 0 {
		return ""
	}
	return l.pathOf(l.run)
}

func (l *Log) pathOf(run int) string { return filepath.Join(l.dir, fmt.Sprintf("%d.log", run)) }

// Tail returns the last bytes, at most 4 KiB, that the present or last run printed.
func (l *Log) Tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.tail)
}

// changedLocked wakes all who wait for a change.
func (l *Log) changedLocked() {
	for r := range l.readers {
		if r.idle {
			r.idle, r.moved = false, time.Now()
		}
	}
	close(l.change)
	l.change = make(chan struct{})
}

// beginRun adds the file of the next run, and drops those of old ones.
func (l *Log) beginRun() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return fmt.Errorf("keep a container's output: %w", err)
	}
	l.mu.Lock()
	next := l.run + 1
	l.mu.Unlock()
	if err := l.create(next); err != nil {
		return err
	}
	l.drop(func() *segment {
		if oldest := l.segments[0]; oldest.run < next-1 {
			return oldest
		}
		return nil
	})
	return nil
}

// create makes a file of a run, to which entries are added from now on.
func (l *Log) create(run int) error {
	file, err := os.OpenFile(l.pathOf(run), os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("keep a container's output: %w", err)
	}
	l.file = file
	l.mu.Lock()
	defer l.mu.Unlock()
	if run != l.run {
		l.tail = nil
	}
	l.run = run
	l.segments = append(l.segments, &segment{run: run, serial: l.serial, path: file.Name()})
	l.serial++
	l.changedLocked()
	return nil
}

// endRun closes the present run's file.
func (l *Log) endRun() {
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.file == nil {
		return
	}
	l.file.Close()
	l.file = nil
	l.mu.Lock()
	defer l.mu.Unlock()
	l.segments[len(l.segments)-1].full = true
	l.changedLocked()
}

// add keeps what the present run printed. What cannot be written, to a full disk for example, is lost: the container goes on.
func (l *Log) add(s Stream, printed []byte) {
	l.writing.Lock()
	defer l.writing.Unlock()
	at := time.Now().UTC().AppendFormat(nil, timeFormat)
	for len(printed) > 0 && l.file != nil {
		piece := printed[:min(len(printed), maxContent)]
		if i := bytes.LastIndexByte(piece, '\n'); i >= 0 {
			piece = piece[:i+1]
		}
		printed = printed[len(piece):]
		l.encoded = appendEntries(l.encoded[:0], at, s, piece)
		l.write(l.encoded, piece)
	}
}

// write adds entries to the last file, or to a new one where that is full.
func (l *Log) write(entries, printed []byte) {
	l.mu.Lock()
	last := l.segments[len(l.segments)-1]
	l.mu.Unlock()
	if last.size+int64(len(entries)) > maxSize && last.size > 0 {
		if l.rotate(last) != nil {
			return
		}
		last = l.segments[len(l.segments)-1]
	}
	if _, err := l.file.WriteAt(entries, last.size); err != nil {
		return // the next entries take their place
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	last.size += int64(len(entries))
	l.tail = append(l.tail, printed...)
	l.tail = l.tail[max(0, len(l.tail)-tailSize):]
	l.changedLocked()
}

// rotate puts the full file aside and begins a new one.
func (l *Log) rotate(last *segment) error {
	aside := fmt.Sprintf("%s.%d", l.pathOf(last.run), last.serial)
	l.mu.Lock()
	err := os.Rename(last.path, aside)
	if err == nil {
		last.path, last.full = aside, true
	}
	l.mu.Unlock()
	if err != nil {
		return err
	}
	full := l.file
	if err := l.create(last.run); err != nil {
		l.file = nil
		full.Close()
		return err
	}
	full.Close()
	l.drop(func() *segment {
		if files := l.ofRunLocked(last.run); len(files) > maxFiles {
			return files[0]
		}
		return nil
	})
	return nil
}

// ofRunLocked returns the files of a run, oldest first.
func (l *Log) ofRunLocked(run int) (files []*segment) {
	for _, s := range l.segments {
		if s.run == run {
			files = append(files, s)
		}
	}
	return files
}

// drop removes the files that next returns, called with mu held, until that is nil. It waits for readers that have yet to come
// to such a file, as long as they move.
func (l *Log) drop(next func() *segment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for gone := next(); gone != nil; gone = next() {
		l.waitLocked(func(r *reader) bool { return r.at < gone.serial && gone.serial <= r.last })
		l.segments = slices.DeleteFunc(l.segments, func(s *segment) bool { return s == gone })
		_ = os.Remove(gone.path) // Close takes what is left
	}
}

// waitLocked waits as long as there are such readers that have moved within patience.
func (l *Log) waitLocked(behind func(*reader) bool) {
	for {
		var wait time.Duration
		for r := range l.readers {
			if behind(r) {
				wait = max(wait, patience-time.Since(r.moved))
			}
		}
		if wait <= 0 {
			return
		}
		changed := l.change
		l.mu.Unlock()
		select {
		case <-changed:
		case <-time.After(wait):
		}
		l.mu.Lock()
	}
}

// Finish tells those who follow that no run will follow the last one.
func (l *Log) Finish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.finished = true
	l.changedLocked()
}

// Close finishes the log, lets those who read it come to its end, and removes it. No run may be under way.
func (l *Log) Close() error {
	l.Finish()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waitLocked(func(*reader) bool { return true })
	l.segments = nil
	if err := os.RemoveAll(l.dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove a container's output: %w", err)
	}
	return nil
}
