package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/middleway-net/middleway/stack/netstack"
)

// joinBuffer is what each direction of a connection has under way in the proxy, in bytes.
const joinBuffer = 64 << 10

var joinBuffers = sync.Pool{New: func() any { return new([joinBuffer]byte) }}

// joined is a connection in the cluster and one of the node's sockets: what comes on one goes out on the other, and so do its end and its
// reset.
type joined struct {
	client netip.Addr
	pod    *netstack.Conn
	host   *net.TCPConn

	// Of watch alone.
	sent, received uint64 // segments, when some were received last
	unanswered     int    // looks since then at which some were sent
}

// Between two looks at the connections, and at how many of them one must not have answered to be taken for dead: up to 20 s. TCP's own
// user timeout would also end those whose pod is alive and does not read (RFC 5482).
const (
	watchInterval = 4 * time.Second
	deadAfter     = 4
)

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
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		t.mu.Lock()
		for j := range t.conns {
			if j.dead() {
				j.abort()
			}
		}
		t.mu.Unlock()
	}
}

// join moves data between two connections until both directions have ended or one connection broke, and closes both.
func (t *tcpProxy) join(j *joined) {
	defer j.pod.Close()
	if t.keep(j) != nil {
		j.abort()
		return
	}
	defer t.release(j)
	up := make(chan error, 1)
	go func() { up <- j.abortOn(j.toHost()) }()
	err := errors.Join(j.abortOn(j.toPod()), <-up)
	if err == nil {
		_ = j.pod.Wait()
	}
	_ = j.host.Close()
}

// keep notes a connection, so that it can be aborted.
func (t *tcpProxy) keep(j *joined) error {
	if err := j.pod.KeepAlive(keepAliveIdle, keepAliveInterval, keepAliveCount); err != nil {
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
	j.pod.Abort()
	reset(j.host)
}

func (j *joined) abortOn(err error) error {
	if err != nil {
		j.abort()
	}
	return err
}

// toPod moves what the host's socket receives, until that ends.
func (j *joined) toPod() error {
	buf := joinBuffers.Get().(*[joinBuffer]byte)
	defer joinBuffers.Put(buf)
	for {
		n, err := j.host.Read(buf[:])
		for r := (bytesLeft{buf[:n]}); len(r.b) > 0; {
			if _, err := j.pod.Send(&r, len(r.b)); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return j.pod.CloseWrite()
		}
		if err != nil {
			return err
		}
	}
}

// toHost moves what the connection in the cluster receives, until that ends.
func (j *joined) toHost() error {
	buf := joinBuffers.Get().(*[joinBuffer]byte)
	defer joinBuffers.Put(buf)
	for {
		w := room{buf[:], 0}
		n, err := j.pod.Receive(&w)
		if err == io.EOF {
			return j.host.CloseWrite()
		}
		if err != nil {
			return err
		}
		if _, err := j.host.Write(buf[:n]); err != nil {
			return err
		}
	}
}

// bytesLeft reads what is left of a slice.
type bytesLeft struct{ b []byte }

func (l *bytesLeft) Read(b []byte) (int, error) {
	n := copy(b, l.b)
	l.b = l.b[n:]
	return n, nil
}

// room takes what fits into a slice.
type room struct {
	b []byte
	n int
}

func (r *room) Write(b []byte) (int, error) {
	n := copy(r.b[r.n:], b)
	if r.n += n; n < len(b) {
		return n, io.ErrShortWrite
	}
	return n, nil
}
