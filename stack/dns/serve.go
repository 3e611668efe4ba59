package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Limits of serving.
const (
	// maxConns bounds the TCP connections of one listener, and maxClientConns those of one client; further ones are closed at once.
	maxConns       = 256
	maxClientConns = 32
	// maxPending bounds the queries of one TCP connection that wait for other servers; then it is not read from.
	maxPending = 32
	// idleTimeout ends a TCP connection on which no query came for so long (RFC 7766, section 6.2.3: some seconds).
	idleTimeout = 10 * time.Second
	// writeTimeout ends the wait for a client that does not take its answer.
	writeTimeout = 2 * time.Second
)

// ServeUDP answers the queries that c receives, from the address of c, until ctx ends. It returns after all its goroutines have ended;
// c stays open. Queries that have to be asked upstream wait beside each other and keep no other back.
func (s *Server) ServeUDP(ctx context.Context, c net.PacketConn) error {
	defer context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })()
	var waiting errgroup.Group
	defer func() { _ = waiting.Wait() }()
	in, out := make([]byte, maxTCP), make([]byte, MaxUDP)
	for {
		k, from, err := c.ReadFrom(in)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) {
			return fmt.Errorf("serve dns on udp %v: %w", c.LocalAddr(), err)
		}
		if err != nil { // an ICMP error about an earlier answer
			pause(ctx, readPause)
			continue
		}
		client := addrOf(from)
		if n, ok := s.answer(out, in[:k], client, false); ok {
			send(c, out[:n], from)
			continue
		}
		msg := append([]byte(nil), in[:k]...)
		s.later(ctx, &waiting, msg, client, false, func(answer []byte) { send(c, answer, from) })
	}
}

// readPause keeps a socket that fails again and again from taking a processor.
const readPause = 10 * time.Millisecond

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// send sends a datagram, which may be lost.
func send(c net.PacketConn, b []byte, to net.Addr) {
	_ = c.SetWriteDeadline(time.Now().Add(writeTimeout))
	_, _ = c.WriteTo(b, to)
}

// addrOf returns the IP address of a client.
func addrOf(a net.Addr) netip.Addr {
	if a, ok := a.(interface{ AddrPort() netip.AddrPort }); ok {
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// ServeTCP answers the queries on the connections that l accepts until ctx ends. Answers may come in another order than their queries
// (RFC 7766, section 7). It returns after all its goroutines have ended, and closes l.
func (s *Server) ServeTCP(ctx context.Context, l net.Listener) error {
	defer l.Close()
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	var conns errgroup.Group
	defer func() { _ = conns.Wait() }()
	open := newShare(maxConns, maxClientConns)
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = c.Close()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("serve dns on tcp %v: %w", l.Addr(), err)
		}
		client := addrOf(c.RemoteAddr())
		if !open.take(client) {
			_ = c.Close()
			continue
		}
		conns.Go(func() error {
			defer open.give(client)
			s.serveConn(ctx, c, client)
			return nil
		})
	}
}

// serveConn answers the queries of a connection. It takes ownership of c.
func (s *Server) serveConn(ctx context.Context, c net.Conn, client netip.Addr) {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	var waiting errgroup.Group
	defer func() { _ = waiting.Wait() }()
	waiting.SetLimit(maxPending)
	w := &connWriter{conn: c}
	in, out := make([]byte, maxTCP), make([]byte, maxTCP)
	for ctx.Err() == nil {
		_ = c.SetReadDeadline(time.Now().Add(idleTimeout))
		msg, err := readMessage(c, in)
		if err != nil || ctx.Err() != nil {
			return
		}
		if n, ok := s.answer(out, msg, client, true); ok {
			w.write(out[:n])
			continue
		}
		s.later(ctx, &waiting, append([]byte(nil), msg...), client, true, w.write)
	}
}

// connWriter writes answers to a connection, each in one piece. A client that does not take one loses the connection.
type connWriter struct {
	mu   sync.Mutex
	conn net.Conn
}

func (w *connWriter) write(answer []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(answer)), uint16(len(answer)))
	_ = w.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := w.conn.Write(append(b, answer...)); err != nil {
		_ = w.conn.Close()
	}
}

// later answers a query, which it owns, by asking other servers, in a goroutine of the group, and hands the answer to reply. What is no query
// gets none.
func (s *Server) later(ctx context.Context, group *errgroup.Group, msg []byte, client netip.Addr, tcp bool, reply func([]byte)) {
	var q query
	if q.read(msg) != ask {
		return
	}
	size := MaxUDP
	if tcp {
		size = maxTCP
	}
	if !s.waiting.take(client) {
		s.stats.busy.Add(1)
		r := newReply(&q, make([]byte, MaxUDP), msg, MaxUDP)
		n, _ := s.finish(&r, ServFail, 0)
		reply(r.all[:n])
		return
	}
	group.Go(func() error {
		defer s.waiting.give(client)
		out := make([]byte, size)
		if n := s.resolve(ctx, out, msg, &q, client, tcp); n > 0 {
			reply(out[:n])
		}
		return nil
	})
}
