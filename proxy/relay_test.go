package proxy

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
)

// relayBed is a worker's exit, driven by the test in the worker's place, and a pod whose segments the test writes by hand.
type relayBed struct {
	*node
	e      *Exit
	sent   [][]byte // to the pod, not looked at
	listen *net.TCPListener
	podAt  netip.AddrPort
	to     netip.AddrPort
	next   seq // of the pod
	heard  seq // up to where the pod has heard
	window int // that the pod announces
}

// newRelayBed listens at an address of this host.
func newRelayBed(t testing.TB, at netip.Addr, c Config) *relayBed {
	t.Helper()
	b := &relayBed{node: start(t, c), podAt: netip.AddrPortFrom(podA, 4000), next: 1000, window: 65535}
	if at.Is6() {
		b.podAt = netip.AddrPortFrom(podA6, 4000)
	}
	b.e = b.exit(&b.sent)
	var err error
	b.listen, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(at, 0)))
	must(t, err)
	b.to = b.listen.Addr().(*net.TCPAddr).AddrPort()
	t.Cleanup(func() { b.listen.Close() })
	b.awaitRunning()
	return b
}

// awaitRunning waits until connections are taken.
func (n *node) awaitRunning() {
	n.t.Helper()
	eventually(n.t, "the proxy runs", func() bool {
		n.tcp.mu.Lock()
		defer n.tcp.mu.Unlock()
		return !n.tcp.closed
	})
}

// exit makes a worker's. What it sends is kept in sent, if that is not nil.
func (n *node) exit(sent *[][]byte) *Exit {
	e, err := n.Exit(func(o packet.Offload, parts ...[]byte) {
		frame := make([]byte, packet.VnetLen)
		o.Encode(frame)
		frame = append(frame, slices.Concat(parts...)...)
		var h packet.Parsed
		if r := packet.Parse(frame[packet.VnetLen:], &h); r != packet.Kept {
			n.t.Errorf("a segment was sent that does not parse: %v", r)
		} else if r := o.Check(frame[packet.VnetLen:], &h); r != packet.Kept {
			n.t.Errorf("a segment was sent whose offload contradicts it: %v", r)
		}
		if sent != nil {
			*sent = append(*sent, packettest.Split(frame)...)
		}
	})
	must(n.t, err)
	n.t.Cleanup(func() {
		e.Stop()
		e.Close()
	})
	return e
}

// say has the pod send a segment at its next sequence number.
func (b *relayBed) say(flags uint8, options, data []byte) {
	b.t.Helper()
	b.sayAt(b.next, flags, options, data)
	b.next += seq(len(data))
	if flags&(packet.SYN|packet.FIN) != 0 {
		b.next++
	}
}

func (b *relayBed) sayAt(at seq, flags uint8, options, data []byte) {
	b.t.Helper()
	b.deliverTo(b.e, b.segment(at, flags, options, data))
}

func (b *relayBed) segment(at seq, flags uint8, options, data []byte) []byte {
	f := packet.NewFlow(packet.TCP, b.podAt, b.to)
	s := said{seq: at, ack: b.heard, flags: flags, window: b.window, options: options, data: data}
	if flags&packet.ACK == 0 {
		s.ack = 0
	}
	p := make([]byte, maxTCPHeaders+64)
	n, o := s.put(p, &f)
	p = append(p[:n], data...)
	packet.FinishChecksum(p, &o)
	return p
}

func (b *relayBed) deliverTo(e *Exit, p []byte) {
	b.t.Helper()
	var h packet.Parsed
	if r := packet.Parse(p, &h); r != packet.Kept {
		b.t.Fatal(r)
	}
	e.Deliver(p, &h, packet.Offload{})
	e.Flush()
}

// turn lets the worker look at its sockets once.
func (b *relayBed) turn() {
	b.e.Ready()
	b.e.Flush()
}

// expect returns the next segment to the pod.
func (b *relayBed) expect() heard {
	b.t.Helper()
	for end := time.Now().Add(10 * time.Second); len(b.sent) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatal("no segment came within 10 s")
		}
		b.turn()
	}
	p := b.sent[0]
	b.sent = b.sent[1:]
	var h packet.Parsed
	if r := packet.Parse(p, &h); r != packet.Kept || !packet.TransportChecksumOK(p, &h) {
		b.t.Fatalf("%v, or a wrong checksum: %x", r, p)
	}
	if want := packet.NewFlow(packet.TCP, b.to, b.podAt); h.Flow != want {
		b.t.Fatalf("got a segment of %v, want %v", h.Flow, want)
	}
	return readSegment(p, &h)
}

// expectFlags checks the next segment's flags, but PSH.
func (b *relayBed) expectFlags(want uint8) heard {
	b.t.Helper()
	s := b.expect()
	if s.flags&^packet.PSH != want {
		b.t.Fatalf("got flags %06b, want %06b", s.flags, want)
	}
	return s
}

// expectSilence checks that nothing is sent to the pod.
func (b *relayBed) expectSilence() {
	b.t.Helper()
	for range 3 {
		time.Sleep(10 * time.Millisecond)
		b.turn()
	}
	if len(b.sent) > 0 {
		b.t.Fatalf("got %d segments, want none", len(b.sent))
	}
}

// hear takes a segment as the pod that has got all before it, and acknowledges it.
func (b *relayBed) hear(s heard) {
	b.t.Helper()
	if s.seq != b.heard {
		b.t.Fatalf("got data from %d on, want %d", s.seq, b.heard)
	}
	b.heard += seq(len(s.data))
	if s.flags&packet.FIN != 0 {
		b.heard++
	}
	b.say(packet.ACK, nil, nil)
}

// Options of a pod's SYN: an MSS of 1400 bytes and a window scale of 7.
var synOptions = []byte{optionMSS, 4, 1400 >> 8, 1400 & 0xff, optionNop, optionWindow, 3, 7}

// open opens the pod's connection and returns it as the server has it.
func (b *relayBed) open(options []byte) *net.TCPConn {
	b.t.Helper()
	b.say(packet.SYN, options, nil)
	s := b.expectFlags(packet.SYN | packet.ACK)
	if s.ack != b.next {
		b.t.Fatalf("the answer acknowledges %d, want %d", s.ack, b.next)
	}
	b.heard = s.seq + 1
	b.say(packet.ACK, nil, nil)
	_ = b.listen.SetDeadline(time.Now().Add(10 * time.Second))
	c, err := b.listen.AcceptTCP()
	must(b.t, err)
	b.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

// conn returns the exit's only connection.
func (b *relayBed) conn() *relayed {
	b.t.Helper()
	if len(b.e.conns) != 1 {
		b.t.Fatalf("got %d connections, want 1", len(b.e.conns))
	}
	for _, c := range b.e.conns {
		return c
	}
	return nil
}

func (b *relayBed) expectClosed() {
	b.t.Helper()
	eventually(b.t, "the connection is forgotten", func() bool {
		b.turn()
		return len(b.e.conns) == 0
	})
	if b.e.kept != 0 || len(b.e.free) != len(b.e.slots) || len(b.tcp.relays.all) != 0 {
		b.t.Errorf("%d bytes are kept, of %d slots %d are free, %d flows are known", b.e.kept, len(b.e.slots), len(b.e.free), len(b.tcp.relays.all))
	}
	if n := b.Stats().TCP.Open; n != 0 {
		b.t.Errorf("%d connections are counted as open", n)
	}
}

func mustWrite(t testing.TB, c net.Conn, data []byte) {
	t.Helper()
	if n, err := c.Write(data); err != nil || n != len(data) {
		t.Fatalf("wrote %d bytes: %v", n, err)
	}
}

func expectRead(t testing.TB, c net.Conn, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("read %d bytes (%v), want %d, or they differ", n, err, len(want))
	}
}

func expectEOF(t testing.TB, c net.Conn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("read %d bytes, %v, want %v", n, err, io.EOF)
	}
}

// TestRelay: a question and its answer, with the pod's end first, over both families.
func TestRelay(t *testing.T) {
	for _, at := range []netip.Addr{local, local6} {
		t.Run(at.String(), func(t *testing.T) {
			b := newRelayBed(t, at, Config{})
			c := b.open(synOptions)
			question, answer := pattern(3000), pattern(5000)
			b.say(packet.ACK|packet.PSH, nil, question)
			if s := b.expectFlags(packet.ACK); s.ack != b.next {
				t.Errorf("%d is acknowledged, want %d", s.ack, b.next)
			}
			expectRead(t, c, question)
			mustWrite(t, c, answer)
			var got []byte
			for len(got) < len(answer) {
				s := b.expectFlags(packet.ACK)
				if most := 1400; len(s.data) > most {
					t.Errorf("a segment has %d bytes, the pod takes %d", len(s.data), most)
				}
				got = append(got, s.data...)
				b.hear(s)
			}
			if !bytes.Equal(got, answer) {
				t.Error("the answer is another")
			}
			b.say(packet.FIN|packet.ACK, nil, nil)
			b.expectFlags(packet.ACK)
			expectEOF(t, c)
			mustWrite(t, c, []byte("still here"))
			b.hear(b.expectFlags(packet.ACK))
			c.Close()
			b.hear(b.expectFlags(packet.FIN | packet.ACK))
			b.expectClosed()
		})
	}
}

// TestRelayOptions: a window scale is announced to whom announces one, and the MSS is what the pods' devices take.
func TestRelayOptions(t *testing.T) {
	for _, tt := range []struct {
		name    string
		options []byte
		mss     int // of segments to the pod
		want    offer
	}{
		{"all", synOptions, 1400, offer{mss: 1410, scale: windowScale, scales: true}},
		{"none", nil, defaultMSS4, offer{mss: 1410}},
		{"larger than the MTU", []byte{optionMSS, 4, 0x23, 0}, 1410, offer{mss: 1410}},
		{"cut off", []byte{optionNop, optionNop, optionWindow, 9}, defaultMSS4, offer{mss: 1410}},
		{"of length 0", []byte{optionMSS, 0, 5, 0}, defaultMSS4, offer{mss: 1410}},
		{"absurd", []byte{optionMSS, 4, 0, 1, optionWindow, 3, 255, optionEnd}, 64, offer{mss: 1410, scale: windowScale, scales: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newRelayBed(t, local, Config{MTU: 1450})
			b.say(packet.SYN, tt.options, nil)
			for range 2 { // again for who has not heard it
				s := b.expectFlags(packet.SYN | packet.ACK)
				if got := readOffer(s.options); got != tt.want {
					t.Errorf("got %+v, want %+v", got, tt.want)
				}
				b.sayAt(b.next-1, packet.SYN, tt.options, nil)
			}
			if c := b.conn(); c.mss != tt.mss || c.podScale > maxScale {
				t.Errorf("segments of %d bytes, scale %d; want %d and at most %d", c.mss, c.podScale, tt.mss, maxScale)
			}
		})
	}
}

func TestRelayRefused(t *testing.T) {
	for _, at := range []netip.Addr{local, local6} {
		b := newRelayBed(t, at, Config{})
		b.listen.Close()
		b.say(packet.SYN, nil, nil)
		if s := b.expectFlags(packet.RST | packet.ACK); s.ack != b.next || s.seq != 0 {
			t.Errorf("got %d and %d, want 0 and %d", s.seq, s.ack, b.next)
		}
		b.expectClosed()
	}
}

// TestRelayLoss: what the pod does not acknowledge it gets again, after a time, and at once when it says so.
func TestRelayLoss(t *testing.T) {
	b := newRelayBed(t, local, Config{})
	c := b.open(synOptions)
	data := pattern(1000)
	mustWrite(t, c, data)
	first := b.expectFlags(packet.ACK)
	began := time.Now()
	second := b.expectFlags(packet.ACK)
	if second.seq != first.seq || !bytes.Equal(second.data, data) {
		t.Errorf("got %d bytes from %d on again, want %d from %d on", len(second.data), second.seq, len(data), first.seq)
	}
	if waited := time.Since(began); waited < firstTimeout-tick {
		t.Errorf("sent again after %v, want %v at least", waited, firstTimeout)
	}
	b.hear(second)

	mustWrite(t, c, data)
	lost := b.expectFlags(packet.ACK)
	mustWrite(t, c, data)
	b.expectFlags(packet.ACK) // overtakes
	for range enoughRepeats {
		b.say(packet.ACK, nil, nil)
	}
	if again := b.sent; len(again) == 0 {
		t.Fatal("three repeated acknowledgments: nothing is sent again at once")
	}
	again := b.expectFlags(packet.ACK)
	if again.seq != lost.seq || !bytes.Equal(again.data, lost.data) {
		t.Errorf("got %d bytes from %d on, want %d from %d on", len(again.data), again.seq, len(lost.data), lost.seq)
	}
	b.heard += seq(len(data)) - 400 // a part of it
	b.say(packet.ACK, nil, nil)
	rest := b.expectFlags(packet.ACK) // after a time
	if rest.seq != b.heard || !bytes.Equal(rest.data, data[600:]) {
		t.Errorf("got %d bytes from %d on, want %d from %d on", len(rest.data), rest.seq, 400, b.heard)
	}
}

// TestRelayOvertaken: of what comes before something that was lost nothing is kept, and the pod is told each time.
func TestRelayOvertaken(t *testing.T) {
	b := newRelayBed(t, local, Config{})
	c := b.open(synOptions)
	lost, first := pattern(100), b.next
	b.next += seq(len(lost))
	for range enoughRepeats {
		b.say(packet.ACK, nil, pattern(100))
		if s := b.expectFlags(packet.ACK); s.ack != first {
			t.Errorf("%d is acknowledged, want %d", s.ack, first)
		}
	}
	b.sayAt(first, packet.ACK, nil, lost)
	if s := b.expectFlags(packet.ACK); s.ack != first+100 {
		t.Errorf("%d is acknowledged, want %d", s.ack, first+100)
	}
	expectRead(t, c, lost)
	b.sayAt(first+50, packet.ACK, nil, pattern(100)) // half of it is old
	if s := b.expectFlags(packet.ACK); s.ack != first+150 {
		t.Errorf("%d is acknowledged, want %d", s.ack, first+150)
	}
	expectRead(t, c, pattern(100)[50:])
	b.sayAt(first, packet.ACK, nil, lost) // all of it is
	if s := b.expectFlags(packet.ACK); s.ack != first+150 {
		t.Errorf("%d is acknowledged, want %d", s.ack, first+150)
	}
}

// TestRelayWindow: the pod gets no more than it takes, is asked how much that is when it says nothing, and gets the rest.
func TestRelayWindow(t *testing.T) {
	b := newRelayBed(t, local, Config{})
	b.window = 10 // scaled by 7: 1280 bytes
	c := b.open(synOptions)
	data := pattern(4000)
	mustWrite(t, c, data)
	var got []byte
	for len(got) < 1280 {
		s := b.expectFlags(packet.ACK)
		got = append(got, s.data...)
		b.heard += seq(len(s.data))
	}
	if len(got) > 1280 {
		t.Fatalf("got %d bytes, the window has 1280", len(got))
	}
	b.window = 0
	b.say(packet.ACK, nil, nil)
	if s := b.expect(); len(s.data) > 0 || s.seq != b.heard-1 {
		t.Errorf("got %d bytes at %d, want a question at %d", len(s.data), s.seq, b.heard-1)
	}
	b.window = 65535
	b.say(packet.ACK, nil, nil)
	for len(got) < len(data) {
		s := b.expectFlags(packet.ACK)
		got = append(got, s.data...)
		b.hear(s)
	}
	if !bytes.Equal(got, data) {
		t.Error("the data are others")
	}
}

// TestRelayFull: what a socket does not take waits, up to where the pod was told that it may send; that is never taken back.
func TestRelayFull(t *testing.T) {
	b := newRelayBed(t, local, Config{})
	c := b.open(synOptions)
	r := rand.New(rand.NewPCG(1, 2))
	var sent []byte
	edge := b.conn().edge
	for range 20000 {
		b.turn()
		room := edge.minus(b.next)
		if room <= 0 {
			break
		}
		data := make([]byte, min(room, 1+r.IntN(60000)))
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		b.say(packet.ACK, nil, data)
		sent = append(sent, data...)
		s := b.expectFlags(packet.ACK)
		if s.ack != b.next {
			t.Fatalf("%d is acknowledged, want %d: it lay in the window", s.ack, b.next)
		}
		if now := s.ack + seq(s.window<<windowScale); now.minus(edge) < -(1 << windowScale) {
			t.Fatalf("the window's end went back by %d", -now.minus(edge))
		}
		edge = b.conn().edge
	}
	if b.conn().waiting.empty() {
		t.Fatalf("nothing waits after %d bytes", len(sent))
	}
	if n := b.conn().waiting.len(); n > mostWindow {
		t.Errorf("%d bytes wait, want %d at most", n, mostWindow)
	}
	b.say(packet.FIN|packet.ACK, nil, nil)
	got := make(chan []byte, 1)
	go func() {
		all, _ := io.ReadAll(c)
		got <- all
	}()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		b.turn()
		select {
		case all := <-got:
			if !bytes.Equal(all, sent) {
				t.Errorf("%d bytes came, %d were sent, or they differ", len(all), len(sent))
			}
			return
		default:
		}
	}
	t.Error("the end did not come within 20 s")
}

// TestRelayResets: who resets, and what does not (RFC 5961).
func TestRelayResets(t *testing.T) {
	b := newRelayBed(t, local, Config{})
	c := b.open(synOptions)
	b.sayAt(b.next+1<<30, packet.RST, nil, nil)
	b.expectSilence()
	for _, flags := range []uint8{packet.RST, packet.SYN} {
		b.sayAt(b.next+10, flags, nil, nil)
		if s := b.expectFlags(packet.ACK); s.ack != b.next {
			t.Errorf("flags %06b: %d is acknowledged, want %d", flags, s.ack, b.next)
		}
	}
	b.say(packet.ACK, nil, []byte("hello"))
	b.expectFlags(packet.ACK)
	expectRead(t, c, []byte("hello"))
	b.sayAt(b.next, packet.RST, nil, nil)
	b.expectClosed()
	expectReset(t, c)
}

func TestRelayResetByOutside(t *testing.T) {
	for _, ended := range []bool{false, true} {
		t.Run(fmt.Sprintf("after the outside's end=%v", ended), func(t *testing.T) {
			b := newRelayBed(t, local, Config{})
			c := b.open(synOptions)
			if ended {
				must(t, c.CloseWrite())
				b.hear(b.expectFlags(packet.FIN | packet.ACK))
			}
			must(t, c.SetLinger(0))
			c.Close()
			if s := b.expectFlags(packet.RST | packet.ACK); s.seq != b.heard {
				t.Errorf("the reset is at %d, want %d", s.seq, b.heard)
			}
			b.expectClosed()
		})
	}
}

// TestRelayLingers: after the outside's end came first the pod's repeated last segment is acknowledged, and the pod may begin anew.
func TestRelayLingers(t *testing.T) {
	b := newRelayBed(t, local, Config{})
	c := b.open(synOptions)
	c.Close()
	b.hear(b.expectFlags(packet.FIN | packet.ACK))
	for range 2 {
		b.sayAt(b.next, packet.FIN|packet.ACK, nil, nil)
		if s := b.expectFlags(packet.ACK); s.ack != b.next+1 {
			t.Errorf("%d is acknowledged, want %d", s.ack, b.next+1)
		}
	}
	if n := b.Stats().TCP.Open; n != 0 {
		t.Errorf("%d connections are counted as open", n)
	}
	b.next += 100000
	b.open(synOptions)
	b.sayAt(b.next, packet.RST, nil, nil)
	b.expectClosed()
}

// TestRelayForget: a pod that is gone hears nothing, whom it spoke with a reset.
func TestRelayForget(t *testing.T) {
	b := newRelayBed(t, local, Config{})
	c := b.open(synOptions)
	b.Forget(b.podAt.Addr())
	b.expectClosed()
	expectReset(t, c)
	b.expectSilence()
}

// TestRelayStops: a worker that stops resets both sides.
func TestRelayStops(t *testing.T) {
	b := newRelayBed(t, local, Config{})
	c := b.open(synOptions)
	b.e.Stop()
	b.expectFlags(packet.RST | packet.ACK)
	expectReset(t, c)
	if b.e.tell(func() {}) {
		t.Error("a worker that has stopped takes calls")
	}
}

// TestRelayShare: one pod has at most half of the connections.
func TestRelayShare(t *testing.T) {
	b := newRelayBed(t, local, Config{MaxConns: 4})
	for i := range 3 {
		b.podAt = netip.AddrPortFrom(b.podAt.Addr(), uint16(4000+i))
		b.sayAt(1000, packet.SYN, nil, nil)
		if i < 2 {
			b.expectFlags(packet.SYN | packet.ACK)
		}
	}
	b.expectSilence()
	b.podAt = netip.AddrPortFrom(netip.MustParseAddr("10.244.1.3"), 4000)
	b.sayAt(1000, packet.SYN, nil, nil)
	b.expectFlags(packet.SYN | packet.ACK)
}

// TestRelayOtherWorker: the kernel has moved the flow to another queue.
func TestRelayOtherWorker(t *testing.T) {
	b := newRelayBed(t, local, Config{})
	c := b.open(synOptions)
	other := b.exit(&b.sent)
	b.deliverTo(other, b.segment(b.next, packet.ACK, nil, []byte("hello")))
	b.next += 5
	if s := b.expectFlags(packet.ACK); s.ack != b.next {
		t.Errorf("%d is acknowledged, want %d", s.ack, b.next)
	}
	expectRead(t, c, []byte("hello"))
}

// TestRelayFragments: a pod's packet that was cut on its way.
func TestRelayFragments(t *testing.T) {
	for _, at := range []netip.Addr{local, local6} {
		b := newRelayBed(t, at, Config{})
		c := b.open(synOptions)
		data := pattern(1300)
		for _, piece := range packettest.Fragments(b.segment(b.next, packet.ACK, nil, data), 600, 7) {
			b.deliverTo(b.e, piece)
		}
		b.next += seq(len(data))
		if s := b.expectFlags(packet.ACK); s.ack != b.next {
			t.Errorf("%d is acknowledged, want %d", s.ack, b.next)
		}
		expectRead(t, c, data)
	}
}

// otherSockets are made by somebody else, who takes time.
type otherSockets struct{ Sockets }

func TestRelayOtherSockets(t *testing.T) {
	b := newRelayBed(t, local, Config{Sockets: otherSockets{ownSockets{}}})
	c := b.open(synOptions)
	b.say(packet.ACK, nil, []byte("hello"))
	expectRead(t, c, []byte("hello"))
}

// TestRelayGone: a pod that does not answer any more is reset, its server too.
func TestRelayGone(t *testing.T) {
	for _, window := range []int{0, 65535} {
		b := newRelayBed(t, local, Config{})
		b.window = window
		c := b.open(synOptions)
		mustWrite(t, c, []byte("hello"))
		b.expectFlags(packet.ACK)        // that, or a question
		b.conn().heardAt -= answerWithin // as if it were so long ago
		for b.expect().flags&packet.RST == 0 {
		}
		b.expectClosed()
		expectReset(t, c)
	}
}

func FuzzReadOffer(f *testing.F) {
	f.Add(synOptions)
	f.Add([]byte{optionMSS, 4, 0})
	f.Fuzz(func(t *testing.T, options []byte) {
		if o := readOffer(options); o.scale > maxScale || o.mss < 0 || o.mss > 65535 {
			t.Errorf("got %+v", o)
		}
	})
}

// FuzzRelay has a pod send whatever it likes within an open connection.
func FuzzRelay(f *testing.F) {
	f.Add([]byte{0, 0, 0x10, 5, 0, 0, 0x11, 0, 1, 0, 4, 0})
	f.Fuzz(func(t *testing.T, script []byte) {
		b := newRelayBed(t, local, Config{})
		server := b.open(synOptions)
		go drain(b.own)
		if len(script) > 0 && script[0]%2 == 0 {
			mustWrite(t, server, pattern(20_000))
		}
		if len(script) > 0 && script[0]%3 == 0 {
			must(t, server.CloseWrite())
		}
		c := b.conn()
		for ; len(script) >= 4 && c.phase != gone; script = script[4:] {
			b.window = int(script[0]) << 4
			b.sayAt(b.next+seq(int8(script[1])), script[2], nil, pattern(int(script[3])))
			edge := c.edge
			b.turn()
			if c.edge.before(edge) {
				t.Errorf("the window's end went back by %d", edge.minus(c.edge))
			}
			if c.phase == relaying && c.held.len() > c.next.minus(c.first) {
				t.Errorf("%d bytes are held, %d were sent", c.held.len(), c.next.minus(c.first))
			}
			if kept := c.held.len() + c.waiting.len(); b.e.kept != kept {
				t.Errorf("%d bytes are counted as kept, want %d", b.e.kept, kept)
			}
		}
		b.sayAt(c.expected, packet.RST, nil, nil)
		b.expectClosed()
	})
}
