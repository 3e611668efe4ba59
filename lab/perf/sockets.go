package perf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// patience is how long opening a stream, a connection or a response may take.
const patience = 5 * time.Second

// datagramBuffer is what is asked for as a UDP receiver's buffer in bytes: the kernel's default holds a burst of about 100
// datagrams. The kernel gives net.core.rmem_max at most.
const datagramBuffer = 1 << 20

// newSocket makes a blocking socket for the family of a, whose calls give up after patience.
func newSocket(a netip.Addr, datagrams bool, congestion string) (int, error) {
	family, kind := unix.AF_INET, unix.SOCK_STREAM
	if a.Is6() {
		family = unix.AF_INET6
	}
	if datagrams {
		kind = unix.SOCK_DGRAM
	}
	fd, err := call(unix.SYS_SOCKET, uintptr(family), uintptr(kind|unix.SOCK_CLOEXEC), 0, 0)
	if err != nil {
		return -1, fmt.Errorf("open socket: %w", err)
	}
	if datagrams {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, datagramBuffer)
	} else {
		err = setCongestion(fd, congestion)
	}
	if err = errors.Join(err, setPatience(fd, patience)); err != nil {
		closeSocket(fd)
		return -1, err
	}
	return fd, nil
}

func setCongestion(fd int, name string) error {
	if name == "" {
		return nil
	}
	if err := unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, name); err != nil {
		return fmt.Errorf("set congestion control %s (net.ipv4.tcp_available_congestion_control lists those there are): %w", name, err)
	}
	return nil
}

// setPatience limits the time of each connect, accept, send and receive; 0 for no limit. Accepted sockets have none.
func setPatience(fd int, d time.Duration) error {
	limit := unix.NsecToTimeval(int64(d))
	for _, option := range []int{unix.SO_SNDTIMEO, unix.SO_RCVTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &limit); err != nil {
			return fmt.Errorf("limit the time of calls: %w", err)
		}
	}
	return nil
}

// dial connects a new socket.
func dial(to *address, datagrams bool, congestion string) (int, error) {
	fd, err := newSocket(to.of.Addr(), datagrams, congestion)
	if err != nil {
		return -1, err
	}
	if err := connect(fd, to); err != nil {
		closeSocket(fd)
		return -1, err
	}
	return fd, nil
}

// address is an address as connect(2) takes it. It is made once: memory is not collected while a test runs.
type address struct {
	of   netip.AddrPort
	raw  unix.RawSockaddrInet6 // or the shorter one of IPv4 in its place
	size uintptr
}

func newAddress(of netip.AddrPort) *address {
	a := &address{of: of}
	if of.Addr().Is4() {
		raw := (*unix.RawSockaddrInet4)(unsafe.Pointer(&a.raw))
		raw.Family, raw.Port, raw.Addr = unix.AF_INET, networkOrder(of.Port()), of.Addr().As4()
		a.size = unsafe.Sizeof(*raw)
		return a
	}
	a.raw = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: networkOrder(of.Port()), Addr: of.Addr().As16()}
	a.size = unsafe.Sizeof(a.raw)
	return a
}

// connect connects a socket. A signal does not end the attempt: connect(2) goes on with it when it is called again.
func connect(fd int, to *address) error {
	_, err := call(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&to.raw)), to.size, 0)
	if errors.Is(err, unix.EINPROGRESS) { // what SO_SNDTIMEO makes of it
		err = unix.ETIMEDOUT
	}
	if err != nil {
		return fmt.Errorf("connect to %v: %w", to.of, err)
	}
	return nil
}

// networkOrder returns a number as it lies in memory in network order.
func networkOrder(n uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], n)
	return binary.NativeEndian.Uint16(b[:])
}

// bind opens a socket at an address, and returns its port: any that is free in place of 0.
func bind(at netip.AddrPort, datagrams bool, congestion string) (fd int, port uint16, err error) {
	fd, err = newSocket(at.Addr(), datagrams, congestion)
	if err != nil {
		return -1, 0, err
	}
	port, err = bound(fd, at)
	if err == nil && !datagrams {
		err = os.NewSyscallError("listen", unix.Listen(fd, unix.SOMAXCONN))
	}
	if err != nil {
		closeSocket(fd)
		return -1, 0, err
	}
	return fd, port, nil
}

func bound(fd int, at netip.AddrPort) (uint16, error) {
	if at.Port() != 0 { // which a former test had as well
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return 0, fmt.Errorf("set SO_REUSEADDR: %w", err)
		}
	}
	if err := unix.Bind(fd, sockaddr(at)); err != nil {
		return 0, fmt.Errorf("bind %v: %w", at, err)
	}
	name, err := unix.Getsockname(fd)
	return addrPort(name).Port(), os.NewSyscallError("getsockname", err)
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

func addrPort(s unix.Sockaddr) netip.AddrPort {
	switch s := s.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(s.Addr), uint16(s.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(s.Addr), uint16(s.Port))
	}
	return netip.AddrPort{}
}
