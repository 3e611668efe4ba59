package proxy

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"

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
