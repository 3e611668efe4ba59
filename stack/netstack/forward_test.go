package netstack

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/packet"
)

// outside4 and outside6 are nobody's in the tests' cluster.
var (
	outside4 = netip.MustParseAddr("203.0.113.9")
	outside6 = netip.MustParseAddr("2001:db8::9")
)

func outsideOf(a netip.Addr) netip.Addr {
	if a.Is4() {
		return outside4
	}
	return outside6
}

// forwards has the pair's node hand over requests to f.
func (pr *pair) forwards(t *testing.T, f func(*Request)) {
	t.Helper()
	if err := pr.node.Forward(f); err != nil {
		t.Fatal(err)
	}
}

// What a pod sends to an address that is nobody's comes back by the connection that Forward handed over, and so does its end.
func TestForward(t *testing.T) {
	both(t, func(t *testing.T, pr *pair, gateway netip.Addr) {
		to := netip.AddrPortFrom(outsideOf(gateway), 80)
		served := make(chan error, 1)
		pr.forwards(t, func(r *Request) {
			if r.Dst != to || r.Src.Addr() != pr.pod.Gateway(gateway.Is4()) {
				t.Errorf("got a request from %v to %v, want one to %v", r.Src, r.Dst, to)
			}
			c, err := r.Accept()
			if err == nil {
				err = echoConn(c)
			}
			served <- err
		})
		c, err := pr.pod.DialTCP(t.Context(), to)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		want := randomBytes(4 << 20)
		go func() {
			_, _ = c.Write(want)
			_ = c.(interface{ CloseWrite() error }).CloseWrite()
		}()
		got, err := io.ReadAll(c)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, got, want)
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// echoConn sends back what it receives, and then that there is no more. It reads on while it cannot send, see ahead.
func echoConn(c *Conn) error {
	defer c.Close()
	var all bytes.Buffer
	for {
		if _, err := c.Receive(&all); err == io.EOF {
			break
		} else if err != nil {
			return err
		}
	}
	for all.Len() > 0 {
		if _, err := c.Send(&all, all.Len()); err != nil {
			return err
		}
	}
	if err := c.CloseWrite(); err != nil {
		return err
	}
	return c.Wait()
}

func TestForwardRefuses(t *testing.T) {
	both(t, func(t *testing.T, pr *pair, gateway netip.Addr) {
		asked := make(chan []byte, 1)
		pr.forwards(t, func(r *Request) { asked <- r.Head; r.Refuse() })
		_, err := pr.pod.DialTCP(t.Context(), netip.AddrPortFrom(outsideOf(gateway), 80))
		if err == nil {
			t.Fatal("got a connection, want it refused")
		}
		var h packet.Parsed
		if head := <-asked; packet.Parse(head, &h) != packet.Kept || h.Flow.Dst() != outsideOf(gateway) || h.Flow.DstPort() != 80 {
			t.Errorf("got head % x", head)
		}
		// The node's own addresses stay its own.
		if _, err := pr.pod.DialTCP(t.Context(), netip.AddrPortFrom(gateway, 80)); err == nil {
			t.Error("the node's closed port: got a connection")
		}
		if len(asked) != 0 {
			t.Error("the node's own address was handed over")
		}
	})
}

// A request that nobody has answered yet is not handed over again, and one that was dropped is.
func TestForwardAsksOnce(t *testing.T) {
	n, c := newCaptured(t)
	requests := make(chan *Request, 4)
	if err := n.Forward(func(r *Request) { requests <- r }); err != nil {
		t.Fatal(err)
	}
	b := syn(netip.AddrPortFrom(pod4, 4000), netip.AddrPortFrom(outside4, 80))
	for range 3 {
		deliverBytes(t, n, b, packet.Offload{})
	}
	(<-requests).Drop()
	deliverBytes(t, n, b, packet.Offload{})
	(<-requests).Drop()
	select {
	case <-requests:
		t.Error("handed over more than once")
	case <-time.After(50 * time.Millisecond):
	}
	if sent := c.take(); len(sent) != 0 {
		t.Errorf("sent % x", sent[0].b)
	}
}

// A client that asks without end leaves room for another one.
func TestForwardShares(t *testing.T) {
	n, _ := newCaptured(t)
	requests := make(chan *Request, MaxRequests)
	if err := n.Forward(func(r *Request) { requests <- r }); err != nil {
		t.Fatal(err)
	}
	to, other := netip.AddrPortFrom(outside4, 80), netip.MustParseAddrPort("10.244.1.3:4000")
	for i := range MaxRequests {
		deliverBytes(t, n, syn(netip.AddrPortFrom(pod4, uint16(1024+i)), to), packet.Offload{})
	}
	deliverBytes(t, n, syn(other, to), packet.Offload{})
	for end := time.After(20 * time.Second); ; {
		select {
		case r := <-requests:
			r.Drop()
			if r.Src == other {
				return
			}
		case <-end:
			t.Fatal("the other client's request was not handed over")
		}
	}
}

func TestForwardShare(t *testing.T) {
	w := newForwarder(nil, nil)
	enter := func(client byte) (entered int) {
		for port := range uint16(MaxRequests) {
			if w.enter(netID(netip.AddrPortFrom(outside4, 80), netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 244, 1, client}), port)), nil) {
				entered++
			}
		}
		return entered
	}
	for client, want := range []int{MaxRequests / 2, MaxRequests / 4, MaxRequests / 8} {
		if got := enter(byte(client)); got != want {
			t.Errorf("client %d: %d requests, want %d", client, got, want)
		}
	}
	for id := range w.requests {
		w.leave(id)
	}
	if got := enter(0); got != MaxRequests/2 || len(w.clients) != 1 {
		t.Errorf("after all were answered: %d requests of %d clients, want %d of 1", got, len(w.clients), MaxRequests/2)
	}
}

// A segment of a connection that is not known is answered by a reset from where it was sent to.
func TestForwardUnknownSegment(t *testing.T) {
	n, c := newCaptured(t)
	if err := n.Forward(func(r *Request) { t.Error("handed over"); r.Drop() }); err != nil {
		t.Fatal(err)
	}
	b := syn(netip.AddrPortFrom(pod4, 4000), netip.AddrPortFrom(outside4, 80))
	b[20+13] = packet.ACK
	b[20+16], b[20+17] = 0, 0
	var h packet.Parsed
	packet.Parse(b, &h)
	sum := packet.PseudoSum(b, &h, 20)
	b[20+16], b[20+17] = byte(sum>>8), byte(sum)
	o := packet.PartialOffload(&h)
	packet.FinishChecksum(b, &o)
	deliverBytes(t, n, b, packet.Offload{})
	sent := c.take()
	if len(sent) != 1 || packet.Parse(sent[0].b, &h) != packet.Kept || h.Flags&packet.RST == 0 || h.Flow.Src() != outside4 || h.Flow.Dst() != pod4 {
		t.Fatalf("got %d packets, %v, want a reset from %v", len(sent), h.Flow, outside4)
	}
}

// DialFrom connects from addresses that are not the node's, loopback too, and from one port to many.
func TestDialFrom(t *testing.T) {
	pr := newPair(t, false)
	pr.forwards(t, func(r *Request) { r.Refuse() })
	for _, c := range []struct{ name, from, to string }{
		{"v4", "203.0.113.9:4000", pod4.String() + ":80"},
		{"the same port to another one", "203.0.113.9:4000", pod4.String() + ":81"},
		{"loopback", "127.0.0.1:4000", pod4.String() + ":82"},
		{"v6", "[2001:db8::9]:4000", "[" + pod6.String() + "]:80"},
		{"loopback v6", "[::1]:4000", "[" + pod6.String() + "]:81"},
	} {
		from, to := netip.MustParseAddrPort(c.from), netip.MustParseAddrPort(c.to)
		l, err := pr.pod.Listen(to)
		if err != nil {
			t.Fatal(err)
		}
		defer acceptAll(t, l, from.Addr())()
		for range 2 { // the second from another port
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			conn, err := pr.node.DialFrom(ctx, from, to)
			cancel()
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			defer conn.Abort()
		}
	}
}

// acceptAll accepts connections, all of which come from one address, until its result is called.
func acceptAll(t *testing.T, l net.Listener, from netip.Addr) (stop func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			a, ok := c.RemoteAddr().(*net.TCPAddr) // one that is reset already has none
			if ok && a.AddrPort().Addr().Unmap() != from {
				t.Errorf("got a connection from %v, want %v", a, from)
			}
			t.Cleanup(func() { _ = c.Close() })
		}
	}()
	return func() { _ = l.Close(); <-done }
}

func TestDialFromErrors(t *testing.T) {
	pr := newPair(t, false)
	pr.forwards(t, func(r *Request) { r.Refuse() })
	from := netip.AddrPortFrom(outside4, 4000)
	if _, err := pr.node.DialFrom(t.Context(), from, netip.AddrPortFrom(pod4, 9)); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("closed port: got %v, want %v", err, unix.ECONNREFUSED)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := pr.node.DialFrom(ctx, from, netip.MustParseAddrPort("10.244.1.77:9")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nobody there: got %v, want %v", err, context.DeadlineExceeded)
	}
}

// Abort ends what waits on a connection, and the other side hears a reset.
func TestConnAbort(t *testing.T) {
	pr := newPair(t, false)
	conns := make(chan *Conn, 1)
	pr.forwards(t, func(r *Request) {
		c, err := r.Accept()
		if err != nil {
			t.Error(err)
		}
		conns <- c
	})
	peer, err := pr.pod.DialTCP(t.Context(), netip.AddrPortFrom(outside4, 80))
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	c := <-conns
	failed := make(chan error, 1)
	go func() { _, err := c.Receive(io.Discard); failed <- err }()
	time.Sleep(10 * time.Millisecond)
	c.Abort()
	if err := <-failed; !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("Receive: got %v, want %v", err, unix.ECONNRESET)
	}
	_ = peer.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := peer.Read(make([]byte, 1)); err == nil || err == io.EOF || errors.Is(err, unix.ETIMEDOUT) {
		t.Errorf("the other side: got %v, want a reset", err)
	}
}
