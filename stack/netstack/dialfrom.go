package netstack

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"golang.org/x/sys/unix"
)

// Spoof lets DialFrom send from any address, and receive for it. From then on packets to any address are taken that Deliver brings;
// segments that belong to no connection are answered by a reset. It is called once, before Run.
func (n *Netstack) Spoof() error {
	if err := n.stack.SetPromiscuousMode(nicID, true); err != nil {
		return fmt.Errorf("take any address: %w", toError(err))
	}
	if err := n.stack.SetSpoofing(nicID, true); err != nil {
		return fmt.Errorf("send from any address: %w", toError(err))
	}
	return nil
}

// netID returns the name of the connection between a local and a remote address.
func netID(local, remote netip.AddrPort) stack.TransportEndpointID {
	return stack.TransportEndpointID{
		LocalAddress: toAddress(local.Addr()), LocalPort: local.Port(),
		RemoteAddress: toAddress(remote.Addr()), RemotePort: remote.Port(),
	}
}

// DialFrom connects to an address from any other one, which need not be the node's: 127.0.0.1 and ::1 too. If another connection
// from the same port is open or was so a moment ago, another port is taken. It needs Spoof. The error is a unix.Errno where a
// client would see one.
func (n *Netstack) DialFrom(ctx context.Context, from, to netip.AddrPort) (*Conn, error) {
	c, err := n.dialFrom(ctx, from, to)
	if errors.Is(err, unix.EADDRINUSE) || errors.Is(err, unix.EADDRNOTAVAIL) {
		c, err = n.dialFrom(ctx, netip.AddrPortFrom(from.Addr(), 0), to)
	}
	if err != nil {
		return nil, fmt.Errorf("dial tcp %v from %v: %w", to, from.Addr(), err)
	}
	return c, nil
}

func (n *Netstack) dialFrom(ctx context.Context, from, to netip.AddrPort) (*Conn, error) {
	var wq waiter.Queue
	ep, e := n.stack.NewEndpoint(tcp.ProtocolNumber, networkOf(to.Addr()), &wq)
	if e != nil {
		return nil, toError(e)
	}
	c := newConn(n, ep, &wq)
	ep.SocketOptions().SetReuseAddress(true) // a client may have one port for many servers
	if err := connect(ctx, c, from, to); err != nil {
		n.conns.remove(c)
		c.Abort()
		return nil, err
	}
	return c, nil
}

func connect(ctx context.Context, c *Conn, from, to netip.AddrPort) error {
	if err := c.ep.Bind(toFullAddress(from)); err != nil {
		return toError(err)
	}
	at, err := c.ep.GetLocalAddress()
	if err != nil {
		return toError(err)
	}
	c.id = netID(netip.AddrPortFrom(from.Addr(), at.Port), to)
	c.n.conns.tryAdd(c)
	for {
		err := c.ep.Connect(toFullAddress(to))
		if errno := unix.Errno(c.failure.Load()); errno != 0 {
			return errno
		}
		switch err.(type) {
		case nil:
			c.open.Store(true)
			return nil
		case *tcpip.ErrConnectStarted:
			c.n.conns.add(c) // no other one has its name now
		case *tcpip.ErrAlreadyConnecting:
		default:
			return toError(err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.writable:
		}
	}
}

func toAddr(a tcpip.Address) netip.Addr {
	addr, _ := netip.AddrFromSlice(a.AsSlice())
	return addr
}
