package proxy

import (
	"net"
	"net/netip"
	"sync"
)

// ownListener is an open listener whose clients the node itself serves. They count among the others (Config.MaxConns).
type ownListener struct{ tcpListener }

var _ net.Listener = (*ownListener)(nil)

func (s *ownListener) serve() { s.p.config.Serve(s) }

// Accept waits for the next client for whom there is room.
func (s *ownListener) Accept() (net.Conn, error) {
	for {
		c, err := s.l.AcceptTCP()
		if err != nil {
			return nil, err
		}
		client := addrPortOf(c.RemoteAddr()).Addr()
		if _, ok := s.p.tcp.enter(client); ok {
			return &ownConn{TCPConn: c, tcp: &s.p.tcp, client: client}, nil
		}
		reset(c)
	}
}

// Close is net.Listener's.
func (s *ownListener) Close() error { return s.l.Close() }

// Addr is net.Listener's.
func (s *ownListener) Addr() net.Addr { return s.l.Addr() }

// ownConn is a client's connection.
type ownConn struct {
	*net.TCPConn
	tcp    *tcpProxy
	client netip.Addr
	left   sync.Once
}

// Close is net.Conn's.
func (c *ownConn) Close() error {
	c.left.Do(func() { c.tcp.leave(c.client) })
	return c.TCPConn.Close()
}
