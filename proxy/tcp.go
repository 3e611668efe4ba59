package proxy

import (
	"context"
	"net/netip"
)

// DefaultMaxConns bounds a node's TCP connections with the outside.
const DefaultMaxConns = 16 << 10

// TCPStats are counters of TCP.
type TCPStats struct {
	// Open are the connections that are open, egress and from listeners together.
	Open int `json:"open"`
}

// tcpProxy joins TCP connections.
type tcpProxy struct{ p *Proxy }

func (t *tcpProxy) init(p *Proxy) { t.p = p }

func (t *tcpProxy) run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

func (t *tcpProxy) forget(netip.Addr) {}

func (t *tcpProxy) stats() TCPStats { return TCPStats{} }
