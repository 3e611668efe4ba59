package proxy

import (
	"context"
	"net/netip"

	"github.com/middleway-net/middleway/stack/packet"
)

// UDPStats are counters of UDP.
type UDPStats struct {
	// Open are the flows that are open, egress and from listeners together.
	Open int `json:"open"`
}

// udpProxy moves datagrams.
type udpProxy struct{ p *Proxy }

func (u *udpProxy) init(p *Proxy) { u.p = p }

func (u *udpProxy) run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

func (u *udpProxy) deliver([]byte, *packet.Parsed, packet.Offload) {}

func (u *udpProxy) forget(netip.Addr) {}

func (u *udpProxy) stats() UDPStats { return UDPStats{} }
