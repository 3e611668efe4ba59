package remote

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

// Greeting is what `middleway relay` writes first, once it has the daemon's socket.
const Greeting = "middleway relay 1\n"

// Dial connects to a daemon's socket. ctx bounds how long it takes; the connection lasts until it is closed or lost. It has no
// deadlines.
func (c *Cluster) Dial(ctx context.Context, d Daemon) (net.Conn, error) {
	command := []string{program, "relay"}
	if d.runDir != "" {
		command = append(command, "--run-dir", d.runDir)
	}
	under, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stdin, toStdin := io.Pipe()
	fromStdout, stdout := io.Pipe()
	conn := &conn{daemon: d, in: bufio.NewReader(fromStdout), read: fromStdout, out: &frames{w: toStdin}, write: toStdin, cancel: cancel}
	conn.running.Go(func() { conn.out.beat(under.Done()) })
	conn.running.Go(func() {
		err := c.Exec(under, c.containerOf(d), command, Streams{Stdin: stdin, Stdout: stdout})
		_ = stdin.CloseWithError(io.ErrClosedPipe)
		_ = stdout.CloseWithError(err) // nil: io.EOF
	})
	dialing, done := context.WithTimeout(ctx, c.config.Timeout)
	defer done()
	stop := context.AfterFunc(dialing, cancel)
	err := conn.greeted()
	switch {
	case stop() && err == nil:
		return conn, nil
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case dialing.Err() != nil:
		err = fmt.Errorf("pod %s on node %s has not begun to answer within %v; is the node up, and does the API server reach its kubelet?", d.Pod, d.Node, c.config.Timeout)
	}
	_ = conn.Close()
	return nil, err
}

// Dialer returns Dial for one daemon.
func (c *Cluster) Dialer(d Daemon) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) { return c.Dial(ctx, d) }
}

// conn is the socket of a daemon at the other end of a command's standard streams.
type conn struct {
	daemon  Daemon
	in      *bufio.Reader
	read    *io.PipeReader
	out     *frames
	write   *io.PipeWriter
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// greeted waits for the greeting.
func (c *conn) greeted() error {
	line, err := c.in.ReadString('\n')
	var exit *ExitError
	switch {
	case err == nil && line == Greeting:
		return nil
	case errors.As(err, &exit) && strings.Contains(exit.Stderr, "unknown command"):
		return fmt.Errorf("pod %s on node %s runs a middleway that cannot be asked from outside; bring it to the version of this program", c.daemon.Pod, c.daemon.Node)
	case errors.As(err, &exit):
		return fmt.Errorf("pod %s on node %s: %s", c.daemon.Pod, c.daemon.Node, strings.TrimPrefix(exit.Error(), "middleway: "))
	case err == nil || errors.Is(err, io.EOF):
		return fmt.Errorf("pod %s on node %s answers %q, want %q; bring it to the version of this program", c.daemon.Pod, c.daemon.Node, line, Greeting)
	}
	return err
}

func (c *conn) Read(b []byte) (int, error)  { return c.in.Read(b) }
func (c *conn) Write(b []byte) (int, error) { return c.out.Write(b) }

// Close ends the command and returns when nothing of it is left here.
func (c *conn) Close() error {
	c.cancel()
	_ = c.write.CloseWithError(net.ErrClosed)
	_ = c.read.CloseWithError(net.ErrClosed)
	c.running.Wait()
	return nil
}

func (c *conn) LocalAddr() net.Addr              { return addr{"here"} }
func (c *conn) RemoteAddr() net.Addr             { return addr{c.daemon.Node} }
func (c *conn) SetDeadline(time.Time) error      { return os.ErrNoDeadline }
func (c *conn) SetReadDeadline(time.Time) error  { return os.ErrNoDeadline }
func (c *conn) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }

// addr is a node's name as an address.
type addr struct{ node string }

func (addr) Network() string  { return "exec" }
func (a addr) String() string { return a.node }
