package proxy

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// backlog is how many clients may wait to be accepted; the kernel takes the lesser of it and net.core.somaxconn.
const backlog = 4096

// acceptPause is how long a listener waits after an error.
const acceptPause = 10 * time.Millisecond

// tcpListener is an open listener of TCP.
type tcpListener struct {
	p *Proxy
	l *net.TCPListener
}

// listenTCP opens a listener of TCP.
func (p *Proxy) listenTCP(l Listener) (server, error) {
	if nl := p.inherited(l); nl != nil {
		return &tcpListener{p, nl.(*net.TCPListener)}, nil
	}
	is4 := l.Addr.Addr().Is4()
	fd, err := p.socketsOf(l).Socket(domain(is4), unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
	if err != nil {
		return nil, fmt.Errorf("listen on %v: open socket: %w", l, err)
	}
	f := os.NewFile(uintptr(fd), l.String())
	defer f.Close()
	if err := openListener(fd, is4, l); err != nil {
		return nil, fmt.Errorf("listen on %v: %w", l, err)
	}
	nl, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("listen on %v: %w", l, err)
	}
	if l.Own {
		return &ownListener{tcpListener{p, nl.(*net.TCPListener)}}, nil
	}
	return &tcpListener{p, nl.(*net.TCPListener)}, nil
}

func openListener(fd int, is4 bool, l Listener) error {
	// A daemon that starts again gets the port though connections of the former one linger.
	options := []option{{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1}}
	if !is4 {
		options = append(options, option{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1})
	}
	if err := setOptions(fd, options); err != nil {
		return err
	}
	if err := setSilent(fd, l.Silent); err != nil {
		return err
	}
	if err := bind(fd, l.Addr); err != nil {
		return err
	}
	return unix.Listen(fd, backlog)
}

func (s *tcpListener) serve() {
	for {
		c, err := s.l.AcceptTCP()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			s.p.tcp.noteUnaccepted(s.l.Addr(), err)
			time.Sleep(acceptPause) // no descriptor is free, which passes
			continue
		}
		s.p.tcp.clients.Add(1)
		go s.p.tcp.ingress(c)
	}
}

func (t *tcpProxy) noteUnaccepted(listener net.Addr, err error) {
	t.count.acceptErrors.Add(1)
	if t.unaccepted.due() {
		t.p.log.Warn("clients of a listener wait", "listener", listener, "err", err)
	}
}

func (s *tcpListener) setSilent(silent bool) error {
	raw, err := s.l.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = setSilent(int(fd), silent) }); err != nil {
		return err
	}
	return failed
}

func (s *tcpListener) close() { _ = s.l.Close() }
