package perf

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Client sends load to a Server.
type Client struct {
	// Inside runs a func in a network namespace, on a thread of its own, for example (*lab.Namespace).Do. Default: where the
	// process is.
	Inside func(func() error) error
	// Dial connects to the server's control. Default: from where the process is.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// To are where the server's streams of TCP are reached, for example at a Service's address; each stream, or connection, goes to one
	// of them at random. Default: the server's own address, and the port that it tells.
	To []netip.AddrPort
	// Begin and End are called when the time that counts begins and ends. They must not wait. Default: nothing is.
	Begin, End func()
	// Interval is told of each interval, counted from 0, after its end; with a load that fills the way this may be late.
	Interval func(n int, r Result)
}

// Run carries out a test with the server at an address.
func (c Client) Run(ctx context.Context, server netip.AddrPort, t Test) (r Result, err error) {
	if err := t.Check(); err != nil {
		return r, err
	}
	if server.Addr().Zone() != "" {
		return r, fmt.Errorf("address %v: one without a zone is needed", server.Addr())
	}
	t = t.withDefaults()
	defer beQuiet()()
	s := &sender{client: c, test: t, crew: newCrew(c.Inside), counters: make([]counter, t.Streams)}
	ctl, err := s.dial(ctx, server)
	if err != nil {
		return r, err
	}
	cancel := context.AfterFunc(ctx, func() {
		_ = ctl.conn.SetDeadline(time.Unix(1, 0))
		s.crew.interrupt()
	})
	defer func() {
		cancel()
		_ = s.crew.stop() // what failed was said before
		_ = ctl.conn.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
	}()
	if err := s.open(ctl, server); err != nil {
		return r, err
	}
	return s.run(ctx, ctl)
}

// sender is the client's end of a test.
type sender struct {
	client   Client
	test     Test
	crew     *crew
	fds      []int
	to       []*address // where streams of TCP go, each to one of them
	times    timings
	counters []counter // of a download
}

func (s *sender) dial(ctx context.Context, server netip.AddrPort) (*control, error) {
	dial := s.client.Dial
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := dial(ctx, "tcp", server.String())
	if err != nil {
		return nil, err
	}
	return newControl(conn), nil
}

// open asks for the test and opens its streams.
func (s *sender) open(ctl *control, server netip.AddrPort) error {
	_ = ctl.conn.SetDeadline(time.Now().Add(2 * patience))
	if err := ctl.send(message{Open: &s.test}); err != nil {
		return err
	}
	m, err := ctl.receive()
	switch {
	case err != nil:
		return err
	case m.Accepted == nil:
		return errors.New("the server did not accept the test, nor did it say why")
	case s.test.datagrams() && len(m.Accepted.Ports) != s.test.Streams:
		return fmt.Errorf("the server has %d ports for %d streams", len(m.Accepted.Ports), s.test.Streams)
	}
	token, _ := hex.DecodeString(m.Accepted.Token) // it was checked
	at := server.Addr().Unmap()
	s.to = []*address{newAddress(netip.AddrPortFrom(at, m.Accepted.Ports[0]))}
	if len(s.client.To) > 0 {
		s.to = s.to[:0]
		for _, to := range s.client.To {
			s.to = append(s.to, newAddress(to))
		}
	}
	for i := range s.test.Streams {
		if s.test.Kind == Connections {
			break
		}
		to := oneOf(s.to)
		if s.test.datagrams() {
			to = newAddress(netip.AddrPortFrom(at, m.Accepted.Ports[i]))
		}
		if err := s.crew.inside(func() error { return s.openStream(to, token) }); err != nil {
			return fmt.Errorf("stream %d: %w", i, err)
		}
	}
	m, err = ctl.receive()
	if err == nil && m.Ready == nil {
		err = errors.New("the server is not ready, nor did it say why")
	}
	return err
}

// oneOf returns one of several at random.
func oneOf(all []*address) *address { return all[rand.IntN(len(all))] }

func (s *sender) openStream(to *address, token []byte) error {
	fd, err := dial(to, s.test.datagrams(), s.test.Congestion)
	if err != nil {
		return err
	}
	s.crew.own(fd)
	s.fds = append(s.fds, fd)
	if s.test.datagrams() {
		err = greet(fd, hello(token))
	} else {
		err = write(fd, token)
	}
	return errors.Join(err, prepare(fd, s.test))
}

// greet sends a hello until it comes back.
func greet(fd int, hello []byte) error {
	if err := setPatience(fd, lostAfter); err != nil {
		return err
	}
	answer := make([]byte, len(hello)+1)
	for limit := time.Now().Add(patience); time.Now().Before(limit); {
		err := write(fd, hello)
		if err == nil {
			_, err = read(fd, answer)
		}
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EAGAIN) {
			return fmt.Errorf("open: %w", err)
		}
	}
	return fmt.Errorf("no datagram came back within %v", patience)
}

func (s *sender) load(stream int) error {
	switch s.test.Kind {
	case UDP:
		return sendDatagrams(s.fds[stream], s.test, &s.crew.stopping)
	case UDPLatency:
		return pingDatagrams(s.fds[stream], s.test, &s.times)
	case TCPLatency:
		return pingStream(s.fds[stream], s.test, &s.times)
	case Connections:
		return connectAgain(s.to, s.test, &s.times, &s.crew.stopping)
	case Download:
		return receiveStream(s.fds[stream], s.test, &s.counters[stream].bytes)
	default:
		return sendStream(s.fds[stream], s.test)
	}
}
