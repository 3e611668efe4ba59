package udp

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/packet"
)

var loopbacks = []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")}

func listen(t testing.TB, c Config) *Conn {
	t.Helper()
	conn, err := Listen(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// message is a train to send: datagrams of segment bytes, each of a head and a payload part.
type message struct{ heads, payloads [][]byte }

func makeMessage(datagrams, segment, last int) (m message) {
	for i := range datagrams {
		n := segment
		if i == datagrams-1 {
			n = last
		}
		m.heads = append(m.heads, bytes.Repeat([]byte{byte(i)}, 10))
		m.payloads = append(m.payloads, bytes.Repeat([]byte{byte(i + 100)}, n-10))
	}
	return m
}

func (m message) add(b *Batch, to *Addr, segment int) { m.put(b, to, segment, packet.NotECT) }

func (m message) put(b *Batch, to *Addr, segment int, ecn packet.ECN) {
	b.Begin(to)
	for i := range m.heads {
		b.Part(m.heads[i])
		b.Part(m.payloads[i])
	}
	b.End(segment, ecn)
}

// datagrams receives n datagrams; trains tells whether any message held more than one.
func datagrams(t testing.TB, r *Receiver, n int, from netip.Addr) (got [][]byte, trains bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); len(got) < n; {
		for _, m := range r.Receive() {
			if m.From != from {
				t.Fatalf("from %v, want %v", m.From, from)
			}
			trains = trains || len(m.Data) > m.Segment
			for data := m.Data; len(data) > 0; {
				k := min(m.Segment, len(data))
				got = append(got, bytes.Clone(data[:k]))
				data = data[k:]
			}
		}
		if time.Now().After(end) {
			t.Fatalf("got %d of %d datagrams", len(got), n)
		}
	}
	return got, trains
}

// refuseTrains makes the kernel refuse UDP_SEGMENT on a socket: it does so without checksums.
func refuseTrains(t testing.TB, from, to *Conn) {
	t.Helper()
	err := unix.SetsockoptInt(from.fd, unix.SOL_SOCKET, unix.SO_NO_CHECK, 1)
	if from.v6 {
		err = errors.Join(unix.SetsockoptInt(from.fd, unix.SOL_UDP, unix.UDP_NO_CHECK6_TX, 1),
			unix.SetsockoptInt(to.fd, unix.SOL_UDP, unix.UDP_NO_CHECK6_RX, 1))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func noFailure(t testing.TB) func(int, int, error) {
	return func(_, n int, err error) { t.Errorf("%d datagrams were not sent: %v", n, err) }
}

// TestTrains: trains arrive datagram for datagram, whether the kernel segments them or, once the route has refused, we do.
func TestTrains(t *testing.T) {
	for _, ip := range loopbacks {
		for _, refused := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v/refused=%v", ip, refused), func(t *testing.T) {
				in := listen(t, Config{Local: netip.AddrPortFrom(ip, 0), Trains: true})
				out := listen(t, Config{Local: netip.AddrPortFrom(ip, 0)})
				b, r, to := NewBatch(out), NewReceiver(in), NewAddr(in.Local())
				if refused {
					refuseTrains(t, out, in)
				}
				var want [][]byte
				for _, m := range []struct {
					message
					segment int
				}{
					{makeMessage(1, 100, 100), 0},
					{makeMessage(MaxTrain, 1000, 1000), 1000},
					{makeMessage(44, 1472, 700), 1472},
					{makeMessage(1, 1400, 1400), 0},
				} {
					m.add(b, to, m.segment)
					for i := range m.heads {
						want = append(want, append(bytes.Clone(m.heads[i]), m.payloads[i]...))
					}
				}
				b.Flush(noFailure(t))
				if !b.Empty() {
					t.Error("the batch is not empty after Flush")
				}
				got, trains := datagrams(t, r, len(want), ip)
				for i := range want {
					if !bytes.Equal(got[i], want[i]) {
						t.Fatalf("datagram %d: got %d bytes % x…, want %d bytes % x…", i, len(got[i]), got[i][:12], len(want[i]), want[i][:12])
					}
				}
				if trains == refused {
					t.Errorf("received trains: %v, want %v", trains, !refused)
				}
				if to.RefusesTrains() != refused || refused && !errors.Is(to.Refusal(), unix.EINVAL) {
					t.Errorf("the route refused trains: %v", to.Refusal())
				}
				if to.RetryTrains(); to.RefusesTrains() || to.Refusal() != nil {
					t.Error("the route is not tried again")
				}
			})
		}
	}
}

// TestFailures: what the kernel refuses is told, and does not hold up what comes after it.
func TestFailures(t *testing.T) {
	in := listen(t, Config{Local: netip.AddrPortFrom(loopbacks[0], 0)})
	out := listen(t, Config{Local: netip.AddrPortFrom(loopbacks[0], 0)})
	b, r, to := NewBatch(out), NewReceiver(in), NewAddr(in.Local())
	makeMessage(1, 100, 100).add(b, to, 0)
	makeMessage(2, 40000, 40000).add(b, to, 0) // 80,000 bytes in one datagram
	makeMessage(1, 200, 200).add(b, to, 0)
	var failures []string
	b.Flush(func(before, n int, err error) { failures = append(failures, fmt.Sprint(before, n, IsTooBig(err))) })
	if fmt.Sprint(failures) != "[1 1 true]" {
		t.Errorf("failures: %v, want one datagram, the second, that is too big", failures)
	}
	got, _ := datagrams(t, r, 2, loopbacks[0])
	if len(got[0]) != 100 || len(got[1]) != 200 {
		t.Errorf("got %d and %d bytes, want 100 and 200", len(got[0]), len(got[1]))
	}
}

// TestECN: datagrams arrive with the ECN field that they were sent with, trains and single ones, side by side in one call.
func TestECN(t *testing.T) {
	for _, ip := range loopbacks {
		for _, refused := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v/refused=%v", ip, refused), func(t *testing.T) {
				in := listen(t, Config{Local: netip.AddrPortFrom(ip, 0), Trains: true})
				out := listen(t, Config{Local: netip.AddrPortFrom(ip, 0)})
				b, r, to := NewBatch(out), NewReceiver(in), NewAddr(in.Local())
				if refused {
					refuseTrains(t, out, in)
				}
				fields := []packet.ECN{packet.NotECT, packet.CE, packet.ECT0, packet.ECT1, packet.NotECT}
				var want []packet.ECN
				for _, ecn := range fields {
					for _, n := range []int{1, 3} {
						segment := 0
						if n > 1 {
							segment = 500
						}
						makeMessage(n, 500, 500).put(b, to, segment, ecn)
						for range n {
							want = append(want, ecn)
						}
					}
				}
				b.Flush(noFailure(t))
				var got []packet.ECN
				for end := time.Now().Add(10 * time.Second); len(got) < len(want) && time.Now().Before(end); {
					for _, m := range r.Receive() {
						for n := len(m.Data); n > 0; n -= m.Segment {
							got = append(got, m.ECN)
						}
					}
				}
				if !slices.Equal(got, want) {
					t.Errorf("got  %v\nwant %v", got, want)
				}
			})
		}
	}
}

func TestFits(t *testing.T) {
	out := listen(t, Config{Local: netip.AddrPortFrom(loopbacks[0], 0)})
	b, to := NewBatch(out), NewAddr(netip.AddrPortFrom(loopbacks[0], 9))
	n := 0
	for b.Fits(2) {
		b.Begin(to)
		b.Part([]byte{1})
		b.Part([]byte{2})
		b.End(0, packet.NotECT)
		n++
	}
	if n != maxMessages {
		t.Errorf("%d messages fit, want %d", n, maxMessages)
	}
	if NewBatch(out).Fits(maxParts + 1) {
		t.Error("more parts fit than the kernel takes")
	}
}

func TestListenErrors(t *testing.T) {
	taken := listen(t, Config{Local: netip.AddrPortFrom(loopbacks[0], 0)}).Local()
	for _, tt := range []struct {
		local netip.AddrPort
		want  string
	}{
		{taken, "another program has this port"},
		{netip.MustParseAddrPort("192.0.2.1:9"), "no interface of this node has that address"},
	} {
		if c, err := Listen(Config{Local: tt.local}); err == nil {
			c.Close()
			t.Errorf("%v: no error", tt.local)
		} else if !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: %v, want %q", tt.local, err, tt.want)
		}
	}
}

// TestProbe: the kernel that runs the tests has the offloads; a socket that is none has not.
func TestProbe(t *testing.T) {
	for _, ip := range loopbacks {
		if o, err := Probe(Config{Local: netip.AddrPortFrom(ip, 0)}); err != nil || o.Segment != nil || o.GRO != nil {
			t.Errorf("%v: %+v, %v", ip, o, err)
		}
	}
	stream := func(domain, typ, _ int) (int, error) {
		return unix.Socket(domain, typ&^unix.SOCK_DGRAM|unix.SOCK_STREAM, unix.IPPROTO_TCP)
	}
	if o, err := Probe(Config{Local: netip.AddrPortFrom(loopbacks[0], 0), Socket: stream}); err != nil || o.Segment == nil || o.GRO == nil {
		t.Errorf("a TCP socket: %+v, %v", o, err)
	}
}

func TestShared(t *testing.T) {
	first := listen(t, Config{Local: netip.AddrPortFrom(loopbacks[0], 0), Shared: true})
	second := listen(t, Config{Local: first.Local(), Shared: true})
	if first.Local() != second.Local() {
		t.Errorf("bound to %v and %v", first.Local(), second.Local())
	}
}

// TestSocket: a socket may be made elsewhere, and its error is told.
func TestSocket(t *testing.T) {
	made := -1
	in := listen(t, Config{Local: netip.AddrPortFrom(loopbacks[0], 0), Socket: func(domain, typ, proto int) (fd int, err error) {
		if domain != unix.AF_INET || proto != unix.IPPROTO_UDP {
			t.Errorf("asked for domain %d and protocol %d", domain, proto)
		}
		made, err = unix.Socket(domain, typ, proto)
		return made, err
	}})
	if in.FD() != made {
		t.Errorf("descriptor %d, want the one that was made, %d", in.FD(), made)
	}
	refuse := func(int, int, int) (int, error) { return -1, unix.EMFILE }
	if _, err := Listen(Config{Local: netip.AddrPortFrom(loopbacks[0], 0), Socket: refuse}); !errors.Is(err, unix.EMFILE) {
		t.Errorf("got %v, want %v", err, unix.EMFILE)
	}
}

func TestNoAllocs(t *testing.T) {
	in := listen(t, Config{Local: netip.AddrPortFrom(loopbacks[0], 0), Trains: true})
	out := listen(t, Config{Local: netip.AddrPortFrom(loopbacks[0], 0)})
	b, r, to := NewBatch(out), NewReceiver(in), NewAddr(in.Local())
	m, failed := makeMessage(44, 1472, 1472), noFailure(t)
	for _, ecn := range []packet.ECN{packet.NotECT, packet.CE} {
		got := testing.AllocsPerRun(100, func() {
			m.put(b, to, 1472, ecn)
			b.Flush(failed)
			for len(r.Receive()) == 0 {
			}
		})
		if got != 0 {
			t.Errorf("%v allocations a train with ECN field %d", got, ecn)
		}
	}
}
