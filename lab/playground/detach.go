package playground

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// DetachConfig describes a cluster that goes on when its terminal has gone.
type DetachConfig struct {
	Dir   string    // the state directory
	Args  []string  // of this program, which bring the cluster up in the foreground
	Stdin *os.File  // for a manifest; nil for none
	Out   io.Writer // gets what the cluster prints until it is up
}

// Detach starts this program again in a session of its own, with what it prints in up.log, and returns when its cluster is up.
// The error of one that does not come up is the one that it printed.
func Detach(ctx context.Context, c DetachConfig) error {
	d, err := openDirectory(c.Dir) // what would keep the cluster out is said before anything is written there
	if err != nil {
		return err
	}
	if err := d.clear(lockName); err != nil {
		return errors.Join(err, d.lock.Close())
	}
	log, err := os.OpenFile(d.join(logName), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err := errors.Join(err, d.lock.Close()); err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = append([]string{os.Args[0]}, c.Args...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, "/"
	if c.Stdin != nil {
		cmd.Stdin = c.Stdin
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	log.Close()
	if err != nil {
		return fmt.Errorf("start in the background: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	return followStart(ctx, c, cmd, ended)
}

// followStart copies what the cluster prints until it is up, or has ended.
func followStart(ctx context.Context, c DetachConfig, cmd *exec.Cmd, ended <-chan error) error {
	log, err := os.Open(filepath.Join(c.Dir, logName))
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	defer log.Close()
	said := &report{out: c.Out}
	for interrupted := ctx.Done(); ; {
		select {
		case <-ended:
			if _, err := io.Copy(said, log); err != nil {
				return fmt.Errorf("read log: %w", err)
			}
			forget(c.Dir)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return said.failure()
		case <-interrupted:
			interrupted = nil
			_ = cmd.Process.Signal(syscall.SIGTERM) // it has ended otherwise
		case <-time.After(20 * time.Millisecond):
		}
		st, err := ReadStatus(context.WithoutCancel(ctx), c.Dir)
		up := err == nil && st.PID == cmd.Process.Pid && st.State == Running
		if _, err := io.Copy(said, log); err != nil {
			return fmt.Errorf("read log: %w", err)
		}
		if up && ctx.Err() == nil {
			return nil
		}
	}
}

// forget removes the log of a cluster that did not come up, with the directory if it is empty then.
func forget(dir string) {
	if d, err := lockDirectory(dir, 0); err == nil {
		_ = d.remove() // nobody else has it
		return
	}
	_ = os.Remove(filepath.Join(dir, logName)) // it may be gone already
	_ = os.Remove(dir)
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
