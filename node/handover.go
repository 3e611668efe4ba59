package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/proxy"
	"github.com/middleway-net/middleway/unixsock"
)

// A daemon that waits for the end of another one listens on this socket of the run directory. The one that ends sends it the sockets of its
// TCP listeners, each on a connection of its own: the listener as JSON, and the descriptor beside it. It goes on when that is answered by
// the connection's end. So clients of NodePorts and host ports wait for the next daemon, and are not refused.
const successorName = "successor.sock"

// How long the end of a daemon waits for its clients' connections to end, and for the next daemon to take a listener.
const (
	drainPatience = 500 * time.Millisecond
	leavePatience = 200 * time.Millisecond
)

func (n *Node) successorSocket() string { return filepath.Join(n.config.RunDir, successorName) }

// drain waits until ended has ended, and has clients find the next daemon, or until a part of the node has failed, when ctx ends.
func (n *Node) drain(ctx, ended context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-ended.Done():
	}
	ctx, cancel := context.WithTimeout(ctx, drainPatience)
	defer cancel()
	n.ways.proxy.Drain(ctx)
}

// leave gives a listener's socket, which is borrowed, to the daemon that waits for the end of this one, if there is one.
func (n *Node) leave(l proxy.Listener, socket int) error {
	c, err := net.Dial("unix", n.successorSocket())
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
		return nil
	}
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(leavePatience))
	text, err := json.Marshal(l)
	if err != nil {
		return err
	}
	conn := c.(*net.UnixConn)
	if err := errors.Join(unixsock.Send(conn, text, socket), conn.CloseWrite()); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, conn) // until the other one has it
	return err
}

// successor takes what a daemon leaves that ends.
type successor struct {
	listener *unixsock.Listener
	taken    chan []proxy.Left
}

// succeed listens for the daemon that is at work; nil where that is not possible, without which clients are refused for a moment.
func (n *Node) succeed() *successor {
	l, err := unixsock.Listen(n.successorSocket())
	if err != nil {
		n.log.Warn("clients of NodePorts are refused for a moment when the other daemon ends", "err", err)
		return nil
	}
	s := &successor{listener: l, taken: make(chan []proxy.Left, 1)}
	go func() {
		var all []proxy.Left
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				s.taken <- all
				return
			}
			if left, err := inherit(c); err == nil {
				all = append(all, left)
			} else {
				n.log.Warn("a listener of the other daemon cannot be taken", "err", err)
			}
		}
	}()
	return s
}

// end returns what has come.
func (s *successor) end() []proxy.Left {
	if s == nil {
		return nil
	}
	_ = s.listener.Close()
	return <-s.taken
}

// inherit reads one listener with its socket.
func inherit(c *net.UnixConn) (left proxy.Left, err error) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(leavePatience))
	if err := unixsock.CheckUser(c); err != nil {
		return left, err
	}
	r := unixsock.NewReader(c, 1)
	defer r.Close()
	text, err := io.ReadAll(io.LimitReader(r, 4096))
	if err != nil {
		return left, err
	}
	if err := json.Unmarshal(text, &left.Listener); err != nil {
		return left, err
	}
	fds := r.Take()
	if len(fds) != 1 {
		return left, fmt.Errorf("%v came without a socket", left.Listener)
	}
	left.Socket = os.NewFile(uintptr(fds[0]), left.Listener.String())
	return left, nil
}
