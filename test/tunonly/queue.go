//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// The working directory is the only thing that the machines may write, and how all sides talk. It holds:
//
//	tunonly, middleway   the programs, and xstate.so, a library for UML
//	go                   where go test builds, GOTMPDIR
//	memory               where a machine's memory is mounted
//	queue/ID             jobs that wait
//	taken/ID             jobs that a machine works on
//	output/ID            what they print
//	done/ID              what became of them
//	up/N                 what machine N says when it is up
const (
	goDir     = "go"
	memoryDir = "memory"
	queueDir  = "queue"
	takenDir  = "taken"
	outputDir = "output"
	doneDir   = "done"
	upDir     = "up"

	tunonlyName   = "tunonly"
	xstateName    = "xstate.so"
	middlewayName = "middleway"
)

// poll is how often each side looks for news from the other.
const poll = 10 * time.Millisecond

// A job is a command for a machine.
type job struct {
	Argv  []string      // the program's path as a machine sees it, and its arguments
	Dir   string        // as a machine sees it
	User  bool          // as an ordinary user
	Env   []string      // on top of what every job gets
	Limit time.Duration // then it is killed
}

// A result is what became of a job.
type result struct {
	Code  int    // exit code; 128 and the number of a signal that ended it
	Error string // why the job could not be started, or was ended
}

// makeQueue makes the directories.
func makeQueue(work string) error {
	for _, name := range []string{goDir, memoryDir, queueDir, takenDir, outputDir, doneDir, upDir} {
		if err := os.Mkdir(filepath.Join(work, name), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// writeJSON puts a file that appears at once, with all its content, on disk.
func writeJSON(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(text); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// unfinished tells the last words of jobs that were not done, as far as they are on disk.
func unfinished(work string) error {
	entries, err := os.ReadDir(filepath.Join(work, takenDir))
	errs := []error{err}
	for _, e := range entries {
		if _, err := os.Stat(filepath.Join(work, doneDir, e.Name())); err == nil {
			continue
		}
		output, err := os.ReadFile(filepath.Join(work, outputDir, e.Name()))
		const most = 4000 // bytes
		errs = append(errs, err, fmt.Errorf("a job was not done; it printed\n%s", output[max(0, len(output)-most):]))
	}
	return errors.Join(errs...)
}

func readJSON(path string, v any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
