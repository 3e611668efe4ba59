package node

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/proxy"
	"github.com/middleway-net/middleway/stack/dns"
)

var _ dns.Dialer = dialer{}

// dialer connects sockets that somebody else makes, of TCP and UDP.
type dialer struct{ sockets proxy.Sockets }

// DialContext connects to an address and port, as net.Dialer does.
func (d dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	typ := map[string]int{"tcp": unix.SOCK_STREAM, "udp": unix.SOCK_DGRAM}[network]
	if typ == 0 {
		return nil, fmt.Errorf("dial %s: %w", address, net.UnknownNetworkError(network))
	}
	c, err := proxy.Dial(ctx, d.sockets, typ, to)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	return c, nil
}
