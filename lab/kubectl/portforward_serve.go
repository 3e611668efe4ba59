package kubectl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// forwarding is listeners here and connections to a pod.
type forwarding struct {
	connector PodConnector
	pod       PodRef
	listeners []listener

	mu          sync.Mutex // held while something is printed
	out, errOut io.Writer
}

type listener struct {
	net.Listener
	port forwardedPort
}

func (s *forwarding) print(w io.Writer, format string, v ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(w, format+"\n", v...)
}

// listen makes the listeners. One port is enough; the others are told.
func (s *forwarding) listen(addrs []listenAddr, ports []forwardedPort) error {
	for _, p := range ports {
		if err := s.listenAt(addrs, &p); err != nil {
			s.print(s.errOut, "Unable to listen on port %d: Listeners failed to create with the following errors: %v", p.Local, err)
		}
	}
	if len(s.listeners) == 0 {
		return fmt.Errorf("unable to listen on any of the requested ports: %v", ports)
	}
	return nil
}

// listenAt listens at a port of all addresses, and returns what went wrong. A port that any would do for is set to the one that the
// first address got. An address that a person has named has to work, and one of localhost's.
func (s *forwarding) listenAt(addrs []listenAddr, p *forwardedPort) error {
	var made []listener
	var errs, ofLocalhost []error
	localhosts := 0
	for _, a := range addrs {
		network := "tcp6" // for :: too no address of IPv4
		if a.host.Is4() {
			network = "tcp4"
		}
		l, err := net.Listen(network, netip.AddrPortFrom(a.host, p.Local).String())
		if a.localhost {
			localhosts++
		}
		switch {
		case err == nil:
			p.Local = uint16(l.Addr().(*net.TCPAddr).Port)
			made = append(made, listener{l, *p})
		case a.localhost:
			ofLocalhost = append(ofLocalhost, err)
		default:
			errs = append(errs, err)
		}
	}
	if len(ofLocalhost) == localhosts {
		errs = append(errs, ofLocalhost...)
	}
	if len(errs) > 0 {
		for _, l := range made {
			l.Close()
		}
		return fmt.Errorf("%v", errs)
	}
	for _, l := range made {
		s.print(s.out, "Forwarding from %v -> %d", l.Addr(), p.Remote)
	}
	s.listeners = append(s.listeners, made...)
	return nil
}

// serve forwards until ctx or the pod ends.
func (s *forwarding) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for _, l := range s.listeners {
		wg.Go(func() { s.accept(ctx, l, &wg) })
	}
	err := s.connector.Attend(ctx, s.pod)
	cancel()
	for _, l := range s.listeners {
		l.Close()
	}
	wg.Wait()
	return fmt.Errorf("%w: %w", errLost, err)
}

// acceptPause is how long a listener rests that could not accept, for want of descriptors for example.
const acceptPause = 100 * time.Millisecond

func (s *forwarding) accept(ctx context.Context, l listener, wg *sync.WaitGroup) {
	for ctx.Err() == nil {
		conn, err := l.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			s.print(s.errOut, "error accepting connection on port %d: %v", l.port.Local, err)
			time.Sleep(acceptPause)
			continue
		}
		wg.Go(func() { s.forward(ctx, conn.(*net.TCPConn), l.port) })
	}
}

// forward joins a connection to one inside the pod until both have ended. One that the pod refuses ends by itself: the others go on.
func (s *forwarding) forward(ctx context.Context, local *net.TCPConn, port forwardedPort) {
	defer local.Close()
	s.print(s.out, "Handling connection for %d", port.Local)
	remote, err := s.connector.Connect(ctx, s.pod, port.Remote)
	if err != nil {
		if ctx.Err() == nil {
			s.print(s.errOut, "an error occurred forwarding %d -> %d: %v", port.Local, port.Remote, err)
		}
		return
	}
	defer remote.Close()
	stop := context.AfterFunc(ctx, func() {
		local.Close()
		remote.Close()
	})
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		pass(remote, local)
	}()
	pass(local, remote)
	<-done
}

// pass passes on what comes from one connection to another, and its end: of what it sends, or with a reset.
func pass(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err == nil {
		_ = to.CloseWrite() // the other end may have gone
		return
	}
	for _, c := range []*net.TCPConn{to, from} {
		_ = c.SetLinger(0)
		c.Close()
	}
}
