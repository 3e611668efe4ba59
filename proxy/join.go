package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/netstack"
)

// joinBuffer is what each direction of a connection has under way in the proxy, in bytes; one that waits has none.
const joinBuffer = 64 << 10

var joinBuffers = sync.Pool{New: func() any { return new([joinBuffer]byte) }}

// joined is a connection in the cluster and one of the node's sockets: what comes on one goes out on the other, and so do its end and its
// reset.
type joined struct {
	client  netip.Addr
	pod     *netstack.Conn
	host    *net.TCPConn
	aborted atomic.Bool

	// Of watch alone.
	sent, received uint64 // segments, when some were received last
	unanswered     int    // looks since then at which some were sent
	forsaken       bool   // its backend serves no longer
}

// Between two looks at the connections, and at how many of them one must not have answered to be taken for dead: up to 20 s. TCP's own
// user timeout would also end those whose pod is alive and does not read (RFC 5482).
const (
	watchInterval = 4 * time.Second
	deadAfter     = 4
)

// recheckPause is the least time between two looks for backends that serve no longer: Services may change many times a second, and each look
// takes some milliseconds where connections are many.
const recheckPause = 250 * time.Millisecond

// dead reports whether the other end in the cluster is gone: since it was heard last, segments were sent, time and again. One that waits
// for room answers, and one that has nothing to say is asked (keepAliveIdle).
func (j *joined) dead() bool {
	sent, received := j.pod.Segments()
	if received != j.received {
		j.sent, j.received, j.unanswered = sent, received, 0
	} else if sent != j.sent {
		j.unanswered++
	}
	return j.unanswered >= deadAfter
}

// watch resets connections whose end in the cluster is gone, until ctx ends.
func (t *tcpProxy) watch(ctx context.Context) {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	recheck := t.recheck
	var again <-chan time.Time
	for {
		look := t.lookAfter
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-recheck:
			look = t.lookForsaken
			recheck, again = nil, time.After(recheckPause)
		case <-again:
			recheck = t.recheck
			continue
		}
		t.mu.Lock()
		for j := range t.conns {
			look(j)
		}
		t.mu.Unlock()
	}
}

func (t *tcpProxy) lookAfter(j *joined) {
	switch {
	case j.dead():
		j.abort()
	case j.forsaken:
		j.pod.Ask()
	}
}

// lookForsaken has a backend asked that serves no longer: it may be gone, or drain, or have other labels now.
func (t *tcpProxy) lookForsaken(j *joined) {
	_, serves := t.p.backend(j.pod.Local(), j.pod.Remote())
	if !serves && !j.forsaken {
		j.pod.Ask()
	}
	j.forsaken = !serves
}

// join moves data between two connections until both directions have ended or one connection broke, and closes both.
func (t *tcpProxy) join(j *joined) {
	defer j.pod.Close()
	if t.keep(j) != nil {
		j.abort()
		return
	}
	defer t.release(j)
	t.count.joined.Add(1)
	up := make(chan struct{})
	go func() {
		defer close(up)
		j.abortOn(j.toHost())
		_ = j.host.SetReadDeadline(time.Unix(1, 0)) // toPod waits for no more
	}()
	j.abortOn(j.toPod())
	<-up
	_ = j.host.Close()
	if j.aborted.Load() {
		t.count.reset.Add(1)
	}
}

// keep notes a connection, so that it can be aborted.
func (t *tcpProxy) keep(j *joined) error {
	if err := errors.Join(j.pod.KeepAlive(keepAliveIdle, keepAliveInterval, keepAliveCount), j.host.SetKeepAliveConfig(hostKeepAlive)); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return net.ErrClosed
	}
	t.conns[j] = struct{}{}
	return nil
}

func (t *tcpProxy) release(j *joined) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.conns, j)
}

// abort resets both connections.
func (j *joined) abort() {
	j.aborted.Store(true)
	j.pod.Abort()
	reset(j.host)
}

func (j *joined) abortOn(err error) {
	if err != nil {
		j.abort()
	}
}

// toPod moves what the host's socket receives, until that ends. It then stays until the connection is over, see toHost.
func (j *joined) toPod() error {
	r, err := newReceiver(j.host)
	if err != nil {
		return err
	}
	for {
		b, err := r.receive()
		for left := (bytesLeft{b}); len(left.b) > 0; {
			if _, err := j.pod.Send(&left, len(left.b)); err != nil {
				return err
			}
		}
		r.release()
		if err == io.EOF {
			if err := j.pod.CloseWrite(); err != nil {
				return err
			}
			return r.wait()
		}
		if err != nil {
			return err
		}
	}
}

// toHost moves what the connection in the cluster receives, until that ends. It then stays until the connection is over, which may
// still be reset while the other direction has nothing to say.
func (j *joined) toHost() error {
	for {
		var w room
		_, err := j.pod.Receive(&w)
		if err == io.EOF {
			if err := j.host.CloseWrite(); err != nil {
				return err
			}
			return j.pod.Wait()
		}
		if err != nil {
			return err
		}
		_, err = j.host.Write(w.buf[:w.n])
		joinBuffers.Put(w.buf)
		if err != nil {
			return err
		}
	}
}

// receiver reads from a socket, with a buffer only while there is something to read.
type receiver struct {
	raw syscall.RawConn
	try func(fd uintptr) bool // of the type that raw wants, made once
	buf *[joinBuffer]byte     // nil: none
	n   int
	err error
}

func newReceiver(c *net.TCPConn) (*receiver, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	r := &receiver{raw: raw}
	r.try = r.tryOnce
	return r, nil
}

// receive waits for data; what it returns is good until release. The error is io.EOF once there is no more.
func (r *receiver) receive() ([]byte, error) {
	if err := r.raw.Read(r.try); err != nil {
		return nil, err
	}
	if r.err != nil {
		return nil, r.err
	}
	if r.n == 0 {
		return nil, io.EOF
	}
	return r.buf[:r.n], nil
}

func (r *receiver) tryOnce(fd uintptr) bool {
	r.buf = joinBuffers.Get().(*[joinBuffer]byte)
	for {
		r.n, r.err = unix.Read(int(fd), r.buf[:])
		if r.err != unix.EINTR {
			break
		}
	}
	if r.err == unix.EAGAIN {
		r.release()
		return false
	}
	return true
}

// wait blocks until the socket is reset, or until its read deadline, which is no error.
func (r *receiver) wait() error {
	var failed error
	err := r.raw.Read(func(fd uintptr) bool {
		failed = pendingError(fd)
		return failed != nil
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return errors.Join(err, failed)
}

// release gives the buffer back.
func (r *receiver) release() {
	if r.buf != nil {
		joinBuffers.Put(r.buf)
		r.buf = nil
	}
}

// bytesLeft reads what is left of a slice.
type bytesLeft struct{ b []byte }

func (l *bytesLeft) Read(b []byte) (int, error) {
	n := copy(b, l.b)
	l.b = l.b[n:]
	return n, nil
}

// room takes what fits into a buffer, which it has once there is something.
type room struct {
	buf *[joinBuffer]byte
	n   int
}

func (r *room) Write(b []byte) (int, error) {
	if r.buf == nil {
		r.buf = joinBuffers.Get().(*[joinBuffer]byte)
	}
	n := copy(r.buf[r.n:], b)
	if r.n += n; n < len(b) {
		return n, io.ErrShortWrite
	}
	return n, nil
}
