package proxy

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/packet"
)

// option is a socket option of integer value.
type option struct{ level, name, value int }

// flowOptions are what every flow's socket is asked for: errors with who sent them, and time to live and traffic class of what
// comes in.
var (
	flowOptions4 = []option{
		{unix.IPPROTO_IP, unix.IP_RECVERR, 1},
		{unix.IPPROTO_IP, unix.IP_RECVTTL, 1},
		{unix.IPPROTO_IP, unix.IP_RECVTOS, 1},
	}
	flowOptions6 = []option{
		{unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1},
		{unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1},
		{unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 1},
	}
)

func domain(is4 bool) int {
	if is4 {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// connect returns a socket that is connected to a flow's destination.
func (e *egress) connect(f *egressFlow) (fd int, err error) {
	is4 := f.flow.Is4()
	fd, err = e.p.config.Sockets.Socket(domain(is4), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, e.number(is4))
	if err != nil {
		return -1, e.noSocket(err)
	}
	options := append(flowOptions6[:len(flowOptions6):len(flowOptions6)], e.ttlOptions(f)...)
	if is4 {
		options = append(flowOptions4[:len(flowOptions4):len(flowOptions4)], e.ttlOptions(f)...)
	}
	err = setOptions(fd, options)
	if err == nil {
		err = connectTo(fd, f)
	}
	if e.trains {
		takeTrains(fd)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("%s socket: %w", e.name, err)
	}
	return fd, nil
}

// errNoSocket is the error of a socket that is not to be had.
var errNoSocket = errors.New("open socket")

// noSocket says for people why a socket is not to be had.
func (e *egress) noSocket(err error) error {
	if e.advice != "" && errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%w: %w: %s", errNoSocket, err, e.advice)
	}
	return fmt.Errorf("%w: %w", errNoSocket, err)
}

// ttlOptions are what makes a flow's packets leave with the time to live, traffic class and DF of its first.
func (e *egress) ttlOptions(f *egressFlow) []option {
	ttl, tos := max(1, int(f.ttl)), int(f.tos)
	cut := cutOption(f.flow.Is4(), f.dontCut.Load())
	if f.flow.Is4() {
		return []option{cut, {unix.IPPROTO_IP, unix.IP_TTL, ttl}, {unix.IPPROTO_IP, unix.IP_TOS, tos}}
	}
	return []option{cut, {unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, ttl}, {unix.IPPROTO_IPV6, unix.IPV6_TCLASS, tos}}
}

// cutOption says whether the kernel cuts packets that are too large for their way, or refuses them with the way's MTU.
func cutOption(is4, dont bool) option {
	switch {
	case is4 && dont:
		return option{unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO}
	case is4:
		return option{unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT}
	case dont:
		return option{unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO}
	}
	return option{unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_WANT}
}

// setDontCut has a flow's socket send packets with DF, or without. Most flows never change.
func (e *egress) setDontCut(f *egressFlow, dont bool) {
	if f.dontCut.Load() == dont {
		return
	}
	f.dontCut.Store(dont)
	o := cutOption(f.flow.Is4(), dont)
	_ = unix.SetsockoptInt(f.fd, o.level, o.name, o.value) // was taken when the socket was opened
}

func setOptions(fd int, options []option) error {
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return fmt.Errorf("set option %d of level %d to %d: %w", o.name, o.level, o.value, err)
		}
	}
	return nil
}

// takeTrains has the kernel hand over datagrams as they came, many at once (UDP_GRO). One before Linux 5.0 hands over each.
func takeTrains(fd int) { _ = unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1) }

func connectTo(fd int, f *egressFlow) error {
	var to unix.Sockaddr
	dst, port := f.flow.Dst(), 0
	if f.flow.Proto() == packet.UDP {
		port = int(f.flow.DstPort())
	}
	if dst.Is4() {
		to = &unix.SockaddrInet4{Port: port, Addr: dst.As4()}
	} else {
		to = &unix.SockaddrInet6{Port: port, Addr: dst.As16()}
	}
	if err := unix.Connect(fd, to); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	return nil
}

// watchedFlow takes what a flow's socket has.
type watchedFlow struct {
	e *egress
	f *egressFlow
}

// receiveBudget is how many messages of one socket are taken before the next one's turn.
const receiveBudget = 16

func (w watchedFlow) ready(m *message, failed bool) {
	e, f := w.e, w.f
	if !f.acquire() {
		return
	}
	defer e.release(f)
	f.seen.Store(e.now.Load())
	if failed {
		e.takeErrors(f, m)
	}
	for range receiveBudget {
		errno := m.receive(f.fd, 0)
		if errno == unix.EAGAIN {
			return
		}
		if errno != 0 {
			continue // an earlier packet's, which the error queue tells of
		}
		if !f.isWith(m.from) {
			continue // came in before the socket was connected
		}
		f.answered.Store(true)
		e.count.received.Add(1)
		e.answer(f, m)
	}
}

// takeErrors passes on the errors that wait at a flow's socket.
func (e *egress) takeErrors(f *egressFlow, m *message) {
	for range receiveBudget {
		if m.receive(f.fd, unix.MSG_ERRQUEUE) != 0 {
			return
		}
		e.passError(f, m)
	}
}
