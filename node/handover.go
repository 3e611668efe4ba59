package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
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

// turn is how a daemon stands to another one that it finds at work.
type turn int

const (
	asks     turn = iota // for its turn: it was started while the other one was at work
	gaveWay              // it was asked itself, and waits for the other one's end
	couldNot             // work: it ends, and does not stand beside one that can
)

// A daemon asks for its turn as often, since the one at work may be about to begin, or another one by now, and waits for the answer as long. One
// that gave way has to have ended its work after givingWay, and leaves the run directory to the one that asked until that has it, but no longer
// than holdOff.
const (
	askEvery  = time.Second
	askFor    = time.Second
	givingWay = 5 * time.Second
	holdOff   = 2 * time.Second
)

// askForTurn asks the daemon at work to give way. Where that is of a version that does not, this one waits for its end.
func (n *Node) askForTurn(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	if err := In(n.config.RunDir).GiveWay(ctx); err != nil {
		n.log.Debug("the daemon at work does not give way", "err", err)
		return
	}
	n.granted.Store(true)
}

func (n *Node) serveGiveWay(w http.ResponseWriter, r *http.Request) {
	if !n.config.Kubernetes.hasAPI() {
		http.NotFound(w, r)
		return
	}
	n.log.Info("another daemon of this node asks for its turn; this one waits beside it")
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush() // before this server ends
	n.given.Store(true)
	n.giveWay()
}

// watchGivingWay ends the process if the daemon does not come to an end that has given way: its lock and its sockets are the other one's. What
// it returns stops the watch.
func (n *Node) watchGivingWay() (stop func() bool) {
	return time.AfterFunc(givingWay, func() {
		n.log.Error("this daemon has given way and does not come to an end; it is started again", "after", givingWay)
		os.Exit(1)
	}).Stop
}

// stepBack waits until the daemon that asked has the run directory: it does not listen for what this one leaves any more.
func (n *Node) stepBack(ctx context.Context) {
	for end := time.Now().Add(holdOff); n.awaited() && time.Now().Before(end) && wait(ctx, stateInterval); {
	}
}

// awaited reports whether another daemon waits for this one's end.
func (n *Node) awaited() bool {
	c, err := net.Dial("unix", n.successorSocket())
	if err != nil {
		return false
	}
	return c.Close() == nil
}

// relieved reports whether another daemon can take this one's place: one that gave way to it, or waits for its end.
func (n *Node) relieved() bool { return n.granted.Load() || n.awaited() }

// How long a daemon that was given its turn may take until it is ready, and how often it looks. It is less than what kubelet takes to find a
// pod not ready by an address at which both daemons' pods are asked (three times 5 s), and than minReadySeconds of the DaemonSet.
const (
	proveWithin = 8 * time.Second
	proveEvery  = 100 * time.Millisecond
)

// prove returns an error if this daemon was given its turn and is not as good as the one that gave it: ready, and told by the API server of
// all of the cluster.
func (n *Node) prove(ctx context.Context) error {
	if !n.granted.Load() {
		return nil
	}
	var err error
	for end := time.Now().Add(proveWithin); time.Now().Before(end); {
		if err = n.proof(); err == nil || !wait(ctx, proveEvery) {
			return nil
		}
	}
	return fmt.Errorf("this daemon was given its turn and is not ready after %v: %w; the former one takes its place again", proveWithin, err)
}

func (n *Node) proof() error {
	if err := n.readiness(); err != nil {
		return err
	}
	return n.cluster.synced()
}

func (n *Node) successorSocket() string { return filepath.Join(n.config.RunDir, successorName) }

// drain waits until ended has ended, and has clients find the next daemon, or until a part of the node has failed, when ctx ends.
func (n *Node) drain(ctx, ended context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-ended.Done():
	}
	if n.given.Load() {
		n.overdue = n.watchGivingWay()
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
			left, err := inherit(c)
			switch {
			case err == nil:
				all = append(all, left)
			case errors.Is(err, io.EOF): // it looked whether somebody is here
			default:
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
	if err == nil && len(text) == 0 {
		err = io.EOF
	}
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
