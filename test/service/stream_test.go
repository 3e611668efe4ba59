package service

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/middleway-net/middleway/lab"
)

// stream is one TCP connection on which bytes go from a client to a backend. Both ends sum what they see.
type stream struct {
	conn    net.Conn // the client's end
	stop    context.CancelFunc
	arrived atomic.Int64
	sent    chan sum
	got     chan sum
	mtu     int // of the way, as the client's kernel knew it at the end
}

// sum is what one end saw.
type sum struct {
	n    int64
	crc  uint32
	took time.Duration
	err  error
}

// chunk is what is written at once, in bytes; each differs from all others by the number in front.
const chunk = 256 << 10

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// startStream connects through a frontend to a backend that it starts at port 8080 of an address, and sends size bytes, or until the stream
// is stopped if size is 0.
func startStream(t *testing.T, from *lab.Namespace, to netip.AddrPort, backend *lab.Namespace, addr netip.Addr, size int64) *stream {
	t.Helper()
	l, err := backend.Listen("tcp", netip.AddrPortFrom(addr, targetPort).String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := &stream{sent: make(chan sum, 1), got: make(chan sum, 1)}
	if s.conn, err = dial(from, "tcp", to, patience); err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	_ = s.conn.SetDeadline(deadline)
	_ = accepted.SetDeadline(deadline)
	ctx, stop := context.WithCancel(t.Context())
	s.stop = stop
	go func() { s.sent <- s.send(ctx, size) }()
	go func() { s.got <- s.receive(accepted) }()
	return s
}

func (s *stream) send(ctx context.Context, size int64) (e sum) {
	defer s.conn.Close()
	buf, random := make([]byte, chunk), rand.New(rand.NewPCG(1, 2))
	for i := 0; i < len(buf); i += 8 {
		binary.NativeEndian.PutUint64(buf[i:], random.Uint64())
	}
	for ctx.Err() == nil && (size == 0 || e.n < size) {
		binary.BigEndian.PutUint64(buf, uint64(e.n))
		b := buf
		if left := size - e.n; size > 0 && left < chunk {
			b = b[:left]
		}
		if _, e.err = s.conn.Write(b); e.err != nil {
			return e
		}
		e.n += int64(len(b))
		e.crc = crc32.Update(e.crc, castagnoli, b)
	}
	s.mtu, e.err = pathMTU(s.conn)
	return e
}

func (s *stream) receive(c net.Conn) (e sum) {
	defer c.Close()
	begin, buf := time.Now(), make([]byte, chunk)
	for {
		n, err := c.Read(buf)
		e.n += int64(n)
		e.crc = crc32.Update(e.crc, castagnoli, buf[:n])
		s.arrived.Store(e.n)
		e.took = time.Since(begin)
		if err == io.EOF {
			return e
		}
		if e.err = err; err != nil {
			return e
		}
	}
}

// more waits until a MiB more has arrived.
func (s *stream) more(t *testing.T) {
	t.Helper()
	before := s.arrived.Load()
	eventually(t, "more arrives", func() bool { return s.arrived.Load() >= before+1<<20 })
}

// wait waits for the end, fails the test unless both ends saw the same, and says how much that was.
func (s *stream) wait(t *testing.T) string {
	t.Helper()
	sent, got := <-s.sent, <-s.got
	s.stop()
	if sent.err != nil || got.err != nil || sent.n != got.n || sent.crc != got.crc {
		t.Errorf("sent %d bytes with sum %08x (%v), %d bytes with sum %08x (%v) arrived", sent.n, sent.crc, sent.err, got.n, got.crc, got.err)
	}
	return fmt.Sprintf("%d MiB in %v", got.n>>20, got.took.Round(time.Millisecond))
}
