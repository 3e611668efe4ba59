package proxy

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/middleway-net/middleway/stack/netstack"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
)

// Addresses of the tests: docs/design.md.
var (
	podA     = netip.MustParseAddr("10.244.1.2")
	podA6    = netip.MustParseAddr("fd00:10:244:1::2")
	gateway  = netip.MustParseAddr("10.244.1.1")
	gateway6 = netip.MustParseAddr("fd00:10:244:1::1")
	local    = netip.MustParseAddr("127.0.0.1")
	local6   = netip.IPv6Loopback()
)

// node is a running Proxy, and what it sends into the cluster.
type node struct {
	*Proxy
	t    testing.TB
	own  chan []byte // of the node itself
	out  chan []byte // of the outside
	stop func()      // ends the proxy; the end of the test does so too
}

// start runs a proxy until the test ends.
func start(t testing.TB, c Config) *node {
	t.Helper()
	ns, err := netstack.New(netstack.Config{Addrs: []netip.Addr{gateway, gateway6}})
	if err != nil {
		t.Fatal(err)
	}
	c.Netstack = ns
	p, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{Proxy: p, t: t, own: make(chan []byte, 4096), out: make(chan []byte, 4096)}
	ns.Connect(netstack.Inject(into(t, n.own)))
	p.Connect(into(t, n.own), into(t, n.out), func(_, _ netip.AddrPort) (at netip.Addr, serves bool) { return at, true })
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- p.Run(ctx) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
		ns.Close()
	})
	t.Cleanup(n.stop)
	return n
}

// into returns an Inject that completes packets, trains one by one, and hands them over.
func into(t testing.TB, to chan<- []byte) Inject {
	return func(o packet.Offload, parts ...[]byte) {
		frame := make([]byte, packet.VnetLen)
		o.Encode(frame)
		frame = append(frame, slices.Concat(parts...)...)
		var h packet.Parsed
		if r := packet.Parse(frame[packet.VnetLen:], &h); r != packet.Kept {
			t.Errorf("a packet was sent that does not parse: %v", r)
			return
		}
		if r := o.Check(frame[packet.VnetLen:], &h); r != packet.Kept {
			t.Errorf("a packet was sent whose offload contradicts it: %v", r)
			return
		}
		for _, b := range packettest.Split(frame) {
			select {
			case to <- b:
			default:
				t.Error("nobody takes the packets")
			}
		}
	}
}

// deliver has a pod send a frame.
func (n *node) deliver(frame []byte) {
	n.t.Helper()
	o, err := packet.DecodeOffload(frame)
	if err != nil {
		n.t.Fatal(err)
	}
	var h packet.Parsed
	b := frame[packet.VnetLen:]
	if r := packet.Parse(b, &h); r != packet.Kept {
		n.t.Fatal(r)
	}
	n.Deliver(b, &h, o)
}

// receive returns the next packet and its headers.
func receive(t testing.TB, from <-chan []byte) ([]byte, packet.Parsed) {
	t.Helper()
	var h packet.Parsed
	select {
	case b := <-from:
		if r := packet.Parse(b, &h); r != packet.Kept {
			t.Fatal(r)
		}
		if !packet.TransportChecksumOK(b, &h) {
			t.Errorf("wrong checksum: %x", b)
		}
		return b, h
	case <-time.After(10 * time.Second):
		t.Fatal("no packet came within 10 s")
	}
	return nil, h
}

// expectDatagram checks that the next packet is a datagram of a flow, and returns its payload.
func expectDatagram(t testing.TB, from <-chan []byte, src, dst netip.AddrPort) []byte {
	t.Helper()
	b, h := receive(t, from)
	if want := packet.NewFlow(packet.UDP, src, dst); h.Flow != want {
		t.Fatalf("got %v %v:%d -> %v:%d, want %v -> %v", h.Proto, h.Flow.Src(), h.Flow.SrcPort(), h.Flow.Dst(), h.Flow.DstPort(), src, dst)
	}
	return packet.UDPPayload(b, &h)
}

// serveUDP answers datagrams with themselves on an address, until the test ends.
func serveUDP(t testing.TB, addr netip.Addr) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			_, _ = conn.WriteToUDPAddrPort(b[:n], from)
		}
	}()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// eventually waits until something holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func pattern(n int) []byte { return bytes.Repeat([]byte("0123456789abcdef"), n/16+1)[:n] }
