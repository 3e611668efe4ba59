package perf

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// receiver is the server's end of a test.
type receiver struct {
	test     Test
	crew     *crew
	token    []byte
	bound    []int // the sockets that clients reach first
	counters []counter
}

// runReceiver carries out a test that was asked for.
func runReceiver(ctx context.Context, inside func(func() error) error, c *control, t Test) (err error) {
	defer beQuiet()()
	r := &receiver{test: t, crew: newCrew(inside), token: make([]byte, tokenSize), counters: make([]counter, t.Streams)}
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
	n := 1
	if r.test.datagrams() {
		n = r.test.Streams
	}
	err = r.crew.inside(func() error {
		for range n {
			fd, port, err := bind(at, r.test.datagrams(), r.test.Congestion)
			if err != nil {
				return err
			}
			r.crew.own(fd)
			r.bound, ports = append(r.bound, fd), append(ports, port)
		}
		return nil
	})
	return ports, err
}

// open waits for the client's streams and starts a thread for each.
func (r *receiver) open() error {
	limit := time.Now().Add(patience)
	for i := range r.test.Streams {
		fd, err := r.bound[0], error(nil)
		switch {
		case r.test.Kind == Connections: // there is nothing to open
		case r.test.datagrams():
			fd = r.bound[i]
			err = r.openDatagrams(fd, limit)
		default:
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
	case Connections:
		return answerConnections(fd, r.test, &r.crew.stopping)
	default:
		return receiveStream(fd, r.test, &c.bytes)
	}
}

// openStream accepts connections until one has the token.
func (r *receiver) openStream(limit time.Time) (int, error) {
	for time.Now().Before(limit) {
		fd, err := accept(r.bound[0])
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
