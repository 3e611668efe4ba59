package perf

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// DefaultPort is where a server listens unless it is told otherwise.
const DefaultPort = 5210

// Server receives and answers the load of clients, one test at a time.
type Server struct {
	// Inside runs a func in the network namespace that the listener is in, on a thread of its own, for example
	// (*lab.Namespace).Do. Default: where the process is.
	Inside func(func() error) error
	// StreamPort is the port at which streams of TCP arrive. Default: one that is free.
	StreamPort uint16
	// Doors run a func in further network namespaces, on threads of their own, where streams of TCP arrive as well, at all addresses:
	// the other pods of a Service. They need a StreamPort. Default: none.
	Doors []func(func() error) error
	// Tested is told of each test after its end; calls come one at a time. Default: nobody is.
	Tested func(client net.Addr, t Test, err error)

	testing sync.Mutex // held by the one test
	conns   connGroup
}

// errBusy is what a client hears that comes while another's test runs.
var errBusy = errors.New("another test is running, try again after it")

// Serve answers on a TCP listener, which is owned, until ctx ends, and returns after everything that it started has. A server
// serves once.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer func() {
		stop()
		_ = l.Close()
		s.conns.close()
	}()
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = conn.Close()
			}
			return nil
		}
		if err != nil {
			return err
		}
		s.conns.start(conn, func() { s.answer(ctx, newControl(conn)) })
	}
}

// answer carries out the test of one client, from the first message on.
func (s *Server) answer(ctx context.Context, c *control) {
	_ = c.conn.SetDeadline(time.Now().Add(patience))
	m, err := c.receive()
	switch {
	case err != nil:
		c.refuse(err)
		return
	case m.Open == nil:
		c.refuse(errors.New("want what to open"))
		return
	case !s.testing.TryLock():
		c.refuse(errBusy)
		return
	}
	defer s.testing.Unlock()
	t := m.Open.withDefaults()
	if err = s.receive(ctx, c, t); err != nil {
		c.refuse(err)
	}
	if s.Tested != nil && ctx.Err() == nil {
		s.Tested(c.conn.RemoteAddr(), t, err)
	}
}

// refuse says what is wrong, if anybody listens.
func (c *control) refuse(err error) {
	why := err.Error()
	why = why[:min(len(why), maxMessage/8)] // JSON may need six bytes for one
	_ = c.conn.SetDeadline(time.Now().Add(patience))
	_ = c.send(message{Error: &why})
}

// connGroup is connections with a goroutine each.
type connGroup struct {
	running sync.WaitGroup
	mu      sync.Mutex
	conns   map[net.Conn]struct{}
}

// start runs f and then closes the connection.
func (g *connGroup) start(conn net.Conn, f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.conns == nil {
		g.conns = map[net.Conn]struct{}{}
	}
	g.conns[conn] = struct{}{}
	g.running.Go(func() {
		f()
		g.mu.Lock()
		delete(g.conns, conn)
		g.mu.Unlock()
		_ = conn.Close()
	})
}

// close closes all connections and waits for their goroutines.
func (g *connGroup) close() {
	g.mu.Lock()
	for conn := range g.conns {
		_ = conn.Close()
	}
	g.mu.Unlock()
	g.running.Wait()
}
