package proxy

import (
	"context"
	"net/netip"

	"github.com/middleway-net/middleway/stack/packet"
)

// EchoStats are counters of ICMP echo.
type EchoStats struct {
	// Open are the flows that are open.
	Open int `json:"open"`
}

// echoProxy moves ICMP echo.
type echoProxy struct{ p *Proxy }

func (e *echoProxy) init(p *Proxy) { e.p = p }

func (e *echoProxy) run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

func (e *echoProxy) deliver([]byte, *packet.Parsed, packet.Offload) {}

func (e *echoProxy) forget(netip.Addr) {}

func (e *echoProxy) stats() EchoStats { return EchoStats{} }
