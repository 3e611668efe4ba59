package proxy

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/packet"
)

// Left is a socket of a listener that a former daemon had. The kernel goes on taking clients there, who wait to be accepted.
type Left struct {
	Listener Listener
	Socket   *os.File
}

// Keeper keeps copies of the sockets of open TCP listeners but the node's own, so that clients wait for the next daemon, and are not
// refused, if this one dies.
type Keeper interface {
	// Keep copies a socket, which is borrowed.
	Keep(l Listener, socket int) error
	// Drop closes the copy of a listener that is not wanted any more, one that a former daemon left too.
	Drop(l Listener)
}

// noKeeper keeps nothing.
type noKeeper struct{}

func (noKeeper) Keep(Listener, int) error { return nil }
func (noKeeper) Drop(Listener)            {}

// inheritFor is how long a socket of a former daemon is kept for a listener that is not wanted yet.
const inheritFor = 10 * time.Second

// inheritance is what a former daemon left and nobody has taken yet.
type inheritance struct {
	mu   sync.Mutex
	left map[place]Left
}

func (i *inheritance) init(left []Left) {
	i.left = map[place]Left{}
	for _, l := range left {
		if other, ok := i.left[l.Listener.place()]; ok {
			_ = other.Socket.Close()
		}
		i.left[l.Listener.place()] = l
	}
}

// take returns the socket for a listener, nil if there is none. It is the caller's.
func (i *inheritance) take(l Listener) *os.File {
	i.mu.Lock()
	defer i.mu.Unlock()
	left := i.left[l.place()]
	delete(i.left, l.place())
	return left.Socket
}

// close closes what nobody has taken.
func (i *inheritance) close() {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, l := range i.left {
		_ = l.Socket.Close()
	}
	clear(i.left)
}

// refuse closes what nobody wants, for all who have a copy.
func (i *inheritance) refuse(k Keeper) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, l := range i.left {
		if raw, err := l.Socket.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) })
		}
		_ = l.Socket.Close()
		k.Drop(l.Listener)
	}
	clear(i.left)
}

// drainLook is how often Drain looks whether clients are left.
const drainLook = 2 * time.Millisecond

// Drain accepts no further clients of TCP listeners and leaves these to Config.Leave. It returns once the connections of clients that were
// accepted have ended, or ctx has. No listener is opened or closed afterwards.
func (p *Proxy) Drain(ctx context.Context) {
	if !p.listeners.leave(ctx) {
		return
	}
	for p.tcp.clients.Load() > 0 {
		select {
		case <-ctx.Done():
			return
		case <-time.After(drainLook):
		}
	}
}

// leave has run leave all TCP listeners, and reports whether it did so before ctx ended.
func (s *listenerSet) leave(ctx context.Context) bool {
	done := make(chan struct{})
	select {
	case s.leaving <- done:
		<-done
		return true
	case <-ctx.Done():
		return false
	}
}

// leaveAll gives the listeners of TCP to Config.Leave, and closes them here.
func (s *listenerSet) leaveAll() {
	for at, h := range s.at {
		l, ok := h.server.(*tcpListener)
		if !ok {
			continue
		}
		if err := l.leave(h.Listener); err != nil {
			s.p.log.Warn("the next daemon does not get a listener", "listener", h.Listener, "err", err)
		}
		l.close()
		delete(s.at, at)
	}
}

func (s *tcpListener) leave(l Listener) error {
	if s.p.config.Leave == nil {
		return nil
	}
	return s.lend(l, s.p.config.Leave)
}

// hangUp closes the listener for all who have a copy of its socket: nobody waits there for a daemon that does not want them any more.
func (s *tcpListener) hangUp(l Listener) {
	own := -1
	_ = s.lend(l, func(_ Listener, socket int) (err error) {
		own, err = unix.FcntlInt(uintptr(socket), unix.F_DUPFD_CLOEXEC, 0)
		return err
	})
	s.close()
	if own >= 0 {
		_ = unix.Shutdown(own, unix.SHUT_RDWR)
		_ = unix.Close(own)
	}
}

// lend lends the socket to a func.
func (s *tcpListener) lend(l Listener, to func(l Listener, socket int) error) error {
	raw, err := s.l.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = to(l, int(fd)) })
	return errors.Join(err, failed)
}

// inherited makes a listener of a socket that a former daemon left; nil where it left none that can be used.
func (p *Proxy) inherited(l Listener) net.Listener {
	if l.Proto != packet.TCP || l.Own {
		return nil
	}
	f := p.inheritance.take(l)
	if f == nil {
		return nil
	}
	defer f.Close()
	nl, err := p.takeOver(l, f)
	if err != nil {
		p.log.Warn("what a former daemon left is not used", "listener", l, "err", err)
		p.config.Keeper.Drop(l)
		return nil
	}
	return nl
}

// takeOver makes a listener of a former daemon's socket, if it is one where this daemon's own would be.
func (p *Proxy) takeOver(l Listener, f *os.File) (net.Listener, error) {
	own, err := p.socketsOf(l).Socket(domain(l.Addr.Addr().Is4()), unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return nil, err
	}
	defer unix.Close(own)
	nl, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	s := &tcpListener{p, nl.(*net.TCPListener)}
	err = s.lend(l, func(_ Listener, socket int) error { return sameSide(socket, own) })
	if err == nil {
		err = s.setSilent(l.Silent)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return nl, nil
}

// sameSide returns an error unless a socket listens, and is of the network namespace of another one. Kernels before 5.14 do not tell of which it is.
func sameSide(socket, own int) error {
	if listens, err := unix.GetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || listens == 0 {
		return errors.Join(errors.New("it does not listen any more"), err)
	}
	was, errWas := unix.GetsockoptUint64(socket, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	is, errIs := unix.GetsockoptUint64(own, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if errWas == nil && errIs == nil && was != is {
		return errors.New("it is of another network namespace")
	}
	return nil
}
