package dns_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	wire "github.com/miekg/dns"

	"github.com/middleway-net/middleway/stack/dns"
)

// edit makes a query whose bytes are changed.
func edit(tb testing.TB, change func([]byte) []byte) []byte {
	return change(pack(tb, newQuery("web.default.svc.cluster.local. A")))
}

func TestProtocol(t *testing.T) {
	s := newServer(t, clusterZone(t))
	class := func(c uint16, m *wire.Msg) []byte { m.Question[0].Qclass = c; return pack(t, m) }
	for _, tt := range []struct {
		name  string
		query []byte
		rcode int
		none  bool
		why   string
	}{
		{name: "AXFR", query: pack(t, newQuery("cluster.local. AXFR")), rcode: wire.RcodeRefused, why: "nobody copies the zone"},
		{name: "IXFR", query: pack(t, newQuery("cluster.local. IXFR")), rcode: wire.RcodeRefused, why: "nobody copies the zone"},
		{name: "CHAOS", query: class(wire.ClassCHAOS, newQuery("version.bind. TXT")), rcode: wire.RcodeRefused, why: "there are no such names"},
		{name: "class ANY", query: class(wire.ClassANY, newQuery("web.default.svc.cluster.local. A")), rcode: wire.RcodeRefused, why: "there is one class"},
		{name: "NOTIFY", query: edit(t, func(b []byte) []byte { b[2] |= 4 << 3; return b }), rcode: wire.RcodeNotImplemented, why: "RFC 1035, §4.1.1"},
		{name: "UPDATE", query: edit(t, func(b []byte) []byte { b[2] |= 5 << 3; return b }), rcode: wire.RcodeNotImplemented, why: "RFC 2136, §2"},
		{name: "two questions", query: edit(t, func(b []byte) []byte { b[5] = 2; return append(b, b[12:]...) }), rcode: wire.RcodeFormatError, why: "RFC 9619"},
		{name: "no question", query: edit(t, func(b []byte) []byte { b[5] = 0; return b[:12] }), rcode: wire.RcodeFormatError, why: "RFC 9619"},
		{name: "cut in the name", query: edit(t, func(b []byte) []byte { return b[:20] }), rcode: wire.RcodeFormatError, why: "RFC 1035, §4.1.1"},
		{name: "cut behind the name", query: edit(t, func(b []byte) []byte { return b[:len(b)-2] }), rcode: wire.RcodeFormatError, why: "RFC 1035, §4.1.1"},
		{name: "compressed question", query: edit(t, func(b []byte) []byte { return append(append(b[:12:12], 0xC0, 12), b[len(b)-4:]...) }), rcode: wire.RcodeFormatError, why: "it can only point to itself"},
		{name: "label type 0x40", query: edit(t, func(b []byte) []byte { b[12] = 0x41; return b }), rcode: wire.RcodeFormatError, why: "RFC 6891, §5: obsolete"},
		{name: "record cut", query: edit(t, func(b []byte) []byte { b[11] = 1; return append(b, 0, 0, 41) }), rcode: wire.RcodeFormatError, why: "RFC 6891, §7"},
		{name: "two OPT records", query: edit(t, func(b []byte) []byte { b[11] = 2; return append(append(b, opt(0, 1232)...), opt(0, 1232)...) }), rcode: wire.RcodeFormatError, why: "RFC 6891, §6.1.1"},
		{name: "OPT asked for", query: pack(t, newQuery("web.default.svc.cluster.local. OPT")), rcode: wire.RcodeFormatError, why: "it is no type of data"},
		{name: "version 1", query: edit(t, func(b []byte) []byte { b[11] = 1; return append(b, opt(1, 1232)...) }), rcode: wire.RcodeBadVers, why: "RFC 6891, §6.1.3"},
		{name: "an answer", query: edit(t, func(b []byte) []byte { b[2] |= 0x80; return b }), none: true, why: "two servers would answer each other for ever"},
		{name: "short", query: []byte{0, 1, 2}, none: true, why: "nobody is known to ask"},
		{name: "other records beside", query: edit(t, func(b []byte) []byte {
			b[11] = 2
			return append(append(b, opt(0, 1232)...), 0, 0, 99, 0, 1, 0, 0, 0, 0, 0, 1, 7)
		}), why: "not minded"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out := make([]byte, dns.MaxUDP)
			n, ok := s.Answer(out, tt.query, client)
			if ok == tt.none {
				t.Fatalf("got an answer: %v; %s", ok, tt.why)
			}
			if !ok {
				return
			}
			got := new(wire.Msg)
			if err := got.Unpack(out[:n]); err != nil {
				t.Fatal(err)
			}
			if got.Rcode != tt.rcode || got.Id != binary.BigEndian.Uint16(tt.query) || !got.Response {
				t.Errorf("got %v, want %s: %s", got, wire.RcodeToString[tt.rcode], tt.why)
			}
		})
	}
}

// opt is an OPT record.
func opt(version byte, size uint16) []byte {
	return []byte{0, 0, 41, byte(size >> 8), byte(size), 0, version, 0, 0, 0, 0}
}

func TestBeforeSync(t *testing.T) {
	s := newServer(t, nil)
	for _, ask := range []string{"web.default.svc.cluster.local. A", "cluster.local. SOA", "20.0.96.10.in-addr.arpa. PTR"} {
		if got := exchange(t, s, newQuery(ask)); got.Rcode != wire.RcodeServerFailure || len(got.Answer)+len(got.Ns) > 0 {
			t.Errorf("%s: got %v, want SERVFAIL: it is not known yet which names exist (rule 55)", ask, got)
		}
	}
	if _, ok := s.Answer(make([]byte, dns.MaxUDP), pack(t, newQuery("www.example.com. A")), client); ok {
		t.Error("names of others do not depend on the cluster")
	}
}

// crowd is a zone with a headless Service of n endpoints.
func crowd(t *testing.T, n int) *dns.Zone {
	t.Helper()
	e := dns.Endpoints{Ports: ports(tcp("http", 80))}
	for i := range n {
		e.Each = append(e.Each, dns.Endpoint{Addr: netip.AddrFrom4([4]byte{10, 244, byte(i >> 8), byte(i)})})
	}
	z, err := clusterZone(t).With(dns.Changes{Services: byName([]*dns.Service{{Namespace: "default", Name: "crowd", Headless: true, Endpoints: []dns.Endpoints{e}}})})
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func TestSizes(t *testing.T) {
	for _, tt := range []struct {
		endpoints int
		ask       string
		edns      uint16 // 0: without
		max       int
		truncated bool
		least     int // records
		why       string
	}{
		{10, "A", 0, 512, false, 10, "fits"},
		{100, "A", 0, 512, true, 28, "rule 53: 512 bytes without EDNS, and as many as fit for clients that know no TCP"},
		{60, "A", 4096, 1232, false, 60, "min(client, 1232)"},
		{100, "A", 4096, 1232, true, 70, "min(client, 1232)"},
		{60, "A", 800, 800, true, 40, "the client's size"},
		{10, "A", 100, 512, false, 10, "RFC 6891, §6.2.3: less than 512 is 512"},
		{100, "SRV", 1232, 1232, true, 10, "targets are long"},
		{9, "SRV", 1232, 1232, false, 9, "additional records that do not fit are left out, and TC stays clear (RFC 2181, §9)"},
	} {
		t.Run(fmt.Sprint(tt.endpoints, tt.ask, tt.edns), func(t *testing.T) {
			s := newServer(t, crowd(t, tt.endpoints))
			name := "crowd.default.svc.cluster.local. " + tt.ask
			m := newQuery(name)
			if tt.edns > 0 {
				m.SetEdns0(tt.edns, false)
			}
			got := exchange(t, s, m)
			got.Compress = true
			if b := pack(t, got); got.Truncated != tt.truncated || len(got.Answer) < tt.least || len(b) > tt.max {
				t.Errorf("got TC %v and %d records in about %d bytes, want %v and at least %d in %d: %s", got.Truncated, len(got.Answer), len(b), tt.truncated, tt.least, tt.max, tt.why)
			}
			if o := got.IsEdns0(); (o != nil) != (tt.edns > 0) || o != nil && o.UDPSize() != dns.MaxUDP {
				t.Errorf("got OPT record %v, want one as the query has", o)
			}
			if over := overTCP(t, s, m); over.Truncated || len(over.Answer) != tt.endpoints {
				t.Errorf("over TCP: got TC %v and %d records, want all %d", over.Truncated, len(over.Answer), tt.endpoints)
			}
		})
	}
}

// overTCP asks over a connection.
func overTCP(t *testing.T, s *dns.Server, m *wire.Msg) *wire.Msg {
	t.Helper()
	l := listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.ServeTCP(ctx, l) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	c := dial(t, l)
	defer c.Close()
	got, _, err := (&wire.Client{Net: "tcp"}).ExchangeWithConnContext(ctx, m.Copy(), &wire.Conn{Conn: c})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func dial(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Addresses come in random order, so that clients that take the first spread over all, also where not all fit.
func TestShuffle(t *testing.T) {
	for _, n := range []int{2, 3, 10, 100} {
		s := newServer(t, crowd(t, n))
		firsts := map[string]int{}
		const rounds = 4000
		query, out := pack(t, newQuery("crowd.default.svc.cluster.local. A")), make([]byte, dns.MaxUDP)
		for range rounds {
			if _, ok := s.Answer(out, query, client); !ok {
				t.Fatal("no answer")
			}
			firsts[string(out[len(query)+12:][:4])]++ // behind the fixed part of the first record
		}
		if len(firsts) != n {
			t.Errorf("%d addresses: %d were ever first", n, len(firsts))
		}
		for a, k := range firsts {
			if even := rounds / n; k < even/3 || k > 3*even {
				t.Errorf("%d addresses: %x was first %d times of %d", n, a, k, rounds)
			}
		}
	}
}

func TestAnswerDoesNotAllocate(t *testing.T) {
	s := newServer(t, clusterZone(t))
	out := make([]byte, dns.MaxUDP)
	for _, ask := range []string{
		"web.default.svc.cluster.local. A", "web.default.svc.cluster.local. AAAA", "www.example.com.default.svc.cluster.local. A",
		"db.data.svc.cluster.local. A", "db-0.db.data.svc.cluster.local. A", "fd00-10-244-1--12.ring.data.svc.cluster.local. AAAA",
		"_sql._tcp.db.data.svc.cluster.local. SRV", "_dns._udp.dual.default.svc.cluster.local. SRV", "20.0.96.10.in-addr.arpa. PTR",
		reverse("fd00:10:244:1::12") + " PTR", "10-244-1-99.default.pod.cluster.local. A", "outer.default.svc.cluster.local. A",
		"cluster.local. SOA", "cluster.local. NS", "dns-version.cluster.local. TXT", "99.1.244.10.in-addr.arpa. PTR",
	} {
		query := pack(t, newQuery(ask).SetEdns0(1232, false))
		if n := testing.AllocsPerRun(100, func() { s.Answer(out, query, client) }); n != 0 {
			t.Errorf("%s: %v allocations", ask, n)
		}
	}
}

// Queries on one connection may follow each other without waiting, and a slow one does not keep back those behind it.
func TestPipelining(t *testing.T) {
	slow := make(chan struct{})
	s, err := dns.New(dns.Config{
		Zone: clusterZone(t), Upstreams: []netip.AddrPort{netip.MustParseAddrPort(first)}, Dialer: network{first: func(network string, query []byte) [][]byte {
			<-slow
			return holding(www)(network, query)
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.SetZone(clusterZone(t))
	l := listen(t)
	background(t, func(ctx context.Context) error { return s.ServeTCP(ctx, l) })
	c := dial(t, l)
	defer c.Close()
	var b []byte
	asks := []string{"www.example.com. A", "web.default.svc.cluster.local. A", "gone.default.svc.cluster.local. A"}
	for i, ask := range asks {
		m := newQuery(ask)
		m.Id = uint16(i)
		query := pack(t, m)
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(query))), query...)
	}
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
	var order []uint16
	for range asks {
		if len(order) == 2 {
			close(slow)
		}
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		order = append(order, readAnswer(t, c).Id)
	}
	if !slices.Equal(order, []uint16{1, 2, 0}) {
		t.Errorf("got answers in the order %v, want 1 2 0", order)
	}
}

func readAnswer(t *testing.T, c io.Reader) *wire.Msg {
	t.Helper()
	var length [2]byte
	if _, err := io.ReadFull(c, length[:]); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatal(err)
	}
	m := new(wire.Msg)
	if err := m.Unpack(b); err != nil {
		t.Fatal(err)
	}
	return m
}

// A client that is silent, or sends what is no query, loses its connection and harms nobody.
func TestIdleConnection(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, clusterZone(t))
		l := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
		background(t, func(ctx context.Context) error { return s.ServeTCP(ctx, l) })
		here, there := net.Pipe()
		l.conns <- there
		began := time.Now()
		_, err := here.Read(make([]byte, 1))
		if took := time.Since(began); err != io.EOF || took != 10*time.Second {
			t.Errorf("got %v after %v, want the end after 10 s", err, took)
		}
	})
}

// pipeListener is a listener in memory.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	select {
	case <-l.closed:
	default:
		close(l.closed)
	}
	return nil
}

func (l *pipeListener) Addr() net.Addr { return clientPort }

// Sockets of the machine: a client sees a name that does not exist told so.
func TestServeUDP(t *testing.T) {
	s := newServer(t, clusterZone(t))
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	background(t, func(ctx context.Context) error { return s.ServeUDP(ctx, c) })
	for ask, rcode := range map[string]int{
		"web.default.svc.cluster.local. A":             wire.RcodeSuccess,
		"www.example.com.default.svc.cluster.local. A": wire.RcodeNameError,
		"www.example.com. A":                           wire.RcodeServerFailure,
	} {
		got, err := wire.Exchange(newQuery(ask), c.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		if got.Rcode != rcode {
			t.Errorf("%s: got %v", ask, got)
		}
	}
	if got := s.Stats().Answers; got["A"]["NOERROR"] != 1 || got["A"]["NXDOMAIN"] != 1 || got["A"]["SERVFAIL"] != 1 {
		t.Errorf("got counters %v", got)
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(pack(f, newQuery("web.default.svc.cluster.local. A")))
	f.Add(pack(f, newQuery("_sql._tcp.db.data.svc.cluster.local. SRV").SetEdns0(1232, true)))
	f.Add(pack(f, newQuery("5.1.244.10.in-addr.arpa. PTR")))
	f.Add(pack(f, newQuery("fd00-10-244-1--12.ring.data.svc.cluster.local. AAAA")))
	f.Add([]byte{})
	empty, err := dns.NewZone(zoneConfig)
	if err != nil {
		f.Fatal(err)
	}
	z, err := empty.With(dns.Changes{Services: byName(clusterServices), Namespaces: map[string]bool{"default": true, "data": true}})
	if err != nil {
		f.Fatal(err)
	}
	s, err := dns.New(dns.Config{Zone: empty})
	if err != nil {
		f.Fatal(err)
	}
	s.SetZone(z)
	f.Fuzz(func(t *testing.T, query []byte) {
		before := bytes.Clone(query)
		out := make([]byte, dns.MaxUDP)
		n, ok := s.Answer(out, query, client)
		if !bytes.Equal(query, before) {
			t.Fatal("the query was changed")
		}
		if !ok {
			return
		}
		got := new(wire.Msg)
		if err := got.Unpack(out[:n]); err != nil {
			t.Fatalf("answer %x to %x: %v", out[:n], query, err)
		}
		if !got.Response || got.Id != binary.BigEndian.Uint16(query) {
			t.Fatalf("answer %v to %x", got, query)
		}
		if got.Rcode == wire.RcodeFormatError || got.Rcode == wire.RcodeNotImplemented {
			return
		}
		// What we understood is what the library understands.
		asked := new(wire.Msg)
		if err := asked.Unpack(query); err == nil && asked.Question[0].String() != got.Question[0].String() {
			t.Fatalf("answer to %v, asked was %v", got.Question, asked.Question)
		}
	})
}
