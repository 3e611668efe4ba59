package netstack

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/middleway-net/middleway/stack/packet"
)

func TestConfig(t *testing.T) {
	checkLeaks(t)
	for _, c := range []struct {
		name string
		Config
		want string
	}{
		{"none", Config{}, "at least one address"},
		{"zero address", Config{Addrs: []netip.Addr{{}}}, "not a unicast address"},
		{"multicast", Config{Addrs: []netip.Addr{netip.MustParseAddr("ff02::1")}}, "not a unicast address"},
		{"v4 MTU", Config{Addrs: []netip.Addr{gateway4}, MTU: 575}, "from 576 to 65535"},
		{"v6 MTU", Config{Addrs: []netip.Addr{gateway4, gateway6}, MTU: 1279}, "from 1280 to 65535"},
		{"twice", Config{Addrs: []netip.Addr{gateway4, gateway4}}, "file exists"},
		{"default", Config{Addrs: []netip.Addr{gateway4, gateway6}}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, err := New(c.Config)
			if err == nil {
				defer n.Close()
			}
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got error %v, want %q", err, c.want)
			}
			if err == nil && n.Run(t.Context()) == nil {
				t.Fatal("Run without Connect: got no error")
			}
		})
	}
}

// captured joins a netstack to a list.
type captured struct {
	mu     sync.Mutex
	frames []frame
}

func (c *captured) inject(o packet.Offload, parts ...[]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
	}
	c.frames = append(c.frames, frame{b, o})
}

// take returns what was sent since the last call. Answers are sent from within Deliver.
func (c *captured) take() []frame {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.frames
	c.frames = nil
	return f
}

func newCaptured(t *testing.T) (*Netstack, *captured) {
	checkLeaks(t)
	n, c := newNetstack(t, gateway4, gateway6), &captured{}
	n.Connect(c.inject)
	goRun(t, n.Run)
	return n, c
}

func TestSendsNothingUnasked(t *testing.T) {
	checkLeaks(t)
	// The interface came up in New, before Connect: bring it up again where it is heard.
	c := &captured{}
	n := newNetstack(t, gateway4, gateway6)
	n.Connect(c.inject)
	if err := n.stack.DisableNIC(nicID); err != nil {
		t.Fatal(err)
	}
	if err := n.stack.EnableNIC(nicID); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1500 * time.Millisecond) // a router solicitation would wait for up to 1 s
	for _, f := range c.take() {
		t.Errorf("sent % x", f.b)
	}
}

// packet4 returns an IPv4 packet without options.
func packet4(proto packet.Proto, src, dst netip.Addr, payload []byte) []byte {
	b := make([]byte, 20, 20+len(payload))
	b[0], b[8], b[9] = 0x45, 64, byte(proto)
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(payload)))
	copy(b[12:], src.AsSlice())
	copy(b[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(b[10:], ^packet.Checksum(b, 0))
	return append(b, payload...)
}

// packet6 returns an IPv6 packet without extension headers.
func packet6(proto packet.Proto, src, dst netip.Addr, payload []byte) []byte {
	b := make([]byte, 40, 40+len(payload))
	b[0], b[6], b[7] = 0x60, byte(proto), 64
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	copy(b[8:], src.AsSlice())
	copy(b[24:], dst.AsSlice())
	return append(b, payload...)
}

// datagram returns an IP packet with a complete UDP datagram.
func datagram(src, dst netip.AddrPort, payload []byte) []byte {
	u := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(u[0:], src.Port())
	binary.BigEndian.PutUint16(u[2:], dst.Port())
	binary.BigEndian.PutUint16(u[4:], uint16(8+len(payload)))
	u = append(u, payload...)
	build := packet4
	if src.Addr().Is6() {
		build = packet6
	}
	b := build(packet.UDP, src.Addr(), dst.Addr(), u)
	var h packet.Parsed
	packet.Parse(b, &h)
	binary.BigEndian.PutUint16(b[h.L4+6:], packet.PseudoSum(b, &h, len(u)))
	o := packet.PartialOffload(&h)
	packet.FinishChecksum(b, &o)
	return b
}

func deliverBytes(t testing.TB, n *Netstack, b []byte, o packet.Offload) {
	t.Helper()
	var h packet.Parsed
	if r := packet.Parse(b, &h); r != packet.Kept {
		t.Fatalf("test packet % x: %v", b, r)
	}
	n.Deliver(b, &h, o)
}

func TestRefusals(t *testing.T) {
	n, c := newCaptured(t)
	for _, a := range []struct {
		name     string
		src, dst netip.Addr
		proto    packet.Proto
		typ      byte
		code     byte
	}{
		{"v4", pod4, gateway4, packet.ICMP, 3, 3},
		{"v6", pod6, gateway6, packet.ICMPv6, 1, 4},
	} {
		t.Run("port unreachable "+a.name, func(t *testing.T) {
			deliverBytes(t, n, datagram(netip.AddrPortFrom(a.src, 4000), netip.AddrPortFrom(a.dst, 9), []byte("x")), packet.Offload{})
			sent := c.take()
			if len(sent) != 1 {
				t.Fatalf("got %d packets, want 1", len(sent))
			}
			var h packet.Parsed
			b := sent[0].b
			if r := packet.Parse(b, &h); r != packet.Kept || h.Proto != a.proto || b[h.L4] != a.typ || b[h.L4+1] != a.code {
				t.Fatalf("got %v % x, want %v type %d code %d", r, b, a.proto, a.typ, a.code)
			}
			if h.Flow.Src() != a.dst || h.Flow.Dst() != a.src || !packet.TransportChecksumOK(b, &h) {
				t.Errorf("got %v with checksum %v", h.Flow, packet.TransportChecksumOK(b, &h))
			}
		})
	}
	t.Run("not forwarded", func(t *testing.T) {
		other := netip.MustParseAddrPort("10.244.1.3:9")
		deliverBytes(t, n, datagram(netip.AddrPortFrom(pod4, 4000), other, nil), packet.Offload{})
		if sent := c.take(); len(sent) != 0 {
			t.Errorf("sent % x", sent[0].b)
		}
	})
}

func TestResetOnClosedPort(t *testing.T) {
	both(t, func(t *testing.T, pr *pair, gateway netip.Addr) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		c, err := pr.pod.DialTCP(ctx, netip.AddrPortFrom(gateway, 9))
		if err == nil {
			_ = c.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "refused") {
			t.Fatalf("got error %v, want refused", err)
		}
	})
}

// ping returns a connection that sends and receives ICMP echo.
func ping(t *testing.T, n *Netstack, to netip.Addr) net.Conn {
	t.Helper()
	proto := icmp.ProtocolNumber4
	if to.Is6() {
		proto = icmp.ProtocolNumber6
	}
	var wq waiter.Queue
	ep, err := n.stack.NewEndpoint(proto, networkOf(to), &wq)
	if err != nil {
		t.Fatal(toError(err))
	}
	if err := ep.Connect(tcpip.FullAddress{Addr: toAddress(to)}); err != nil {
		t.Fatal(toError(err))
	}
	c := gonet.NewUDPConn(&wq, ep)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestPing(t *testing.T) {
	both(t, func(t *testing.T, pr *pair, gateway netip.Addr) {
		c := ping(t, pr.pod, gateway)
		request, want := byte(8), byte(0)
		if gateway.Is6() {
			request, want = 128, 129
		}
		b := append([]byte{request, 0, 0, 0, 0, 0, 0, 1}, "hello"...)
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		got := make([]byte, 100)
		k, err := c.Read(got)
		if err != nil {
			t.Fatal(err)
		}
		if got[0] != want || string(got[8:k]) != "hello" {
			t.Fatalf("got % x", got[:k])
		}
	})
}

// A fragmented datagram is verified after it was put together.
func TestFragments(t *testing.T) {
	n, _ := newCaptured(t)
	at := netip.AddrPortFrom(gateway4, 5000)
	c, err := n.ListenPacket(at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	payload := randomBytes(2000)
	for _, damage := range []bool{true, false} {
		whole := datagram(netip.AddrPortFrom(pod4, 4000), at, payload)
		if damage {
			whole[1000]++
		}
		for i, cut := range [][2]int{{20, 1020}, {1020, len(whole)}} {
			f := packet4(packet.UDP, pod4, gateway4, whole[cut[0]:cut[1]])
			id := uint16(1)
			if damage {
				id = 2
			}
			binary.BigEndian.PutUint16(f[4:], id)
			offset := uint16((cut[0] - 20) / 8)
			if i == 0 {
				offset |= 0x2000
			}
			binary.BigEndian.PutUint16(f[6:], offset)
			binary.BigEndian.PutUint16(f[10:], 0)
			binary.BigEndian.PutUint16(f[10:], ^packet.Checksum(f[:20], 0))
			deliverBytes(t, n, f, packet.Offload{})
		}
	}
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	got := make([]byte, 4000)
	k, _, err := c.ReadFrom(got)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, got[:k], payload)
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if k, _, err := c.ReadFrom(got); err == nil {
		t.Fatalf("got a second datagram of %d bytes: the damaged one", k)
	}
}

// A UDP super-packet is so many datagrams.
func TestDatagramsOfSuperPacket(t *testing.T) {
	n, _ := newCaptured(t)
	for _, a := range []struct{ src, dst netip.Addr }{{pod4, gateway4}, {pod6, gateway6}} {
		at := netip.AddrPortFrom(a.dst, 5000)
		c, err := n.ListenPacket(at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		payload := randomBytes(2500)
		b := datagram(netip.AddrPortFrom(a.src, 4000), at, payload)
		var h packet.Parsed
		packet.Parse(b, &h)
		binary.BigEndian.PutUint16(b[h.L4+6:], packet.PseudoSum(b, &h, h.Len-h.L4))
		n.Deliver(b, &h, packet.PartialOffload(&h).Segmented(&h, 1000))
		got := make([]byte, 4000)
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		for _, want := range [][]byte{payload[:1000], payload[1000:2000], payload[2000:]} {
			k, _, err := c.ReadFrom(got)
			if err != nil {
				t.Fatal(err)
			}
			equal(t, got[:k], want)
		}
	}
}

// Datagrams longer than the MTU leave in fragments with a whole checksum.
func TestLongDatagram(t *testing.T) {
	both(t, func(t *testing.T, pr *pair, gateway netip.Addr) {
		at := netip.AddrPortFrom(gateway, 5000)
		l, err := pr.node.ListenPacket(at)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		c, err := pr.pod.DialUDP(at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		want := randomBytes(9000)
		if _, err := c.Write(want); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 10000)
		_ = l.SetReadDeadline(time.Now().Add(5 * time.Second))
		k, _, err := l.ReadFrom(got)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, got[:k], want)
	})
}

func TestListenerClose(t *testing.T) {
	n, _ := newCaptured(t)
	l, err := n.Listen(netip.AddrPortFrom(gateway4, 80))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Listen(netip.AddrPortFrom(gateway4, 80)); err == nil {
		t.Error("the same port twice: got no error")
	}
	time.AfterFunc(10*time.Millisecond, func() { _ = l.Close() })
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("got error %v, want %v", err, net.ErrClosed)
	}
}

// Run ends whatever state connections are in: established, half open, waiting to be accepted, being dialed.
func TestRunEndsConnections(t *testing.T) {
	pr := newPair(t, false)
	at := netip.AddrPortFrom(gateway4, 80)
	l, err := pr.node.Listen(at)
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if _, err := pr.pod.DialTCP(t.Context(), at); err != nil {
			t.Fatal(err)
		}
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if c, err = l.Accept(); err == nil {
		_ = c.Close()
	}
	deliverBytes(t, pr.node, syn(netip.MustParseAddrPort("10.244.1.9:4000"), at), packet.Offload{}) // never acknowledged
	var dials sync.WaitGroup
	dials.Go(func() {
		if _, err := pr.node.DialTCP(t.Context(), netip.MustParseAddrPort("10.244.1.9:80")); err == nil {
			t.Error("dial nobody: got no error")
		}
	})
	t.Cleanup(dials.Wait)
	time.Sleep(20 * time.Millisecond)
	pr.node.Close()
}

// syn returns the first segment of a connection over IPv4.
func syn(src, dst netip.AddrPort) []byte {
	s := make([]byte, 20)
	binary.BigEndian.PutUint16(s[0:], src.Port())
	binary.BigEndian.PutUint16(s[2:], dst.Port())
	s[12], s[13], s[14] = 5<<4, packet.SYN, 0xff
	b := packet4(packet.TCP, src.Addr(), dst.Addr(), s)
	var h packet.Parsed
	packet.Parse(b, &h)
	binary.BigEndian.PutUint16(b[h.L4+16:], packet.PseudoSum(b, &h, len(s)))
	o := packet.PartialOffload(&h)
	packet.FinishChecksum(b, &o)
	return b
}

// Packets that come after the end are dropped, and nothing is sent any more.
func TestAfterClose(t *testing.T) {
	n, c := newCaptured(t)
	n.Close()
	c.take()
	b := datagram(netip.AddrPortFrom(pod4, 4000), netip.AddrPortFrom(gateway4, 9), nil)
	deliverBytes(t, n, b, packet.Offload{})
	if sent := c.take(); len(sent) != 0 {
		t.Errorf("sent % x", sent[0].b)
	}
}
