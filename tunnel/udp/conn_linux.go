// Package udp moves datagrams between the node and its peers in batches: one system call for many messages, and one message
// for a train of datagrams of equal size (UDP_SEGMENT on sending, UDP_GRO on receiving; Linux 4.18 and 5.0).
//
// It knows nothing of what is inside. Memory for the calls is made once; sending and receiving allocate nothing.
package udp

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Config describes a socket.
type Config struct {
	// Local is the address to bind; port 0 lets the kernel choose. Required.
	Local netip.AddrPort
	// Shared lets further sockets of this user bind the same address: the kernel spreads senders over them (SO_REUSEPORT).
	Shared bool
	// Trains makes the kernel hand over datagrams of one sender merged (UDP_GRO).
	Trains bool
	// SendOnly gives the socket the least receive buffer there is: nobody reads it, and what strangers send to its port must
	// not pile up.
	SendOnly bool
	// Buffer is the size of the socket's buffers in bytes. Default DefaultBuffer, 8 MiB; without CAP_NET_ADMIN the kernel gives at most
	// net.core.rmem_max and wmem_max.
	Buffer int
	// Socket makes the socket, as socket(2) does; options and address are set here. A socket stays in the network namespace in
	// which it was made. Default unix.Socket.
	Socket func(domain, typ, proto int) (fd int, err error)
}

// DefaultBuffer is the default of Config.Buffer, in bytes. It holds a hundred trains. With the kernel's default (208 KiB) a burst
// of three fills it; measured, that cost 30 to 55 % of the throughput between nodes.
const DefaultBuffer = 8 << 20

// Conn is a UDP socket. Its descriptor does not block and is unknown to Go's poller.
type Conn struct {
	fd    int
	local netip.AddrPort
	v6    bool
}

// ErrPortTaken is the error, by errors.Is, of an address that somebody else has bound.
var ErrPortTaken = errors.New("another program has this port")

// Listen opens a socket.
func Listen(c Config) (*Conn, error) {
	conn, err := open(c)
	if err != nil {
		return nil, err
	}
	if err := conn.configure(c); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// open makes the socket.
func open(c Config) (*Conn, error) {
	v6 := c.Local.Addr().Is6()
	family := unix.AF_INET
	if v6 {
		family = unix.AF_INET6
	}
	socket := c.Socket
	if socket == nil {
		socket = unix.Socket
	}
	fd, err := socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_UDP)
	if err != nil {
		return nil, fmt.Errorf("open udp socket: %w", err)
	}
	return &Conn{fd: fd, v6: v6}, nil
}

func (c *Conn) configure(cfg Config) error {
	if cfg.Shared {
		if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return fmt.Errorf("share udp port: %w", err)
		}
	}
	// A tunnel must not fragment (RFC 7348, section 4.3): DF is set, and a path MTU that somebody forged is not believed.
	level, option, probe, class := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE, unix.IP_RECVTOS
	if c.v6 {
		level, option, probe, class = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE, unix.IPV6_RECVTCLASS
		if err := unix.SetsockoptInt(c.fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return fmt.Errorf("make udp socket IPv6 only: %w", err)
		}
	}
	if err := unix.SetsockoptInt(c.fd, level, option, probe); err != nil {
		return fmt.Errorf("forbid fragments on udp socket: %w", err)
	}
	if err := unix.SetsockoptInt(c.fd, level, class, 1); err != nil {
		return fmt.Errorf("ask for the traffic class on udp socket: %w", err)
	}
	if cfg.Trains {
		if err := unix.SetsockoptInt(c.fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1); err != nil {
			return fmt.Errorf("ask for merged datagrams (UDP_GRO, Linux 5.0): %w", err)
		}
	}
	size := cfg.Buffer
	if size == 0 {
		size = DefaultBuffer
	}
	setBuffer(c.fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, size)
	if cfg.SendOnly {
		size = 1 // the kernel raises it to its least, about 2 KiB
	}
	setBuffer(c.fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, size)
	return c.bind(cfg.Local)
}

// Offloads are what the kernel has; what it has not is told with the reason. Nil: it has it.
type Offloads struct {
	Segment error // UDP_SEGMENT (ethtool: tx-udp-segmentation; Linux 4.18)
	GRO     error // UDP_GRO (ethtool: rx-udp-gro-forwarding; Linux 5.0)
}

// Probe tries the offloads on a socket as described by c, which is not bound and gone when it returns.
func Probe(c Config) (o Offloads, err error) {
	conn, err := open(c)
	if err != nil {
		return o, err
	}
	defer conn.Close()
	o.Segment = unix.SetsockoptInt(conn.fd, unix.SOL_UDP, unix.UDP_SEGMENT, minSegment)
	o.GRO = unix.SetsockoptInt(conn.fd, unix.SOL_UDP, unix.UDP_GRO, 1)
	return o, nil
}

// minSegment is a size of datagrams that every kernel takes.
const minSegment = 512

// setBuffer asks for a buffer, by force where that is allowed; a smaller one than asked for is no error.
func setBuffer(fd, force, plain, size int) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, size) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, plain, size)
	}
}

func (c *Conn) bind(local netip.AddrPort) error {
	err := unix.Bind(c.fd, sockaddr(local))
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("bind udp %v: %w", local, ErrPortTaken)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("bind udp %v: no interface of this node has that address: %w", local, err)
	case err != nil:
		return fmt.Errorf("bind udp %v: %w", local, err)
	}
	sa, err := unix.Getsockname(c.fd)
	if err != nil {
		return fmt.Errorf("ask for the port of udp %v: %w", local, err)
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		c.local = netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		c.local = netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	return nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// FD returns the descriptor to wait on.
func (c *Conn) FD() int { return c.fd }

// Local returns the address that the socket is bound to.
func (c *Conn) Local() netip.AddrPort { return c.local }

// Close closes the socket. No call may be under way.
func (c *Conn) Close() error { return unix.Close(c.fd) }
