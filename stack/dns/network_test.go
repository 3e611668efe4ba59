package dns_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	wire "github.com/miekg/dns"

	"github.com/middleway-net/middleway/stack/dns"
)

// network is a network in memory: servers by address, each a function from a query to what comes back, one message after the other. Time in
// it is synctest's.
type network map[string]server

type server func(network string, query []byte) (answers [][]byte)

// DialContext makes network a dns.Dialer.
func (n network) DialContext(_ context.Context, kind, address string) (net.Conn, error) {
	serve := n[address]
	if serve == nil {
		return nil, errors.New("connection refused")
	}
	here, there := net.Pipe()
	go func() {
		defer there.Close()
		b := make([]byte, 65537)
		k, err := there.Read(b)
		if err != nil {
			return
		}
		query := b[:k]
		if kind == "tcp" {
			query = query[2:]
		}
		for _, answer := range serve(kind, query) {
			if kind == "tcp" {
				answer = append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)
			}
			if _, err := there.Write(answer); err != nil {
				return
			}
		}
		_, _ = there.Read(b) // until the other end is closed
	}()
	return here, nil
}

// answering is a server that answers with a message, in the query's own words: ID and question are its.
func answering(answer func(q *wire.Msg, tcp bool) *wire.Msg) server {
	return func(network string, query []byte) [][]byte {
		q := new(wire.Msg)
		if err := q.Unpack(query); err != nil {
			panic(err)
		}
		m := answer(q, network == "tcp")
		if m == nil {
			return nil
		}
		m.Id, m.Response, m.Question = q.Id, true, q.Question
		m.Compress = true
		b, err := m.Pack()
		if err != nil {
			panic(err)
		}
		return [][]byte{b}
	}
}

// holding is a server that knows records, and that all other names do not exist.
func holding(lines ...string) server {
	return answering(func(q *wire.Msg, _ bool) *wire.Msg {
		m := new(wire.Msg)
		name, known := q.Question[0].Name, false
		for range 8 {
			before := name
			for _, line := range lines {
				rr := record(line)
				if rr.Header().Name != name {
					continue
				}
				known = true
				alias, ok := rr.(*wire.CNAME)
				if rr.Header().Rrtype == q.Question[0].Qtype || ok {
					m.Answer = append(m.Answer, rr)
				}
				if ok {
					name, known = alias.Target, false
				}
			}
			if name == before {
				break
			}
		}
		if !known {
			m.Rcode = wire.RcodeNameError
		}
		if !known || len(m.Answer) == 0 {
			m.Ns = []wire.RR{record("example.com. 3600 IN SOA ns.example.com. admin.example.com. 1 7200 1800 86400 60")}
		}
		return m
	})
}

func record(line string) wire.RR {
	rr, err := wire.NewRR(line)
	if err != nil {
		panic(err)
	}
	return rr
}

// counted counts the queries that reach a server.
func counted(s server, n *atomic.Int32) server {
	return func(network string, query []byte) [][]byte {
		n.Add(1)
		return s(network, query)
	}
}

const (
	first  = "192.168.254.53:53"
	second = "192.168.254.54:53"
)

// resolver runs a server in the middle of a network. Its Ask is a client's.
type resolver struct {
	*dns.Server
	conn *packetConn
}

// newResolver starts a server whose upstreams are those of the network, in the bubble of synctest in which it is called. Run runs only if
// probes are asked for: they are questions too.
func newResolver(t *testing.T, n network, change func(*dns.Config)) *resolver {
	t.Helper()
	empty, err := dns.NewZone(zoneConfig)
	if err != nil {
		t.Fatal(err)
	}
	c := dns.Config{Zone: empty, Dialer: n, Policy: dns.Sequential}
	for _, a := range []string{first, second} {
		if n[a] != nil {
			c.Upstreams = append(c.Upstreams, netip.MustParseAddrPort(a))
		}
	}
	if change != nil {
		change(&c)
	}
	s, err := dns.New(c)
	if err != nil {
		t.Fatal(err)
	}
	s.SetZone(clusterZone(t))
	r := &resolver{s, newPacketConn()}
	background(t, func(ctx context.Context) error { return s.ServeUDP(ctx, r.conn) })
	return r
}

// background runs f until the test ends.
func background(t *testing.T, f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// ask asks and waits for the answer; nil if there is none for 10 s.
func (r *resolver) ask(t *testing.T, m *wire.Msg) *wire.Msg {
	t.Helper()
	r.conn.in <- datagram{pack(t, m), clientPort}
	select {
	case d := <-r.conn.out:
		got := new(wire.Msg)
		if err := got.Unpack(d.b); err != nil {
			t.Fatalf("answer %x: %v", d.b, err)
		}
		return got
	case <-time.After(10 * time.Second):
		return nil
	}
}

var clientPort = &net.UDPAddr{IP: client.AsSlice(), Port: 40000}

type datagram struct {
	b    []byte
	addr net.Addr
}

// packetConn is a socket in memory.
type packetConn struct {
	net.PacketConn
	in, out chan datagram
	closed  chan struct{}
}

func newPacketConn() *packetConn {
	return &packetConn{in: make(chan datagram), out: make(chan datagram, 1000), closed: make(chan struct{})}
}

func (c *packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case d := <-c.in:
		return copy(b, d.b), d.addr, nil
	case <-c.closed:
		return 0, nil, io.EOF
	}
}

func (c *packetConn) WriteTo(b []byte, to net.Addr) (int, error) {
	c.out <- datagram{append([]byte(nil), b...), to}
	return len(b), nil
}

func (c *packetConn) SetReadDeadline(time.Time) error {
	close(c.closed)
	return nil
}
func (c *packetConn) SetWriteDeadline(time.Time) error { return nil }
func (c *packetConn) LocalAddr() net.Addr              { return clientPort }

// bubble runs a test with a clock of its own.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}
