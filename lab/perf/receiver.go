package perf

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// receiver is the server's end of a test.
type receiver struct {
	server   *Server
	test     Test
	crew     *crew
	token    []byte
	bound    []int // the sockets that clients reach first: one for each stream of datagrams; else one for all, and one in each door
	counters []counter
}

// receive carries out a test that was asked for.
func (s *Server) receive(ctx context.Context, c *control, t Test) (err error) {
	defer beQuiet()()
	r := &receiver{server: s, test: t, crew: newCrew(s.Inside), token: make([]byte, tokenSize), counters: make([]counter, t.Streams)}
	_, _ = rand.Read(r.token) // never fails
	cancel := context.AfterFunc(ctx, r.crew.interrupt)
	defer func() {
		cancel()
		err = errors.Join(err, r.crew.stop())
	}()
	ports, err := r.listen(c.conn.LocalAddr())
	if err != nil {
		return err
	}
	_ = c.conn.SetDeadline(time.Now().Add(2 * patience))
	if err := c.send(message{Accepted: &accepted{ports, hex.EncodeToString(r.token)}}); err != nil {
		return err
	}
	if err := r.open(); err != nil {
		return err
	}
	if err := c.send(message{Ready: &struct{}{}}); err != nil {
		return err
	}
	m, err := c.receive()
	if err == nil && m.Start == nil {
		err = errors.New("want the start")
	}
	if err != nil {
		return err
	}
	return r.report(c)
}

// listen opens what the streams are to reach.
func (r *receiver) listen(control net.Addr) (ports []uint16, err error) {
	at := control.(*net.TCPAddr).AddrPort().Addr().Unmap().WithZone("")
	if !r.test.datagrams() {
		port, err := r.listenStreams(at)
		return []uint16{port}, err
	}
	err = r.crew.inside(func() error {
		for range r.test.Streams {
			port, err := r.bind(netip.AddrPortFrom(at, 0))
			if err != nil {
				return err
			}
			ports = append(ports, port)
		}
		return nil
	})
	return ports, err
}

// listenStreams opens what streams of TCP reach, here and in the doors.
func (r *receiver) listenStreams(at netip.Addr) (port uint16, err error) {
	err = r.crew.inside(func() error {
		port, err = r.bind(netip.AddrPortFrom(at, r.server.StreamPort))
		return err
	})
	everywhere := netip.IPv4Unspecified()
	if at.Is6() {
		everywhere = netip.IPv6Unspecified()
	}
	for _, door := range r.server.Doors {
		if err == nil {
			err = door(func() error {
				_, err := r.bind(netip.AddrPortFrom(everywhere, port))
				return err
			})
		}
	}
	return port, err
}

// bind opens one of the sockets that clients reach first.
func (r *receiver) bind(at netip.AddrPort) (port uint16, err error) {
	fd, port, err := bind(at, r.test.datagrams(), r.test.Congestion)
	if err == nil {
		r.crew.own(fd)
		r.bound = append(r.bound, fd)
	}
	return port, err
}

// open waits for the client's streams and starts a thread for each.
func (r *receiver) open() error {
	limit := time.Now().Add(patience)
	for i := range r.test.Streams {
		if r.test.Kind == Connections { // there is nothing to open
			for _, fd := range r.bound {
				r.crew.start(func() error { return answerConnections(fd, r.test, &r.crew.stopping) })
			}
			continue
		}
		var fd int
		var err error
		if r.test.datagrams() {
			fd = r.bound[i]
			err = r.openDatagrams(fd, limit)
		} else {
			fd, err = r.openStream(limit)
		}
		if err != nil {
			return fmt.Errorf("stream %d: %w", i, err)
		}
		r.crew.start(func() error { return r.receive(fd, &r.counters[i]) })
	}
	return nil
}

func (r *receiver) receive(fd int, c *counter) error {
	switch r.test.Kind {
	case UDP:
		return receiveDatagrams(fd, r.test, c)
	case UDPLatency:
		return echoDatagrams(fd)
	case TCPLatency:
		return echoStream(fd, r.test)
	case Download:
		return sendStream(fd, r.test)
	default:
		return receiveStream(fd, r.test, &c.bytes)
	}
}

// openStream accepts connections until one has the token.
func (r *receiver) openStream(limit time.Time) (int, error) {
	for time.Now().Before(limit) {
		fd, err := r.knock(limit)
		if err == nil {
			fd, err = accept(fd)
		}
		if err != nil {
			return -1, fmt.Errorf("accept: %w", err)
		}
		token := make([]byte, tokenSize)
		err = setPatience(fd, time.Second)
		if err == nil {
			err = readFull(fd, token)
		}
		if err == nil && bytes.Equal(token, r.token) {
			r.crew.own(fd)
			return fd, prepare(fd, r.test)
		}
		closeSocket(fd)
	}
	return -1, fmt.Errorf("the client opened none within %v", patience)
}

// knock waits until a client is at one of the listeners, and returns that.
func (r *receiver) knock(limit time.Time) (fd int, err error) {
	polled := make([]unix.PollFd, len(r.bound))
	for i, fd := range r.bound {
		polled[i] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	}
	for {
		n, err := unix.Poll(polled, int(max(0, time.Until(limit)/time.Millisecond)))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err == nil && n == 0 {
			err = unix.EAGAIN
		}
		if err != nil {
			return -1, err
		}
		return r.bound[slices.IndexFunc(polled, func(p unix.PollFd) bool { return p.Revents != 0 })], nil
	}
}

// openDatagrams connects a socket to whom the client's hello comes from, and sends it back.
func (r *receiver) openDatagrams(fd int, limit time.Time) error {
	want := hello(r.token)
	got := make([]byte, len(want)+1)
	for time.Now().Before(limit) {
		n, from, err := unix.Recvfrom(fd, got, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		if !bytes.Equal(got[:n], want) {
			continue
		}
		if err := connect(fd, newAddress(addrPort(from))); err != nil {
			return err
		}
		if err := write(fd, want); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		return prepare(fd, r.test)
	}
	return fmt.Errorf("the client opened none within %v", patience)
}

// prepare makes an open stream ready for its thread: nothing but its end limits its calls, and a small write goes at once.
func prepare(fd int, t Test) error {
	err := setPatience(fd, 0)
	if t.Kind == TCPLatency {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1))
	}
	return err
}

var errGone = errors.New("the client has gone before the end of its test")

// report sends a sample at the begin of the time that counts, after each interval, and at its end, and returns when the client
// is done.
func (r *receiver) report(c *control) error {
	start := time.Now()
	_ = c.conn.SetDeadline(start.Add(r.test.WarmUp + r.test.Time + 2*patience))
	ended := make(chan *message, 1)
	go func() {
		m, _ := c.receive()
		ended <- m
		close(ended)
	}()
	defer func() {
		_ = c.conn.SetReadDeadline(time.Unix(1, 0))
		for range ended { // until it was closed
		}
	}()
	waits := r.test.waits()
	for i, wait := range waits {
		select {
		case <-time.After(wait):
		case <-r.crew.failed:
			return nil // stop tells why
		case <-ended:
			return errGone
		}
		s := take(r.test, r.counters, start)
		if s.Last = i == len(waits)-1; s.Last {
			r.crew.stopping.Store(true) // from here on the client ends its streams
		}
		if err := c.send(message{Sample: &s}); err != nil {
			return err
		}
	}
	if m := <-ended; m == nil || m.Done == nil {
		return errGone
	}
	return nil
}
