package proxy

import (
	"bytes"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/packet"
)

// TestRelayHeld: what a pod does not acknowledge is bounded, whatever it says that it takes.
func TestRelayHeld(t *testing.T) {
	b := newRelayBed(t, local, Config{})
	c := b.open([]byte{optionMSS, 4, 5, 0, optionNop, optionWindow, 3, maxScale})
	go func() {
		data := make([]byte, 1<<16)
		for {
			if _, err := c.Write(data); err != nil {
				return
			}
		}
	}()
	got := 0
	eventually(t, "as much is sent as may be held", func() bool {
		b.turn()
		for _, p := range b.sent {
			got += len(p) - ipHeader(true) - tcpHeader
		}
		b.sent = nil
		return got >= mostHeld
	})
	b.expectSilence()
	if n := b.conn().held.len(); n != mostHeld || b.e.kept != n {
		t.Errorf("%d bytes are held, and %d kept, want %d", n, b.e.kept, mostHeld)
	}
	b.sayAt(b.next, packet.RST, nil, nil)
	b.expectClosed()
}

// TestRelayKept: a worker that keeps a lot takes of each connection no more than the least window, and drops what is beyond.
func TestRelayKept(t *testing.T) {
	b := newRelayBed(t, local, Config{})
	c := b.open(synOptions)
	b.say(packet.ACK, nil, []byte("!"))
	b.expectFlags(packet.ACK)
	b.e.kept += mostKept + 1
	data := make([]byte, 32<<10)
	for range 1000 {
		b.say(packet.ACK, nil, data)
		if s := b.expectFlags(packet.ACK); s.ack != b.next {
			b.next = s.ack
			break
		}
	}
	if n := b.conn().waiting.len(); n != leastWindow {
		t.Errorf("%d bytes wait, want %d", n, leastWindow)
	}
	sent := b.next.minus(1000) - 1
	b.say(packet.FIN|packet.ACK, nil, nil)
	done := make(chan int, 1)
	go func() {
		got, b := 0, make([]byte, 1<<16)
		for {
			n, err := c.Read(b)
			if got += n; err != nil {
				done <- got
				return
			}
		}
	}()
	eventually(t, "all is received", func() bool { b.turn(); return len(done) > 0 })
	if got := <-done; got != sent {
		t.Errorf("%d bytes came, want %d", got, sent)
	}
	b.e.kept -= mostKept + 1
	b.sayAt(b.next, packet.RST, nil, nil)
	b.expectClosed()
}

// TestChunksOfAStream: a stream that never pauses takes no more memory with time, and small pieces share theirs.
func TestChunksOfAStream(t *testing.T) {
	for _, size := range []int{10, smallData + 1} {
		var q chunks
		for range 100_000 {
			q.hold(new([joinBuffer]byte), size)
			if q.len() > 20*size {
				q.release(size)
			}
		}
		if cap(q.all) > 100 {
			t.Errorf("pieces of %d bytes: there is room for %d", size, cap(q.all))
		}
	}
}

// TestRelayPassed: segments for another worker that does not come to it wait in a bounded number.
func TestRelayPassed(t *testing.T) {
	b := newRelayBed(t, local, Config{})
	b.open(synOptions)
	other := b.exit(nil)
	for range 2 * mostPassed {
		b.deliverTo(other, b.segment(b.next, packet.ACK, nil, nil))
	}
	if n := len(b.e.told); n != mostPassed {
		t.Errorf("%d segments wait, want %d", n, mostPassed)
	}
}

// later has as much time pass as there is between two looks after idle connections.
func (b *relayBed) later() {
	b.tcp.started = b.tcp.started.Add(-lookEvery)
	b.e.now = b.tcp.clock()
	b.e.takeTicks()
	b.e.Flush()
}

// TestRelayLooksAfter: a pod whose connection is idle is asked whether it is there, and ends it if it has forgotten.
func TestRelayLooksAfter(t *testing.T) {
	b := newRelayBed(t, local, Config{})
	c := b.open(synOptions)
	for range 3 {
		b.later() // it has been heard since
		b.expectSilence()
		for range mostAsked - 1 {
			b.later()
			if s := b.expectFlags(packet.ACK); s.seq != b.heard-1 {
				t.Errorf("got a segment at %d, want a question at %d", s.seq, b.heard-1)
			}
		}
		b.say(packet.ACK, nil, nil)
	}
	for range mostAsked {
		b.later()
	}
	b.sent = nil
	b.later()
	b.expectFlags(packet.RST | packet.ACK)
	b.expectClosed()
	expectReset(t, c)
}

// TestRelayAfterIdle: a worker that had nothing to do for long takes no new connection for an old one.
func TestRelayAfterIdle(t *testing.T) {
	b := newRelayBed(t, local, Config{})
	b.turn()
	b.tcp.started = b.tcp.started.Add(-time.Hour)
	b.say(packet.SYN, synOptions, nil)
	b.expectFlags(packet.SYN | packet.ACK)
	time.Sleep(2 * tick)
	b.expectSilence()
}

// TestRelayUrgent: urgent data are part of the stream, and so is what comes behind them.
func TestRelayUrgent(t *testing.T) {
	b := newRelayBed(t, local, Config{})
	c := b.open(synOptions)
	raw, err := c.SyscallConn()
	must(t, err)
	for range 3 {
		mustWrite(t, c, []byte("abc"))
		must(t, raw.Control(func(fd uintptr) { err = unix.Send(int(fd), []byte("d"), unix.MSG_OOB) }))
		must(t, err)
		mustWrite(t, c, []byte("efg"))
		var got []byte
		for len(got) < 7 {
			s := b.expectFlags(packet.ACK)
			got = append(got, s.data...)
			b.hear(s)
		}
		if string(got) != "abcdefg" {
			t.Errorf("got %q, want abcdefg", got)
		}
	}
}

// TestRelayEndBeforeLooked: a server that has said all, and ended, before the worker sees that it is there.
func TestRelayEndBeforeLooked(t *testing.T) {
	b := newRelayBed(t, local, Config{})
	raw, err := b.listen.SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) { err = unix.Listen(int(fd), 0) }))
	must(t, err)
	fill, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(b.to)) // there is no room for a second one
	must(t, err)
	defer fill.Close()
	b.say(packet.SYN, synOptions, nil)
	b.expectSilence()
	if b.conn().phase != connecting {
		t.Fatal("the server's kernel has room for more than it was asked for")
	}
	_ = b.listen.SetDeadline(time.Now().Add(20 * time.Second))
	for range 2 {
		c, err := b.listen.AcceptTCP()
		must(t, err)
		_, _ = c.Write([]byte("bye"))
		c.Close()
	}
	s := b.expectFlags(packet.SYN | packet.ACK)
	b.heard = s.seq + 1
	b.say(packet.ACK, nil, nil)
	s = b.expectFlags(packet.ACK)
	if string(s.data) != "bye" {
		t.Errorf("got %q, want bye", s.data)
	}
	b.hear(s)
	b.hear(b.expectFlags(packet.FIN | packet.ACK))
}

// TestRelayRecovers: where much is lost, each acknowledgment tells what comes next.
func TestRelayRecovers(t *testing.T) {
	b := newRelayBed(t, local, Config{})
	c := b.open(synOptions)
	size := 1400
	for range 10 {
		mustWrite(t, c, make([]byte, 4*size))
		for range 4 {
			b.expectFlags(packet.ACK)
		}
	}
	for range 10 {
		if s := b.expectFlags(packet.ACK); s.seq != b.heard {
			t.Fatalf("got data from %d on, want %d", s.seq, b.heard)
		}
		b.sent = nil
		b.heard += seq(4 * size)
		b.say(packet.ACK, nil, nil)
		if len(b.sent) == 0 && b.conn().first != b.conn().next {
			t.Fatal("nothing is sent again at once")
		}
	}
	if r := b.conn().recovery; r != nothingLost {
		t.Errorf("got %d, want an end", r)
	}
}

// TestRelayPieces: what came in pieces is sent again as one, as far as a packet takes it.
func TestRelayPieces(t *testing.T) {
	b := newRelayBed(t, local, Config{})
	c := b.open(synOptions)
	data := random(4*16_000+5000, 1)
	got := 0
	for left := data; len(left) > 0; left = left[min(len(left), 16_000):] {
		mustWrite(t, c, left[:min(len(left), 16_000)])
		for end := got + min(len(left), 16_000); got < end; {
			got += len(b.expectFlags(packet.ACK).data)
		}
	}
	var again []byte
	for len(again) < len(data) {
		s := b.expectFlags(packet.ACK)
		if at := s.seq.minus(b.heard); at > 0 {
			t.Fatalf("got data from %d on, want %d", s.seq, b.heard)
		} else if at == 0 {
			again = append(again, s.data...)
			b.hear(s)
		}
	}
	if !bytes.Equal(again, data) {
		t.Error("the data are others")
	}
}

// TestRelayWraps: sequence numbers begin anew within both directions.
func TestRelayWraps(t *testing.T) {
	b := newRelayBed(t, local, Config{})
	b.next = ^seq(0) - 5000
	b.say(packet.SYN, synOptions, nil)
	b.expectFlags(packet.SYN | packet.ACK)
	r := b.conn()
	r.first = ^seq(0) - 3000
	r.next = r.first + 1
	b.heard = r.next
	b.say(packet.ACK, nil, nil)
	c, err := b.listen.AcceptTCP()
	must(t, err)
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	for range 10 {
		data := pattern(1000)
		b.sayAt(b.next+1, packet.RST, nil, nil) // no reset: it asks
		b.expectFlags(packet.ACK)
		b.say(packet.ACK, nil, data)
		if s := b.expectFlags(packet.ACK); s.ack != b.next {
			t.Fatalf("%d is acknowledged, want %d", s.ack, b.next)
		}
		expectRead(t, c, data)
		mustWrite(t, c, data)
		s := b.expectFlags(packet.ACK)
		b.sayAt(b.next, packet.ACK, nil, nil) // has not heard it
		b.hear(s)
	}
	c.Close()
	b.hear(b.expectFlags(packet.FIN | packet.ACK))
	b.say(packet.FIN|packet.ACK, nil, nil)
	b.expectFlags(packet.ACK)
	b.expectClosed()
}

// TestRelayResetAtTheEdge: a pod that has filled its window, of which the last segments were lost, resets at its end.
func TestRelayResetAtTheEdge(t *testing.T) {
	b := newRelayBed(t, local, Config{})
	b.open(synOptions)
	b.sayAt(b.conn().edge, packet.RST, nil, nil)
	if s := b.expectFlags(packet.ACK); s.ack != b.next {
		t.Errorf("%d is acknowledged, want %d", s.ack, b.next)
	}
}

// gatedSockets are made once somebody says so.
type gatedSockets struct {
	asked, open chan struct{}
	made        chan int
}

func (g gatedSockets) Socket(domain, typ, proto int) (int, error) {
	g.asked <- struct{}{}
	<-g.open
	fd, err := unix.Socket(domain, typ, proto)
	g.made <- fd
	return fd, err
}

// TestRelayLateSocket: a socket that comes when nobody wants it any more is closed.
func TestRelayLateSocket(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(b *relayBed)
	}{
		{"the worker has stopped", func(b *relayBed) { b.e.Stop() }},
		{"the pod is gone", func(b *relayBed) { b.Forget(b.podAt.Addr()); b.turn() }},
		{"the pod has reset", func(b *relayBed) { b.sayAt(b.next, packet.RST, nil, nil) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := gatedSockets{make(chan struct{}, 2), make(chan struct{}), make(chan int, 1)}
			b := newRelayBed(t, local, Config{Sockets: g})
			b.say(packet.SYN, synOptions, nil)
			<-g.asked
			tt.end(b)
			close(g.open)
			fd := <-g.made
			eventually(t, "the socket is closed", func() bool {
				b.turn()
				_, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
				return err != nil
			})
			b.expectClosed()
			b.expectSilence()
		})
	}
}
