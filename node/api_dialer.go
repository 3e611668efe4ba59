package node

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/middleway-net/middleway/proxy"
)

// apiDialer connects a rootless node to the API server: from the node's own namespace, where a control plane in the same container is
// and an engine's network may lead out of it, and otherwise from outside of it.
type apiDialer struct{ outside proxy.Sockets }

// Bounds of a connection to the API server: a way that swallows what is sent must leave the other one its time.
const (
	dialInside  = 2 * time.Second
	dialOutside = 30 * time.Second
)

// DialContext connects to a host and port by TCP.
func (d apiDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	inside := net.Dialer{Timeout: dialInside}
	c, err := inside.DialContext(ctx, network, address)
	if err == nil {
		return c, nil
	}
	ctx, cancel := context.WithTimeout(ctx, dialOutside)
	defer cancel()
	c, outsideErr := d.dialOutside(ctx, address)
	if outsideErr != nil {
		return nil, errors.Join(err, outsideErr)
	}
	return c, nil
}

// dialOutside looks the host's name up outside, and tries its addresses in turn.
func (d apiDialer) dialOutside(ctx context.Context, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	out := dialer{d.outside}
	resolver := net.Resolver{PreferGo: true, Dial: out.DialContext}
	addrs, err := resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, a := range addrs {
		c, err := out.DialContext(ctx, "tcp", netip.AddrPortFrom(a.Unmap(), uint16(number)).String())
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}
