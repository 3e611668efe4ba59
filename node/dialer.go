package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

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
	domain, sockaddr := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()})
	if to.Addr().Is4() {
		domain, sockaddr = unix.AF_INET, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	fd, err := d.sockets.Socket(domain, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	f := os.NewFile(uintptr(fd), address)
	defer f.Close() // FileConn has one of its own
	err = unix.Connect(fd, sockaddr)
	if errors.Is(err, unix.EINPROGRESS) {
		err = awaitConnected(ctx, f)
	}
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	return net.FileConn(f)
}

// awaitConnected waits until a socket is connected, or ctx has ended.
func awaitConnected(ctx context.Context, f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		switch {
		case err != nil:
			failed = err
		case code != 0:
			failed = unix.Errno(code)
		default:
			_, err := unix.Getpeername(int(fd))
			return err == nil // else it is under way
		}
		return true
	})
	return errors.Join(failed, err, ctx.Err())
}
