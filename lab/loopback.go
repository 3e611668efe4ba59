package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/node/parent"
)

// Loopbacks are loopback addresses of the machine by which the nodes of one cluster reach each other: each is a node's address
// for the tunnel, and no two clusters have the same.
type Loopbacks struct {
	Addrs []netip.Addr

	locks []int // sockets that keep others from choosing the same
}

// ReserveLoopbacks chooses an address of 127.0.0.0/8 for each of n nodes, whose UDP port is free, among the addresses of the
// machine behind a parent. The first is one of this user's own 256, which follow from the uid. Each is reserved by a TCP socket
// that is bound to the same port, and on which nobody listens: until Close no other cluster gets it, before or after the daemon's
// own socket is there. It keeps only those away who reserve: a UDP socket that held the port would keep the daemon away as well, or
// share what the daemon gets.
func ReserveLoopbacks(outside *parent.Client, n int, port uint16) (*Loopbacks, error) {
	l := &Loopbacks{}
	first := firstLoopback(outerUID())
	for i := 0; len(l.Addrs) < n; i++ {
		if i == loopbacks {
			return nil, errors.Join(fmt.Errorf("reserve loopback addresses: UDP port %d is taken on all of them; choose another port", port), l.Close())
		}
		addr := loopback((first + i) % loopbacks)
		fd, err := reserve(outside, netip.AddrPortFrom(addr, port))
		switch {
		case errors.Is(err, unix.EADDRINUSE):
			continue
		case err != nil:
			return nil, errors.Join(fmt.Errorf("reserve loopback address %v: %w", addr, err), l.Close())
		}
		l.Addrs, l.locks = append(l.Addrs, addr), append(l.locks, fd)
	}
	return l, nil
}

// Close gives the addresses up.
func (l *Loopbacks) Close() error {
	var errs []error
	for _, fd := range l.locks {
		errs = append(errs, unix.Close(fd))
	}
	l.locks = nil
	return errors.Join(errs...)
}

// The addresses to choose from are 127.1.0.1 to 127.255.255.254, without those that end in 0 or 255: 127.0.0.0/16 is where
// programs have theirs (127.0.0.1, 127.0.0.53, 127.0.1.1).
const (
	loopbackHosts = 254
	loopbacks     = 255 * 256 * loopbackHosts
)

// loopback returns an address by its number.
func loopback(i int) netip.Addr {
	net := i / loopbackHosts
	return netip.AddrFrom4([4]byte{127, byte(1 + net/256), byte(net), byte(1 + i%loopbackHosts)})
}

// firstLoopback is where a user's search begins: users with neighbouring uids do not cross each other's.
func firstLoopback(uid int) int { return uid % (255 * 256) * loopbackHosts }

// outerUID is this process's uid in the user namespace around its own: inside a lab an ordinary user is root.
func outerUID() int {
	b, err := os.ReadFile("/proc/self/uid_map")
	if f := strings.Fields(string(b)); err == nil && len(f) == 3 && f[2] == "1" { // one user: inside, outside, count
		if outer, err := strconv.Atoi(f[1]); err == nil {
			return outer
		}
	}
	return os.Getuid()
}

// reserve returns a TCP socket bound to a, if a is free for UDP as well.
func reserve(outside *parent.Client, a netip.AddrPort) (fd int, err error) {
	fd, err = bound(outside, unix.SOCK_STREAM, a)
	if err != nil {
		return -1, err
	}
	probe, err := bound(outside, unix.SOCK_DGRAM, a)
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, unix.Close(probe)
}

func bound(outside *parent.Client, typ int, a netip.AddrPort) (fd int, err error) {
	fd, err = outside.Socket(unix.AF_INET, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
