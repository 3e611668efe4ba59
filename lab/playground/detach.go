package playground

import (
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

// followStart copies the log until the cluster is up, or has ended.
func followStart(ctx context.Context, c DetachConfig, cmd *exec.Cmd, ended <-chan error) error {
	log, err := os.Open(filepath.Join(c.Dir, logName))
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	defer log.Close()
	for interrupted := ctx.Done(); ; {
		select {
		case <-ended:
			return startFailure(ctx, c, log)
		case <-interrupted:
			interrupted = nil
			_ = cmd.Process.Signal(syscall.SIGTERM) // it has ended otherwise
		case <-time.After(20 * time.Millisecond):
		}
		st, err := ReadStatus(context.WithoutCancel(ctx), c.Dir)
		up := err == nil && st.PID == cmd.Process.Pid && st.State == Running
		if _, err := io.Copy(c.Out, log); err != nil {
			return fmt.Errorf("read log: %w", err)
		}
		if up && ctx.Err() == nil {
			return nil
		}
	}
}

// startFailure returns what a cluster said last that did not come up, and removes its log.
func startFailure(ctx context.Context, c DetachConfig, log *os.File) error {
	rest, err := io.ReadAll(log)
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	if d, err := lockDirectory(c.Dir, 0); err == nil {
		_ = d.remove() // nobody else has it, and it may be gone already
	} else {
		_ = os.Remove(log.Name())
		_ = os.Remove(c.Dir)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	said := strings.TrimSpace(string(rest))
	before, reason, found := cutLast(said, "middleway: ")
	if !found {
		reason = said
	}
	fmt.Fprint(c.Out, before)
	if reason == "" {
		reason = "the cluster ended without a word"
	}
	return errors.New(reason)
}

// cutLast is strings.Cut at the last line that begins with prefix.
func cutLast(s, prefix string) (before, after string, found bool) {
	i := strings.LastIndex("\n"+s, "\n"+prefix)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(prefix):], true
}
