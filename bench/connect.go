package bench

import (
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// conns are connections between the pods of a pair: from[i] and to[i] are the ends of one.
type conns struct{ from, to []*os.File }

func (c *conns) close() {
	for _, f := range append(c.from, c.to...) {
		_ = f.Close()
	}
}

// connect makes the connections of a load with blocking sockets, which Go's own are not.
func connect(p *Pair, l Load) (c *conns, err error) {
	if l.Streams > maxStreams {
		return nil, fmt.Errorf("load of %d streams: at most %d", l.Streams, maxStreams)
	}
	c = &conns{}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	var listener int
	var at unix.Sockaddr
	err = p.To.Do(func() error {
		if listener, err = streamSocket(p.Addr, l.Congestion); err != nil {
			return err
		}
		at, err = listenAt(listener, p.Addr)
		return err
	})
	if err != nil {
		return c, err
	}
	defer unix.Close(listener)
	for range l.Streams {
		err = p.From.Do(func() error {
			fd, err := streamSocket(p.Addr, l.Congestion)
			if err != nil {
				return err
			}
			c.from = append(c.from, os.NewFile(uintptr(fd), "from"))
			return dial(fd, at)
		})
		if err != nil {
			return c, err
		}
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		if err != nil {
			return c, fmt.Errorf("accept: %w", err)
		}
		c.to = append(c.to, os.NewFile(uintptr(fd), "to"))
	}
	return c, nil
}

// streamSocket makes a blocking TCP socket for the family of a, whose connect and accept give up after startTimeout.
func streamSocket(a netip.Addr, congestion string) (int, error) {
	family := unix.AF_INET
	if a.Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return -1, fmt.Errorf("open socket: %w", err)
	}
	if err := unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, congestion); err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("set congestion control %s (net.ipv4.tcp_available_congestion_control lists those there are): %w", congestion, err)
	}
	limit := unix.NsecToTimeval(int64(startTimeout))
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit)
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit)
	return fd, nil
}

func listenAt(fd int, a netip.Addr) (unix.Sockaddr, error) {
	if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(a, 0))); err != nil {
		return nil, fmt.Errorf("bind %v: %w", a, err)
	}
	if err := unix.Listen(fd, maxStreams); err != nil {
		return nil, fmt.Errorf("listen on %v: %w", a, err)
	}
	return unix.Getsockname(fd)
}

// dial connects and takes the limit of time away again. The accepted side never had one: it is not inherited.
func dial(fd int, to unix.Sockaddr) error {
	if err := unix.Connect(fd, to); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	var none unix.Timeval
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &none)
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &none)
	return nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}
