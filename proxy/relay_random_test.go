package proxy

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/middleway-net/middleway/stack/packet"
)

// randomPod is a pod whose link loses segments, which announces whatever window, and sends again when it likes. Offsets are of streams;
// an end is one more byte.
type randomPod struct {
	*relayBed
	r        *rand.Rand
	up, down []byte
	// Of what it sends: acknowledged, next, and up to where it may.
	una, nxt, edge int
	most           int // of nxt
	// Of what it receives: the next byte, and up to where it has room.
	got, room int
	owes      int // answers
	over      bool
	from, to  seq // of the first bytes
}

func newRandomPod(t *testing.T, seed uint64) (*randomPod, *net.TCPConn) {
	r := rand.New(rand.NewPCG(seed, 7))
	p := &randomPod{relayBed: newRelayBed(t, local, Config{}), r: r, up: random(r.IntN(400_000), 1), down: random(r.IntN(400_000), 2)}
	p.next = seq(r.Uint32())
	if seed%2 == 0 {
		p.next = -seq(r.IntN(len(p.up) + 1))
	}
	go drain(p.own)
	c := p.open(synOptions)
	p.from, p.to, p.edge = p.next, p.heard, 65535
	p.room = p.window << 7
	return p, c
}

// step lets a few milliseconds pass.
func (p *randomPod) step() {
	p.tcp.started = p.tcp.started.Add(-time.Duration(p.r.IntN(10)) * time.Millisecond)
	p.turn()
	p.e.takeTicks()
	p.e.Flush()
	sent := p.sent
	p.sent = nil
	for _, b := range sent {
		var h packet.Parsed
		if packet.Parse(b, &h); p.r.IntN(10) > 0 {
			p.take(readSegment(b, &h))
		}
	}
	if p.over {
		return
	}
	if p.r.IntN(10) == 0 {
		p.window = []int{0, 1, 100, 500, 5000}[p.r.IntN(5)]
	}
	if p.r.IntN(20) == 0 {
		p.nxt = p.una
	}
	for range p.r.IntN(4) {
		p.send()
	}
	for ; p.owes > 0; p.owes-- {
		p.put(p.nxt, packet.ACK, nil)
	}
	if p.r.IntN(20) == 0 {
		p.put(p.nxt, packet.ACK, nil)
	}
}

// take takes a segment.
func (p *randomPod) take(s heard) {
	switch {
	case s.flags&packet.RST != 0:
		p.over = true
		return
	case p.over: // its kernel knows no such connection
		p.deliverTo(p.e, p.segment(s.ack, packet.RST, nil, nil))
		return
	}
	if ack := s.ack.minus(p.from); ack > p.most {
		p.t.Errorf("%d is acknowledged, %d were sent", ack, p.most)
	} else {
		p.una = max(p.una, ack)
		p.nxt = max(p.nxt, p.una)
		p.edge = max(p.edge, ack+s.window<<windowScale)
	}
	at, n := s.seq.minus(p.to), len(s.data)
	if s.flags&packet.FIN != 0 {
		n++
	}
	if n > 0 || at != p.got {
		p.owes++
	}
	if at > p.got || at+n <= p.got {
		return
	}
	end := at + len(s.data)
	if end > len(p.down) || !bytes.Equal(s.data, p.down[at:end]) {
		p.t.Fatalf("%d bytes from %d on differ", len(s.data), at)
	}
	if at+n > len(p.down) && end != len(p.down) {
		p.t.Fatalf("the end came after %d bytes, want %d", end, len(p.down))
	}
	p.got = min(at+n, max(p.room, p.got))
}

// send sends what comes next, as much as may be.
func (p *randomPod) send() {
	n := min(1+p.r.IntN(20_000), p.edge-p.nxt, len(p.up)-p.nxt)
	if n < 0 || n == 0 && p.nxt < len(p.up) {
		return
	}
	flags := uint8(packet.ACK)
	if p.nxt+n == len(p.up) {
		flags |= packet.FIN
	}
	p.put(p.nxt, flags, p.up[p.nxt:p.nxt+n])
	if p.nxt += n; flags&packet.FIN != 0 {
		p.nxt++
	}
}

func (p *randomPod) put(at int, flags uint8, data []byte) {
	end := at + len(data)
	if flags&packet.FIN != 0 {
		end++
	}
	p.most = max(p.most, end)
	p.heard, p.room = p.to+seq(p.got), max(p.room, p.got+p.window<<7)
	if p.r.IntN(10) > 0 {
		p.deliverTo(p.e, p.segment(p.from+seq(at), flags, nil, data))
	}
}

func (p *randomPod) until(what string, holds func() bool) {
	p.t.Helper()
	for end := time.Now().Add(60 * time.Second); !holds(); time.Sleep(20 * time.Microsecond) {
		if p.step(); time.Now().After(end) {
			p.t.Fatalf("not within a minute: %s; of %d sent %d are acknowledged, of %d received %d: %+v", what, len(p.up), p.una, len(p.down), p.got, p.e.conns)
		}
	}
}

// TestRelayRandomly: both streams arrive whole, or the connection is reset by whoever resets it, and nothing is left of it.
func TestRelayRandomly(t *testing.T) {
	for seed := range uint64(24) {
		how := []string{"both end", "both end", "the pod resets", "the server resets"}[seed%4]
		t.Run(fmt.Sprintf("%d: %s", seed, how), func(t *testing.T) {
			p, c := newRandomPod(t, seed)
			limit := len(p.up) + 1
			if how == "the server resets" {
				limit = p.r.IntN(limit)
			}
			served := make(chan []byte, 1)
			go func() { served <- serveRandomly(c, p.down, limit, how == "the server resets") }()
			if how == "the pod resets" {
				some := p.r.IntN(len(p.down) + 1)
				p.until("some is received", func() bool { return p.got >= some })
				p.over = true
				p.deliverTo(p.e, p.segment(p.from+seq(p.nxt), packet.RST, nil, nil))
			}
			if how == "both end" {
				p.until("both have ended", func() bool { return p.una == len(p.up)+1 && p.got == len(p.down)+1 })
				if got := <-served; !bytes.Equal(got, p.up) {
					t.Errorf("%d bytes came, want %d, or they differ", len(got), len(p.up))
				}
			}
			p.until("nothing is left", func() bool { return len(p.e.conns) == 0 })
			p.expectClosed()
		})
	}
}

// serveRandomly sends data and its end while it receives, up to a limit.
func serveRandomly(c *net.TCPConn, data []byte, limit int, resets bool) []byte {
	go func() {
		for len(data) > 0 {
			n, err := c.Write(data[:min(len(data), 3000)])
			if err != nil {
				return
			}
			data = data[n:]
		}
		_ = c.CloseWrite()
	}()
	time.Sleep(10 * time.Millisecond)
	got, _ := io.ReadAll(io.LimitReader(c, int64(limit)))
	if resets {
		_ = c.SetLinger(0)
		_ = c.Close()
	}
	return got
}
