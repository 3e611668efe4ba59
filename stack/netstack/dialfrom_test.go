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

// spoofs has the pair's node dial from any address.
func (pr *pair) spoofs(t *testing.T) {
	t.Helper()
	if err := pr.node.Spoof(); err != nil {
		t.Fatal(err)
	}
}

// accepted returns the two ends of a connection from an address outside to the pod's one.
func (pr *pair) accepted(t *testing.T, to netip.Addr) (node *Conn, pod net.Conn) {
	t.Helper()
	l, err := pr.pod.Listen(netip.AddrPortFrom(to, 80))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if node, err = pr.node.DialFrom(t.Context(), netip.AddrPortFrom(outsideOf(to), 4000), netip.AddrPortFrom(to, 80)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(node.Close)
	if pod, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pod.Close() })
	_ = pod.SetDeadline(time.Now().Add(30 * time.Second))
	return node, pod
}

// What a pod sends on a connection from an address that is nobody's comes back by it, and so does its end.
func TestConn(t *testing.T) {
	both(t, func(t *testing.T, pr *pair, gateway netip.Addr) {
		pr.spoofs(t)
		node, c := pr.accepted(t, pr.pod.Gateway(gateway.Is4()))
		served := make(chan error, 1)
		go func() { served <- echoConn(node) }()
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

// A segment of a connection that is not known is answered by a reset from where it was sent to.
func TestUnknownSegment(t *testing.T) {
	n, c := newCaptured(t)
	if err := n.Spoof(); err != nil {
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
	pr.spoofs(t)
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
	pr.spoofs(t)
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
	pr.spoofs(t)
	c, peer := pr.accepted(t, pod4)
	failed := make(chan error, 1)
	go func() { _, err := c.Receive(io.Discard); failed <- err }()
	time.Sleep(10 * time.Millisecond)
	c.Abort()
	if err := <-failed; !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("Receive: got %v, want %v", err, unix.ECONNRESET)
	}
	if _, err := peer.Read(make([]byte, 1)); err == nil || err == io.EOF || errors.Is(err, unix.ETIMEDOUT) {
		t.Errorf("the other side: got %v, want a reset", err)
	}
}
