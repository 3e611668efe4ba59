package netstack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"
)

func TestEchoDatagrams(t *testing.T) {
	both(t, func(t *testing.T, pr *pair, gateway netip.Addr) {
		goRun(t, func(ctx context.Context) error { return pr.node.ServeEcho(ctx, 0) })
		c, err := pr.pod.DialUDP(netip.AddrPortFrom(gateway, EchoPort))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, n := range []int{1, 2, 999, testMTU - 48, 3000} {
			want, got := randomBytes(n), make([]byte, 4000)
			equal(t, got[:askDatagram(t, c, want, got)], want)
		}
	})
}

// askDatagram repeats a question until there is an answer: the service may not listen yet.
func askDatagram(t *testing.T, c net.Conn, question, answer []byte) int {
	t.Helper()
	for range 50 {
		_, _ = c.Write(question)
		_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if k, err := c.Read(answer); err == nil && k == len(question) {
			return k
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("no answer to %d bytes", len(question))
	return 0
}

func dialEcho(t testing.TB, n *Netstack, to netip.Addr) net.Conn {
	t.Helper()
	var err error
	for range 100 { // the service may not listen yet
		var c net.Conn
		if c, err = n.DialTCP(t.Context(), netip.AddrPortFrom(to, EchoPort)); err == nil {
			t.Cleanup(func() { _ = c.Close() })
			return c
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal(err)
	return nil
}

// ahead is how much echoAll sends before it is back: less than a receive window. The service does not read while it
// cannot write, and a gVisor whose window is shut may not hear acknowledgments (see maxReceive).
const ahead = 256 << 10

// echoAll sends b, and returns the hash of what came back.
func echoAll(c net.Conn, b []byte) ([32]byte, error) {
	const chunk = ahead / 4
	credit := make(chan struct{}, len(b)/chunk+ahead/chunk)
	for range ahead / chunk {
		credit <- struct{}{}
	}
	sent := make(chan error, 1)
	go func() {
		for part := range slices.Chunk(b, chunk) {
			<-credit
			if _, err := c.Write(part); err != nil {
				sent <- err
				return
			}
		}
		sent <- c.(interface{ CloseWrite() error }).CloseWrite()
	}()
	h, part := sha256.New(), make([]byte, chunk)
	for range len(b) / chunk {
		if _, err := io.ReadFull(c, part); err != nil {
			_ = c.Close()
			close(credit)
			return [32]byte{}, errors.Join(err, <-sent)
		}
		h.Write(part)
		credit <- struct{}{}
	}
	if _, err := io.Copy(h, c); err != nil {
		return [32]byte{}, err
	}
	return [32]byte(h.Sum(nil)), <-sent
}

func TestEchoTCP(t *testing.T) {
	both(t, func(t *testing.T, pr *pair, gateway netip.Addr) {
		goRun(t, func(ctx context.Context) error { return pr.node.ServeEcho(ctx, 0) })
		b := randomBytes(16 << 20)
		c := dialEcho(t, pr.pod, gateway)
		_ = c.SetDeadline(time.Now().Add(60 * time.Second))
		start := time.Now()
		got, err := echoAll(c, b)
		if err != nil {
			t.Fatal(err)
		}
		if want := sha256.Sum256(b); got != want {
			t.Errorf("got hash %x, want %x", got, want)
		}
		t.Logf("16 MiB there and back in %v; to node: %d packets, %d super-packets, %d unfinished checksums; to pod: %d, %d, %d",
			time.Since(start).Round(time.Millisecond),
			pr.toNode.packets.Load(), pr.toNode.supers.Load(), pr.toNode.partials.Load(),
			pr.toPod.packets.Load(), pr.toPod.supers.Load(), pr.toPod.partials.Load())
		for _, p := range []*pipe{pr.toNode, pr.toPod} {
			if p.supers.Load() == 0 || p.partials.Load() <= p.supers.Load()/2 {
				t.Errorf("%d super-packets, %d unfinished checksums", p.supers.Load(), p.partials.Load())
			}
		}
	})
}

func TestEchoBounds(t *testing.T) {
	pr := newPair(t, false)
	goRun(t, func(ctx context.Context) error { return pr.node.ServeEcho(ctx, 0) })
	var conns []net.Conn
	for range maxEchoConns {
		c := dialEcho(t, pr.pod, gateway4)
		conns = append(conns, c)
	}
	b := make([]byte, 1)
	for _, c := range conns {
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(b); err != nil {
			t.Fatal(err)
		}
	}
	more := dialEcho(t, pr.pod, gateway4)
	_ = more.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := more.Read(b); err != io.EOF {
		t.Errorf("connection %d: got error %v, want %v", maxEchoConns+1, err, io.EOF)
	}
	_ = conns[0].Close()
	for range 100 {
		c := dialEcho(t, pr.pod, gateway4)
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = c.Write([]byte("y"))
		if _, err := c.Read(b); err == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("no connection after another was closed")
}

// A datagram from a reserved port is not answered.
func TestEchoLoop(t *testing.T) {
	pr := newPair(t, false)
	goRun(t, func(ctx context.Context) error { return pr.node.ServeEcho(ctx, 0) })
	client, err := pr.pod.DialUDP(netip.AddrPortFrom(gateway4, EchoPort))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	askDatagram(t, client, []byte("up"), make([]byte, 10))

	c, err := pr.pod.ListenPacket(netip.AddrPortFrom(pod4, EchoPort))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.WriteTo([]byte("x"), &net.UDPAddr{IP: net.IP(gateway4.AsSlice()), Port: EchoPort}); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if k, _, err := c.ReadFrom(make([]byte, 10)); err == nil {
		t.Errorf("got %d bytes", k)
	}
}

// The node reaches itself without a packet on the link.
func TestEchoLocal(t *testing.T) {
	n, sent := newCaptured(t)
	goRun(t, func(ctx context.Context) error { return n.ServeEcho(ctx, 0) })
	for _, a := range []netip.Addr{gateway4, gateway6} {
		b := bytes.Repeat([]byte("x"), 100<<10)
		got, err := echoAll(dialEcho(t, n, a), b)
		if err != nil {
			t.Fatal(err)
		}
		if want := sha256.Sum256(b); got != want {
			t.Errorf("got hash %x, want %x", got, want)
		}
	}
	if f := sent.take(); len(f) != 0 {
		t.Errorf("sent %d packets, first % x", len(f), f[0].b)
	}
}
