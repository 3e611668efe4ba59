package netstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// Listen accepts TCP connections to one of the node's addresses. Close of the listener ends a blocked Accept with
// net.ErrClosed. Connections have a CloseWrite method.
func (n *Netstack) Listen(addr netip.AddrPort) (net.Listener, error) {
	l, err := gonet.ListenTCP(n.stack, toFullAddress(addr), networkOf(addr.Addr()))
	if err != nil {
		return nil, fmt.Errorf("listen on tcp %v: %w", addr, err)
	}
	return listener{l}, nil
}

// ListenPacket receives UDP datagrams to one of the node's addresses, and sends from it. Addresses to send to are
// *net.UDPAddr. Close does not end a blocked ReadFrom, SetReadDeadline does.
func (n *Netstack) ListenPacket(addr netip.AddrPort) (net.PacketConn, error) {
	at := toFullAddress(addr)
	c, err := gonet.DialUDP(n.stack, &at, nil, networkOf(addr.Addr()))
	if err != nil {
		return nil, fmt.Errorf("listen on udp %v: %w", addr, err)
	}
	return c, nil
}

// DialTCP connects to addr from the node's address. The connection has a CloseWrite method.
func (n *Netstack) DialTCP(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	c, err := gonet.DialContextTCP(ctx, n.stack, toFullAddress(addr), networkOf(addr.Addr()))
	if err != nil {
		return nil, fmt.Errorf("dial tcp %v: %w", addr, err)
	}
	return c, nil
}

// DialUDP connects a UDP socket of the node's address to addr. A refusal by addr fails the next Read or Write.
func (n *Netstack) DialUDP(addr netip.AddrPort) (net.Conn, error) {
	to := toFullAddress(addr)
	c, err := gonet.DialUDP(n.stack, nil, &to, networkOf(addr.Addr()))
	if err != nil {
		return nil, fmt.Errorf("dial udp %v: %w", addr, err)
	}
	return c, nil
}

// listener is a gonet listener whose Close ends Accept.
type listener struct{ *gonet.TCPListener }

func (l listener) Accept() (net.Conn, error) {
	c, err := l.TCPListener.Accept()
	if err != nil {
		return nil, fmt.Errorf("accept: %w", errors.Join(net.ErrClosed, err))
	}
	return c, nil
}

func (l listener) Close() error {
	l.Shutdown()
	return l.TCPListener.Close()
}

func networkOf(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Unmap().Is4() {
		return header.IPv4ProtocolNumber
	}
	return header.IPv6ProtocolNumber
}

func toAddress(a netip.Addr) tcpip.Address { return tcpip.AddrFromSlice(a.Unmap().AsSlice()) }

func toFullAddress(a netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nicID, Addr: toAddress(a.Addr()), Port: a.Port()}
}

// toError makes an error of gVisor's, an errno where callers know one.
func toError(err tcpip.Error) error {
	switch err.(type) {
	case nil:
		return nil
	case *tcpip.ErrPortInUse:
		return unix.EADDRINUSE
	case *tcpip.ErrBadLocalAddress:
		return unix.EADDRNOTAVAIL
	case *tcpip.ErrDuplicateAddress:
		return unix.EEXIST
	case *tcpip.ErrConnectionRefused:
		return unix.ECONNREFUSED
	case *tcpip.ErrConnectionReset, *tcpip.ErrAborted, *tcpip.ErrConnectionAborted:
		return unix.ECONNRESET
	case *tcpip.ErrTimeout:
		return unix.ETIMEDOUT
	case *tcpip.ErrHostUnreachable:
		return unix.EHOSTUNREACH
	case *tcpip.ErrNetworkUnreachable:
		return unix.ENETUNREACH
	}
	return errors.New(err.String())
}
