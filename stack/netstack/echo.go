package netstack

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"
)

// EchoPort is the echo service's (RFC 862).
const EchoPort = 7

const (
	// maxEchoConns bounds the TCP connections of one address; further ones are closed at once.
	maxEchoConns = 64
	// echoIdle ends a TCP connection on which nothing moved for so long.
	echoIdle = time.Minute
	// echoBuffer takes any datagram.
	echoBuffer = 64 << 10
	// reservedPorts: datagrams from ports below are not echoed (inetd's rule). Two echo services, or one and its own forged
	// address, would answer each other for ever.
	reservedPorts = 1024
)

// ServeEcho sends back what it receives over UDP and TCP, on every address of the node, until ctx ends; it returns after
// all its goroutines have ended. Port 0 stands for EchoPort. It answers "is the node's own stack reachable" with a real
// connection, where ping shows only that packets come back.
func (n *Netstack) ServeEcho(ctx context.Context, port uint16) error {
	if port == 0 {
		port = EchoPort
	}
	g, serving := errgroup.WithContext(ctx)
	for _, a := range n.addrs {
		addr := netip.AddrPortFrom(a, port)
		g.Go(func() error { return n.echoDatagrams(serving, addr) })
		g.Go(func() error { return n.echoConns(serving, addr) })
	}
	err := g.Wait()
	if ctx.Err() != nil {
		return nil // Run may have closed the sockets before serving was told
	}
	return err
}

func (n *Netstack) echoDatagrams(ctx context.Context, addr netip.AddrPort) error {
	c, err := n.ListenPacket(addr)
	if err != nil {
		return fmt.Errorf("serve echo: %w", err)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })()
	b := make([]byte, echoBuffer)
	for {
		k, from, err := c.ReadFrom(b)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("serve echo on udp %v: %w", addr, err)
		}
		if from.(*net.UDPAddr).Port >= reservedPorts {
			_, _ = c.WriteTo(b[:k], from) // a datagram may be lost
		}
	}
}

func (n *Netstack) echoConns(ctx context.Context, addr netip.AddrPort) error {
	l, err := n.Listen(addr)
	if err != nil {
		return fmt.Errorf("serve echo: %w", err)
	}
	defer l.Close()
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	var conns errgroup.Group
	defer func() { _ = conns.Wait() }()
	conns.SetLimit(maxEchoConns)
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = c.Close()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("serve echo on tcp %v: %w", addr, err)
		}
		if !conns.TryGo(func() error { echo(ctx, c); return nil }) {
			_ = c.Close()
		}
	}
}

// echo sends back what c receives until the other side has sent all, nothing moves for echoIdle, or ctx ends. It takes
// ownership of c.
func echo(ctx context.Context, c net.Conn) {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	b := make([]byte, echoBuffer)
	for {
		_ = c.SetDeadline(time.Now().Add(echoIdle))
		if ctx.Err() != nil { // its deadline may have just been overwritten
			return
		}
		k, err := c.Read(b)
		if err != nil {
			return
		}
		if _, err := c.Write(b[:k]); err != nil {
			return
		}
	}
}
