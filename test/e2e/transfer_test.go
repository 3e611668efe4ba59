package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/lab"
)

// transfer is one TCP connection on which a seeded stream goes from one namespace to an address in another. Both ends sum
// what they see.
type transfer struct {
	from, to *lab.Namespace
	addr     netip.Addr
	local    netip.Addr    // to dial from; default the kernel's choice
	seen     netip.Addr    // as what the dialler has to be seen; default: anything
	size     int64         // bytes, in a short run a tenth of them; 0: until stop
	rate     float64       // bytes per second; 0: as fast as it goes
	timeout  time.Duration // for the whole; default 30 s
}

// result is what a transfer came to.
type result struct {
	bytes int64
	took  time.Duration
	stall time.Duration // the longest time in which nothing arrived
}

func (r result) gbits() float64 { return float64(r.bytes) * 8 / r.took.Seconds() / 1e9 }

func (r result) String() string {
	return fmt.Sprintf("%d MiB, %.2f Gbit/s, longest stall %v", r.bytes>>20, r.gbits(), r.stall.Round(time.Millisecond))
}

// running is a transfer under way.
type running struct {
	stopped context.CancelFunc
	sent    chan end
	arrived chan end
	bytes   atomic.Int64 // that have arrived
}

// end is what one end of a transfer saw.
type end struct {
	n     int64
	sum   uint32
	took  time.Duration
	stall time.Duration
	err   error
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// chunkSize is what is written at once, in bytes; every chunk differs from all others by the number in front.
const chunkSize = 256 << 10

// start connects and starts to send.
func (x transfer) start(t testing.TB) *running {
	t.Helper()
	if x.timeout == 0 {
		x.timeout = 30 * time.Second
	}
	x.size = fewer(x.size)
	l, err := lab.Sockets{Namespace: x.to, Congestion: "cubic"}.Listen("tcp", netip.AddrPortFrom(x.addr, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	dialler := lab.Sockets{Namespace: x.from, Congestion: "cubic"}
	if x.local.IsValid() {
		dialler.Local = netip.AddrPortFrom(x.local, 0)
	}
	c, err := dialler.Dial(ctx, "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if from := addrOf(accepted.RemoteAddr()); x.seen.IsValid() && from != x.seen {
		t.Errorf("a connection from %v to %v is seen as one from %v, want %v", c.LocalAddr(), x.addr, from, x.seen)
	}
	deadline := time.Now().Add(x.timeout)
	c.SetDeadline(deadline)
	accepted.SetDeadline(deadline)
	ctx, stop := context.WithCancel(t.Context())
	r := &running{stopped: stop, sent: make(chan end, 1), arrived: make(chan end, 1)}
	go func() { r.sent <- x.send(ctx, c) }()
	go func() { r.arrived <- receive(accepted, &r.bytes) }()
	return r
}

// more waits until n more bytes have arrived.
func (r *running) more(t testing.TB, n int64) {
	t.Helper()
	before := r.bytes.Load()
	eventually(t, fmt.Sprintf("%d bytes more arrive", n), func() bool { return r.bytes.Load() >= before+n })
}

// stop ends a transfer without a size.
func (r *running) stop() { r.stopped() }

// wait waits for the end and fails the test unless both ends saw the same.
func (r *running) wait(t testing.TB) result {
	t.Helper()
	sent, arrived := <-r.sent, <-r.arrived
	r.stopped()
	if sent.err != nil || arrived.err != nil || sent.n != arrived.n || sent.sum != arrived.sum {
		t.Errorf("sent %d bytes with sum %08x (%v), %d bytes with sum %08x (%v) arrived",
			sent.n, sent.sum, sent.err, arrived.n, arrived.sum, arrived.err)
	}
	return result{arrived.n, arrived.took, arrived.stall}
}

func (x transfer) run(t testing.TB) result {
	t.Helper()
	return x.start(t).wait(t)
}

func (x transfer) send(ctx context.Context, c net.Conn) (e end) {
	defer c.Close()
	chunk := make([]byte, chunkSize)
	fill(rand.New(rand.NewPCG(1, 2)), chunk)
	for start := time.Now(); ctx.Err() == nil && (x.size == 0 || e.n < x.size); {
		binary.BigEndian.PutUint64(chunk, uint64(e.n))
		b := chunk
		if left := x.size - e.n; x.size > 0 && left < chunkSize {
			b = b[:left]
		}
		if _, e.err = c.Write(b); e.err != nil {
			return e
		}
		e.n += int64(len(b))
		e.sum = crc32.Update(e.sum, castagnoli, b)
		if x.rate > 0 {
			time.Sleep(time.Until(start.Add(time.Duration(float64(e.n) / x.rate * float64(time.Second)))))
		}
	}
	return e
}

func receive(c net.Conn, count *atomic.Int64) (e end) {
	defer c.Close()
	b := make([]byte, chunkSize)
	start := time.Now()
	for last := start; ; {
		n, err := c.Read(b)
		now := time.Now()
		e.n += int64(n)
		count.Store(e.n)
		e.sum = crc32.Update(e.sum, castagnoli, b[:n])
		e.took, e.stall = now.Sub(start), max(e.stall, now.Sub(last))
		last = now
		if err == io.EOF {
			return e
		}
		if e.err = err; err != nil {
			return e
		}
	}
}

func fill(r *rand.Rand, b []byte) {
	for i := range b {
		b[i] = byte(r.Uint32())
	}
}

// addrOf returns the address of a socket's end.
func addrOf(a net.Addr) netip.Addr {
	ap, _ := netip.ParseAddrPort(a.String())
	return ap.Addr().Unmap()
}

// dialler connects from somewhere: a *lab.Namespace, or a lab.Sockets with an address of its own.
type dialler interface {
	Dial(ctx context.Context, network, addr string) (net.Conn, error)
}

// echoUDP sends datagrams of the given sizes, one after the other, and expects each back as it was.
func echoUDP(t testing.TB, from dialler, to *lab.Namespace, addr netip.Addr, sizes []int) {
	t.Helper()
	server, err := to.ListenPacket("udp", netip.AddrPortFrom(addr, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := server.ReadFrom(b)
			if err != nil {
				return
			}
			server.WriteTo(b[:n], from)
		}
	}()
	c, err := from.Dial(t.Context(), "udp", server.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	random := rand.New(rand.NewPCG(3, 4))
	got, want := make([]byte, 1<<16), make([]byte, 1<<16)
	for _, size := range sizes {
		fill(random, want[:size])
		persist(t, func() error {
			c.SetDeadline(time.Now().Add(2 * time.Second))
			if _, err := c.Write(want[:size]); err != nil {
				return fmt.Errorf("send %d bytes: %w", size, err)
			}
			n, err := c.Read(got)
			if err != nil {
				return fmt.Errorf("%d bytes to %v and back: %w", size, addr, err)
			}
			if string(got[:n]) != string(want[:size]) {
				return fmt.Errorf("%d bytes to %v: other %d bytes came back", size, addr, n)
			}
			return nil
		})
	}
}

// segmentsUDP sends 40 datagrams of a size and a shorter one by one UDP_SEGMENT send, as QUIC does, and expects each as it was.
func segmentsUDP(t testing.TB, from dialler, to *lab.Namespace, addr netip.Addr, size int) {
	t.Helper()
	server, err := to.ListenPacket("udp", netip.AddrPortFrom(addr, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	c, err := from.Dial(t.Context(), "udp", server.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, size) })
	if err != nil {
		t.Fatal(err)
	}
	want := make([]byte, 40*size+(size+1)/2)
	fill(rand.New(rand.NewPCG(13, 14)), want)
	switch _, err := c.Write(want); {
	case errors.Is(err, unix.EIO):
		t.Logf("before Linux 6.11 UDP_SEGMENT needs a device that takes checksums over, which this one does not: %v", err)
		return
	case err != nil:
		t.Fatalf("send segments of %d bytes: %v", size, err)
	}
	got := make([]byte, 1<<16)
	server.SetReadDeadline(time.Now().Add(2 * time.Second))
	for count := 0; len(want) > 0; count++ {
		n, _, err := server.ReadFrom(got)
		if err != nil {
			t.Errorf("segments of %d bytes to %v: after %d of them: %v", size, addr, count, err)
			return
		}
		if next := min(size, len(want)); string(got[:n]) != string(want[:next]) {
			t.Errorf("segments of %d bytes to %v: number %d has %d other bytes", size, addr, count, n)
			return
		}
		want = want[min(size, len(want)):]
	}
}
