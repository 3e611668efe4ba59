package dns

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Times of asking an upstream.
const (
	// tryTimeout is how long one server is waited for before the next one is asked: a lost datagram costs no more.
	tryTimeout = 1500 * time.Millisecond
	// askTimeout is how long all of it may take: clients give up after 5 s (resolv.conf(5)).
	askTimeout = 4500 * time.Millisecond
	// maxFailures in a row make a server count as down: it is asked last then, and probed.
	maxFailures = 2
	// probeInterval is how often a server that is down is probed, and loopInterval one that led back here.
	probeInterval = time.Second
	loopInterval  = 30 * time.Second
)

// Dialer opens sockets to upstreams: "udp" or "tcp". It is net.Dialer.
type Dialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// upstream is a server that is asked what is not known here.
type upstream struct {
	addr netip.AddrPort
	dial Dialer

	failures atomic.Int32 // in a row
	looping  atomic.Bool  // it leads back here

	queries, errors, truncated, discarded atomic.Uint64
	latency                               atomic.Int64 // sum over answered queries, ns
	answered                              atomic.Uint64

	mu      sync.Mutex
	probing bool
	probed  time.Time // when the last probe began
}

func (u *upstream) healthy() bool { return u.failures.Load() < maxFailures && !u.looping.Load() }

// ask asks the server, over TCP if its answer over UDP was cut. The query's ID is set to a random one. The server counts as failing if
// it does not answer; the caller's end does not count.
func (u *upstream) ask(ctx context.Context, query []byte) (answer []byte, err error) {
	u.queries.Add(1)
	began := time.Now()
	try, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	answer, err = u.askUDP(try, query)
	if err == nil && binary.BigEndian.Uint16(answer[2:])&bitTC != 0 {
		u.truncated.Add(1)
		answer, err = u.askTCP(try, query)
	}
	switch {
	case err == nil:
		u.answered.Add(1)
		u.latency.Add(int64(time.Since(began)))
		u.failures.Store(0)
		return answer, nil
	case !errors.Is(ctx.Err(), context.Canceled):
		u.errors.Add(1)
		u.failures.Add(1)
	}
	return nil, fmt.Errorf("ask %v: %w", u.addr, err)
}

// askUDP asks from a socket of its own, so that kernel and random numbers choose port and ID anew for each query (RFC 5452). Datagrams that are
// no answer to the query are not minded: the real one may be on its way.
func (u *upstream) askUDP(ctx context.Context, query []byte) ([]byte, error) {
	c, err := u.dial.DialContext(ctx, "udp", u.addr.String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	setID(query)
	if _, err := c.Write(query); err != nil {
		return nil, err
	}
	b := make([]byte, 4096)
	for {
		n, err := c.Read(b)
		if err != nil {
			return nil, err
		}
		if answers(b[:n], query) {
			return b[:n:n], nil
		}
		u.discarded.Add(1)
	}
}

func (u *upstream) askTCP(ctx context.Context, query []byte) ([]byte, error) {
	c, err := u.dial.DialContext(ctx, "tcp", u.addr.String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	setID(query)
	if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)); err != nil {
		return nil, err
	}
	answer, err := readMessage(c, make([]byte, maxTCP))
	if err != nil {
		return nil, err
	}
	if !answers(answer, query) {
		return nil, errQuestion
	}
	return bytes.Clone(answer), nil
}

func setID(query []byte) { binary.BigEndian.PutUint16(query, uint16(rand.Uint32())) }

// answers reports whether a message is an answer to the query: ID, and question if it is there (servers leave it out of errors).
func answers(msg, query []byte) bool {
	if len(msg) < headerLen || !bytes.Equal(msg[:2], query[:2]) || msg[2]&0x80 == 0 {
		return false
	}
	var asked, told name
	end, _ := asked.read(query, headerLen)
	if binary.BigEndian.Uint16(msg[4:]) == 0 {
		return binary.BigEndian.Uint16(msg[2:])&rcodeMask != 0
	}
	toldEnd, ok := told.read(msg, headerLen)
	return ok && toldEnd+4 <= len(msg) && bytes.Equal(asked.wire(), told.wire()) && bytes.Equal(query[end:end+4], msg[toldEnd:toldEnd+4])
}

// newQuestion makes the query by which an upstream is asked: recursion wanted, sizes of our own (RFC 6891), and from the client's query what
// it says about signatures.
func newQuestion(nm *name, qtype, clientFlags uint16, dnssecOK bool) []byte {
	b := make([]byte, headerLen, headerLen+nm.size+4+optLen)
	binary.BigEndian.PutUint16(b[2:], bitRD|bitAD|clientFlags&bitCD)
	b[5], b[11] = 1, 1 // a question, an OPT record
	b = append(b, nm.wire()...)
	b = binary.BigEndian.AppendUint16(b, qtype)
	b = binary.BigEndian.AppendUint16(b, classIN)
	opt := [optLen]byte{2: typeOPT, 3: MaxUDP >> 8, 4: MaxUDP & 0xFF}
	if dnssecOK {
		opt[7] = 0x80
	}
	return append(b, opt[:]...)
}

// readMessage reads a message with its length in front (RFC 1035, section 4.2.2) into b.
func readMessage(r io.Reader, b []byte) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	msg := b[:binary.BigEndian.Uint16(length[:])]
	_, err := io.ReadFull(r, msg)
	return msg, err
}
