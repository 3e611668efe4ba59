package playground

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// DetachConfig describes a cluster that goes on when its terminal has gone.
type DetachConfig struct {
	Dir   string    // the state directory
	Args  []string  // of this program, which bring the cluster up in the foreground
	Stdin *os.File  // for a manifest; nil for none
	Out   io.Writer // gets what the cluster prints until it is up
}

// lockVar tells the process of a detached cluster which of its descriptors is the locked file of its state directory: nobody
// else takes the directory between the check and the start.
const lockVar = "MIDDLEWAY_UP_LOCK"

// lockFD is that descriptor. The one before is the lab's, on the way from the outer process to the inner one.
const lockFD = 4

// Detach starts this program again in a session of its own, with what it prints in up.log, and returns when its cluster is up.
// The error of one that does not come up is the one that it printed.
func Detach(ctx context.Context, c DetachConfig) error {
	d, err := openDirectory(c.Dir) // what would keep the cluster out is said before anything is written there
	if err != nil {
		return err
	}
	log, err := d.startLog()
	if err != nil {
		return errors.Join(err, d.remove())
	}
	defer log.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = append([]string{os.Args[0]}, c.Args...)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", lockVar, lockFD))
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, "/"
	cmd.ExtraFiles = []*os.File{nil, d.lock}
	if c.Stdin != nil {
		cmd.Stdin = c.Stdin
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return errors.Join(fmt.Errorf("start in the background: %w", err), d.remove())
	}
	d.lock.Close() // it stays locked by the process's own descriptor
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	return followStart(ctx, c, cmd, log, ended)
}

// startLog makes a new log, which is written at its end and read from its beginning.
func (d *directory) startLog() (*os.File, error) {
	if err := d.clear(lockName); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(d.join(logName), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("write log: %w", err)
	}
	return log, nil
}

// followStart copies what the cluster prints until it is up, or has ended.
func followStart(ctx context.Context, c DetachConfig, cmd *exec.Cmd, log *os.File, ended <-chan error) error {
	printed := io.NewSectionReader(log, 0, math.MaxInt64)
	said := &report{out: c.Out}
	for interrupted := ctx.Done(); ; {
		select {
		case <-ended:
			if _, err := io.Copy(said, printed); err != nil {
				return fmt.Errorf("read log: %w", err)
			}
			forget(c.Dir)
			return said.failure()
		case <-interrupted:
			interrupted = nil
			_ = cmd.Process.Signal(syscall.SIGTERM) // it has ended otherwise
		case <-time.After(20 * time.Millisecond):
		}
		st, err := ReadStatus(context.WithoutCancel(ctx), c.Dir)
		up := err == nil && st.PID == cmd.Process.Pid && st.State == Running
		if _, err := io.Copy(said, printed); err != nil {
			return fmt.Errorf("read log: %w", err)
		}
		if up && ctx.Err() == nil {
			return nil
		}
	}
}

// forget clears the directory of a cluster that did not come up, unless another one has taken it.
func forget(dir string) {
	if d, err := lockDirectory(dir, 0); err == nil {
		_ = d.remove() // nobody else has it
	}
}

// inheritedLock returns the locked file of a state directory that Detach has handed to this process, once; nil if there is none.
func inheritedLock(path string) *os.File {
	if os.Getenv(lockVar) == "" {
		return nil
	}
	os.Unsetenv(lockVar) // it is not for the nodes and pods
	unix.CloseOnExec(lockFD)
	lock := os.NewFile(lockFD, filepath.Join(path, lockName))
	held, err := lock.Stat()
	present, missing := os.Stat(lock.Name())
	if err != nil || missing != nil || !os.SameFile(held, present) {
		lock.Close()
		return nil
	}
	return lock
}

// report passes on the lines that a cluster prints, up to the one with which it fails.
type report struct {
	out     io.Writer
	line    []byte // unfinished
	failing bool
	reason  strings.Builder
}

// failurePrefix is how the program begins its last words.
const failurePrefix = "middleway: "

func (r *report) Write(b []byte) (int, error) {
	r.line = append(r.line, b...)
	for {
		i := bytes.IndexByte(r.line, '\n')
		if i < 0 {
			return len(b), nil
		}
		line := string(r.line[:i+1])
		r.line = r.line[i+1:]
		r.failing = r.failing || strings.HasPrefix(line, failurePrefix)
		if r.failing {
			r.reason.WriteString(line)
			continue
		}
		if _, err := io.WriteString(r.out, line); err != nil {
			return len(b), err
		}
	}
}

// failure returns what was said last.
func (r *report) failure() error {
	reason := strings.TrimPrefix(strings.TrimSpace(r.reason.String()+string(r.line)), failurePrefix)
	if reason == "" {
		reason = "the cluster ended without a word"
	}
	return errors.New(reason)
}
