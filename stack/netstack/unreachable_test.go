package netstack

import (
	"errors"
	"io"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/icmp"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
)

// unreachable returns an ICMP error about a TCP segment of a flow.
func unreachable(f packet.Flow, kind icmp.Kind) []byte {
	b := packettest.Packet{Src: f.Src(), Dst: f.Dst(), SrcPort: f.SrcPort(), DstPort: f.DstPort(), Proto: packet.TCP, Flags: packet.ACK}.Frame()[packet.VnetLen:]
	var h packet.Parsed
	packet.Parse(b, &h)
	out := make([]byte, icmp.MaxLen)
	return out[:icmp.Error{Kind: kind}.Build(out, f.Dst(), &h, b, nil)]
}

// nobody makes the pod one that is gone: what goes there is answered by ICMP errors.
func (p *pipe) nobody(t *testing.T, back *Netstack, kind icmp.Kind) (from *atomic.Bool) {
	from = new(atomic.Bool)
	p.drop = func(h *packet.Parsed) bool {
		if from.Load() && h.Proto == packet.TCP && h.Flags&packet.RST == 0 {
			deliverBytes(t, back, unreachable(h.Flow, kind), packet.Offload{})
		}
		return from.Load()
	}
	return from
}

// A dial fails as soon as it is told that nobody is there.
func TestDialUnreachable(t *testing.T) {
	for _, to := range []netip.Addr{pod4, pod6} {
		for _, kind := range []icmp.Kind{icmp.NetUnreachable, icmp.HostUnreachable, icmp.Prohibited} {
			pr := newPair(t, false)
			pr.spoofs(t)
			pr.toPod.nobody(t, pr.node, kind).Store(true)
			begin := time.Now()
			_, err := pr.node.DialFrom(t.Context(), netip.AddrPortFrom(outsideOf(to), 4000), netip.AddrPortFrom(to, 80))
			if took := time.Since(begin); !errors.Is(err, unix.EHOSTUNREACH) || took > 20*time.Second {
				t.Errorf("%v, %v: got %v after %v, want %v", to, kind, err, took, unix.EHOSTUNREACH)
			}
		}
	}
}

// connected returns a connection that the node has dialled, whose other end says nothing.
func (pr *pair) connected(t *testing.T, to netip.Addr) *Conn {
	t.Helper()
	l, err := pr.pod.Listen(netip.AddrPortFrom(to, 80))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(acceptAll(t, l, outsideOf(to)))
	c, err := pr.node.DialFrom(t.Context(), netip.AddrPortFrom(outsideOf(to), 4000), netip.AddrPortFrom(to, 80))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if err := c.KeepAlive(time.Hour, time.Hour, 1); err != nil {
		t.Fatal(err)
	}
	return c
}

// A connection whose peer is gone ends when somebody says so, though it waits only.
func TestConnUnreachable(t *testing.T) {
	for _, to := range []netip.Addr{pod4, pod6} {
		pr := newPair(t, false)
		pr.spoofs(t)
		gone := pr.toPod.nobody(t, pr.node, icmp.HostUnreachable)
		c := pr.connected(t, to)
		if c.Local() != netip.AddrPortFrom(outsideOf(to), 4000) || c.Remote() != netip.AddrPortFrom(to, 80) {
			t.Errorf("got %v and %v as its ends", c.Local(), c.Remote())
		}
		failed := make(chan error, 1)
		go func() { _, err := c.Receive(io.Discard); failed <- err }()
		gone.Store(true)
		begin := time.Now()
		c.Ask()
		select {
		case err := <-failed:
			t.Logf("%v: %v after %v", to, err, time.Since(begin).Round(time.Millisecond))
			if !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("%v: got %v, want %v", to, err, unix.ECONNRESET)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%v: it waits still", to)
		}
	}
}

// Errors end no connection whose peer answers.
func TestConnForgedErrors(t *testing.T) {
	for _, to := range []netip.Addr{pod4, pod6} {
		pr := newPair(t, false)
		pr.spoofs(t)
		c := pr.connected(t, to)
		for range 3 {
			_, before := c.Segments()
			deliverBytes(t, pr.node, unreachable(packet.NewFlow(packet.TCP, c.Local(), c.Remote()), icmp.HostUnreachable), packet.Offload{})
			for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
				if _, received := c.Segments(); received > before {
					break
				}
				if time.Now().After(end) {
					t.Fatalf("%v: the peer was not asked", to)
				}
			}
			time.Sleep(certainty + 10*time.Millisecond)
		}
		if _, err := c.Send(&payload{r: zeros{}, left: 1}, 1); err != nil {
			t.Errorf("%v: %v", to, err)
		}
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }
