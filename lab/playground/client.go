package playground

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/node"
)

// ErrNotRunning is the error of asking a cluster that does not run.
var ErrNotRunning = errors.New("no cluster runs")

// Hint returns a command as a person would type it for the cluster of a state directory.
func Hint(verb, dir string) string {
	verb, rest, _ := strings.Cut(verb, " ")
	if path, err := filepath.Abs(dir); err == nil && path != DefaultDir() {
		verb += " --dir " + path
	}
	return "`" + strings.TrimSpace("middleway "+verb+" "+rest) + "`"
}

// unreachable tells why nothing answers in a directory.
func unreachable(dir string) error {
	_, left, err := remains(dir)
	if err != nil || !left {
		return fmt.Errorf("%w in %s; %s starts one", ErrNotRunning, dir, Hint("up", dir))
	}
	if _, err := os.Stat(filepath.Join(dir, ownerName)); err == nil {
		if _, alive := readOwner(dir); !alive {
			return fmt.Errorf("the cluster in %s crashed; %s clears up", dir, Hint("down", dir))
		}
	}
	return fmt.Errorf("the cluster in %s does not answer: it starts or ends, or has crashed; %s takes down what there is", dir, Hint("down", dir))
}

// dial connects to the cluster of a state directory; ErrNotRunning by errors.Is if nothing answers.
func dial(ctx context.Context, dir string) (*net.UnixConn, error) {
	if err := node.CheckRunDir(dir); err != nil {
		return nil, err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(dir, socketName))
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ENOTDIR):
		return nil, unreachable(dir)
	case errors.Is(err, unix.EACCES):
		return nil, fmt.Errorf("the cluster in %s is another user's; run this as that user: %w", dir, err)
	case err != nil:
		return nil, fmt.Errorf("connect to the cluster in %s: %w", dir, err)
	}
	return conn.(*net.UnixConn), nil
}

// ask sends a request and returns its one reply.
func ask(ctx context.Context, dir string, v verb) (reply, error) {
	conn, err := dial(ctx, dir)
	if err != nil {
		return reply{}, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := sendRequest(conn, request{Verb: v}); err != nil {
		return reply{}, fmt.Errorf("ask the cluster in %s: %w", dir, err)
	}
	return receiveReply(conn, dir)
}

func receiveReply(from io.Reader, dir string) (reply, error) {
	var r reply
	switch err := readFrame(from, &r); {
	case err != nil:
		return r, fmt.Errorf("the cluster in %s gave no answer: %w", dir, err)
	case r.Version != protocolVersion:
		return r, errProtocol
	case r.Error != "":
		return r, errors.New(r.Error)
	}
	return r, nil
}

// ReadStatus asks the cluster of a state directory.
func ReadStatus(ctx context.Context, dir string) (Status, error) {
	r, err := ask(ctx, dir, verbStatus)
	if err == nil && r.Status == nil {
		err = errProtocol
	}
	if err != nil {
		return Status{}, err
	}
	return *r.Status, nil
}

// downWait bounds an orderly end: pods have up to maxGrace, at the same time, and the plugin and the daemons a little more.
const downWait = maxGrace + 30*time.Second

// Outcome is what Down has done.
type Outcome string

// What there was to do.
const (
	NothingThere Outcome = "no cluster runs"
	TakenDown    Outcome = "took down the cluster"
	ClearedUp    Outcome = "cleared up after the cluster that had crashed or hung"
)

// Down takes down the cluster of a state directory and returns when nothing of it is left. Where it crashed, hangs or was
// killed, its processes are killed and its files removed.
func Down(ctx context.Context, dir string) (Outcome, error) {
	if err := node.CheckRunDir(dir); err != nil {
		return "", err
	}
	o, owned := readOwner(dir)
	asked, cancel := context.WithTimeout(ctx, downWait)
	defer cancel()
	_, err := ask(asked, dir, verbDown)
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if err == nil {
		if owned {
			err = o.end()
		}
		return TakenDown, err
	}
	_, left, err := remains(dir)
	switch {
	case owned && errors.Is(err, fs.ErrNotExist): // it has gone while it was asked
		return TakenDown, o.end()
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR), err == nil && !left:
		return NothingThere, nil
	case err != nil:
		return "", fmt.Errorf("take down the cluster in %s: %w", dir, err)
	}
	return clearCrashed(dir)
}

// clearCrashed takes down a cluster that does not answer.
func clearCrashed(dir string) (Outcome, error) {
	if o, ok := readOwner(dir); ok {
		if err := o.end(); err != nil {
			return "", err
		}
	}
	d, err := waitUnlocked(dir, crashWait)
	switch {
	case errors.Is(err, errRuns):
		return "", fmt.Errorf("the cluster in %s does not answer, and no process of it is known; end the one that holds %s (`fuser %[2]s` finds it)",
			dir, filepath.Join(dir, lockName))
	case errors.Is(err, fs.ErrNotExist):
		return TakenDown, nil // it ended by itself meanwhile
	case err != nil:
		return "", fmt.Errorf("take down the cluster in %s: %w", dir, err)
	}
	return ClearedUp, d.remove()
}

// crashWait is how long a process has to end whose cluster has ended, and the kernel to end those of a crashed one.
const crashWait = 5 * time.Second

// end waits for the process, and kills it where it does not end by itself; with it the kernel kills all others.
func (o owner) end() error {
	for end := time.Now().Add(crashWait); o.alive(); time.Sleep(10 * time.Millisecond) {
		if time.Now().Before(end) {
			continue
		}
		if err := syscall.Kill(o.PID, syscall.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill process %d of the cluster: %w", o.PID, err)
		}
		return nil
	}
	return nil
}
