package tool

import (
	"errors"
	"io"
	"net"
	"sync"
)

// Echo sends back what it receives, by TCP or UDP, until Close.
type Echo struct {
	listener io.Closer
	done     chan struct{}
	err      error // why it takes no more, once done is closed
	wg       sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool // nil after Close
}

// EchoStreams answers on a listener, which is owned.
func EchoStreams(l net.Listener) *Echo {
	e := &Echo{listener: l, done: make(chan struct{}), conns: map[net.Conn]bool{}}
	e.wg.Go(func() {
		defer close(e.done)
		for {
			c, err := l.Accept()
			if err != nil {
				e.err = err
				return
			}
			if e.keep(c) {
				e.wg.Go(func() { defer e.drop(c); _, _ = io.Copy(c, c) }) // until either end closes it
			}
		}
	})
	return e
}

// EchoDatagrams answers on a socket, which is owned.
func EchoDatagrams(c net.PacketConn) *Echo {
	e := &Echo{listener: c, done: make(chan struct{})}
	e.wg.Go(func() {
		defer close(e.done)
		for buf := make([]byte, 1<<16); ; {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				e.err = err
				return
			}
			_, _ = c.WriteTo(buf[:n], from) // as with any datagram nobody promises that it arrives
		}
	})
	return e
}

// Done is closed when the server takes no more: after Close, or because its socket failed, as Close then says.
func (e *Echo) Done() <-chan struct{} { return e.done }

// Close ends the server and its connections.
func (e *Echo) Close() error {
	err := e.listener.Close()
	e.mu.Lock()
	for c := range e.conns {
		c.Close()
	}
	e.conns = nil
	e.mu.Unlock()
	e.wg.Wait()
	if !errors.Is(e.err, net.ErrClosed) {
		return e.err
	}
	return err
}

// keep reports whether the connection may live; after Close it may not.
func (e *Echo) keep(c net.Conn) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.conns == nil {
		c.Close()
		return false
	}
	e.conns[c] = true
	return true
}

func (e *Echo) drop(c net.Conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.conns, c)
	c.Close()
}
