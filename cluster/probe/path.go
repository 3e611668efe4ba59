package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// pathTry is how long one datagram's return is waited for: a router's answer that it is too large comes sooner.
const pathTry = 400 * time.Millisecond

// Headers in front of a datagram's payload, in bytes.
const (
	headers4 = 20 + 8
	headers6 = 40 + 8
)

// path sends datagrams that may not be cut, of what this end's kernel takes for the path's MTU, until one comes back. Where somebody on the
// way says that they are too large, the kernel knows it at the next one (RFC 1191, RFC 8201).
func path(ctx context.Context, to string, a *Answer) error {
	conn, err := (&net.Dialer{Control: uncut}).DialContext(ctx, "udp", to)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // fails only when closed
	defer stop()
	udp := conn.(*net.UDPConn)
	a.Own = addrPort(conn.LocalAddr())
	if a.Whole, err = interfaceMTU(a.Own.Addr()); err != nil {
		return err
	}
	a.Whole = min(a.Whole, math.MaxUint16) // what IP's headers can say
	for ctx.Err() == nil {
		mtu, err := pathMTU(udp, a.Own.Addr())
		if err != nil {
			return err
		}
		if back, err := there(ctx, conn, payload(min(mtu, a.Whole), a.Own.Addr())); err != nil || back {
			a.MTU = min(mtu, a.Whole)
			return err
		}
	}
	return fmt.Errorf("packets of %d bytes get lost, and nobody says so", a.Whole)
}

// there reports whether what was sent came back in time.
func there(ctx context.Context, conn net.Conn, what []byte) (bool, error) {
	if _, err := conn.Write(what); err != nil {
		if errors.Is(err, unix.EMSGSIZE) {
			return false, nil
		}
		return false, err
	}
	if ctx.Err() != nil {
		return false, nil
	}
	_ = conn.SetReadDeadline(time.Now().Add(pathTry)) // fails only when closed
	buf := make([]byte, len(what)+1)
	n, err := conn.Read(buf)
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, unix.EMSGSIZE):
		return false, nil
	case err != nil:
		return false, err
	case !bytes.Equal(buf[:n], what):
		return false, fmt.Errorf("%d bytes came back that are not the %d that were sent", n, len(what))
	}
	return true, nil
}

func payload(mtu int, own netip.Addr) []byte {
	if own.Is4() {
		return make([]byte, mtu-headers4)
	}
	return make([]byte, mtu-headers6)
}

// uncut forbids this machine and routers to cut packets.
func uncut(network, _ string, c syscall.RawConn) error {
	var err error
	control := c.Control(func(fd uintptr) {
		if network == "udp4" {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
			return
		}
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO)
	})
	return errors.Join(control, err)
}

// pathMTU is what the kernel takes for the MTU of a connected socket's path, in bytes.
func pathMTU(c *net.UDPConn, own netip.Addr) (mtu int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	control := raw.Control(func(fd uintptr) {
		if own.Is4() {
			mtu, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU)
			return
		}
		mtu, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU)
	})
	return mtu, errors.Join(control, err)
}

// interfaceMTU is the MTU in bytes of the interface that has an address.
func interfaceMTU(own netip.Addr) (int, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return 0, err
	}
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil {
			return 0, err
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr() == own {
				return i.MTU, nil
			}
		}
	}
	return 0, fmt.Errorf("no interface has the address %v", own)
}
