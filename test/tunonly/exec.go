//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// execMode is how go test calls this program in place of a test binary, with the binary and its arguments behind it.
const execMode = "exec"

// What outside tells exec through go test.
const (
	workVar   = "TUNONLY_WORK"
	sourceVar = "TUNONLY_SOURCE"
	userVar   = "TUNONLY_USER" // "true" or "false"
	allVar    = "TUNONLY_ALL"  // likewise
)

// handOver lets a machine run a test binary in the directory that corresponds to this one, prints what it printed, and returns its
// exit code.
func handOver(args []string) (code int, err error) {
	work, source := os.Getenv(workVar), os.Getenv(sourceVar)
	here, err := os.Getwd()
	if err != nil {
		return 1, err
	}
	j := job{Limit: testLimit(args)}
	if j.User, err = strconv.ParseBool(os.Getenv(userVar)); err != nil {
		return 1, fmt.Errorf("%s: %w", userVar, err)
	}
	if err := open(args[0], work); err != nil {
		return 1, err
	}
	program, err := translate(args[0], work, guestWork)
	if err != nil {
		return 1, err
	}
	for _, pair := range os.Environ() {
		if strings.HasPrefix(pair, "MIDDLEWAY_") {
			j.Env = append(j.Env, pair)
		}
	}
	if j.Dir, err = translate(here, source, guestSource); err != nil {
		return 1, err
	}
	all, err := strconv.ParseBool(os.Getenv(allVar))
	if err != nil {
		return 1, fmt.Errorf("%s: %w", allVar, err)
	}
	j.Argv = []string{program}
	if skip := leftOutPattern(strings.TrimPrefix(j.Dir, guestSource+"/")); skip != "" && !all {
		j.Argv = append(j.Argv, "-test.skip="+skip)
	}
	j.Argv = append(j.Argv, args[1:]...)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { // go test does not always end this when it ends itself
		defer cancel()
		for parent := os.Getppid(); os.Getppid() == parent; {
			time.Sleep(poll)
		}
	}()
	return submit(ctx, work, j, os.Stdout)
}

// open lets the guest's ordinary user reach a test binary: go test makes its directories for root alone.
func open(path, work string) error {
	for dir := filepath.Dir(path); dir != work && len(dir) > len(work); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// translate returns the name that a file below a directory of this machine has in the guest.
func translate(path, from, to string) (string, error) {
	rel, err := filepath.Rel(from, path)
	if err != nil || !filepath.IsLocal(rel) {
		return "", fmt.Errorf("%s is not below %s, all that the machines see", path, from)
	}
	return filepath.Join(to, rel), nil
}

// testLimit returns when to kill a test binary: some time after it should have ended itself with the stacks of its goroutines.
func testLimit(args []string) time.Duration {
	const grace = 20 * time.Second
	for _, a := range args {
		if value, ok := strings.CutPrefix(a, "-test.timeout="); ok {
			if d, err := time.ParseDuration(value); err == nil && d > 0 {
				return d + grace
			}
		}
	}
	return 10*time.Minute + grace // go test's default
}

// submit queues a job, waits for its end, and copies its output.
func submit(ctx context.Context, work string, j job, output io.Writer) (code int, err error) {
	f, err := os.CreateTemp(filepath.Join(work, outputDir), "job-")
	if err != nil {
		return 1, err
	}
	defer f.Close()
	id := filepath.Base(f.Name())
	if err := writeJSON(filepath.Join(work, queueDir, id), j); err != nil {
		return 1, err
	}
	var r result
	for {
		err := readJSON(filepath.Join(work, doneDir, id), &r)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return 1, err
		}
		select {
		case <-ctx.Done():
			_, err := io.Copy(output, f) // as far as it is on disk
			return 1, errors.Join(ctx.Err(), err)
		case <-time.After(poll):
		}
	}
	if _, err := io.Copy(output, f); err != nil {
		return 1, err
	}
	if r.Error != "" {
		return 1, errors.New(r.Error)
	}
	return r.Code, nil
}
