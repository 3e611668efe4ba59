package proxy

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// bind gives a socket its address, and says for people why it cannot.
func bind(fd int, addr netip.AddrPort) error {
	var to unix.Sockaddr = &unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()}
	if addr.Addr().Is4() {
		to = &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	}
	switch err := unix.Bind(fd, to); {
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("another program of this node has the port: %w", err)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("no interface of this node has the address: %w", err)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE: %w", err)
	default:
		return err
	}
}
