package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Dial connects one of sockets, of TCP if typ is unix.SOCK_STREAM, of UDP if it is unix.SOCK_DGRAM, until ctx ends. An error that the
// kernel has told is a unix.Errno, by errors.As.
func Dial(ctx context.Context, sockets Sockets, typ int, to netip.AddrPort) (net.Conn, error) {
	proto := unix.IPPROTO_TCP
	if typ == unix.SOCK_DGRAM {
		proto = unix.IPPROTO_UDP
	}
	fd, err := sockets.Socket(domain(to.Addr().Is4()), typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoSocket, err)
	}
	if err := unix.Connect(fd, sockaddr(to)); err != nil && err != unix.EINPROGRESS {
		_ = unix.Close(fd)
		return nil, err
	}
	f := os.NewFile(uintptr(fd), to.String())
	defer f.Close() // FileConn has one of its own
	stop := context.AfterFunc(ctx, func() { _ = f.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := connected(f); err != nil {
		return nil, errors.Join(err, ctx.Err())
	}
	return net.FileConn(f)
}

// connected waits until a socket is connected, or returns why it is not.
func connected(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		if failed = pendingError(fd); failed != nil {
			return true
		}
		_, err := unix.Getpeername(int(fd))
		return err == nil
	})
	if err != nil {
		return err
	}
	return failed
}

// pendingError returns what happened to a socket.
func pendingError(fd uintptr) error {
	errno, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && errno != 0 {
		err = unix.Errno(errno)
	}
	return err
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}
