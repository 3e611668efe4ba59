package netstack

import (
	"fmt"
	"io"
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/middleway-net/middleway/stack/packet"
)

// BenchmarkDeliver delivers a datagram and reads it from its socket: two copies.
func BenchmarkDeliver(b *testing.B) {
	for _, size := range []int{1400, packet.MaxSize} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			n := newNetstack(b, gateway4)
			n.Connect(func(packet.Offload, ...[]byte) {})
			var wq waiter.Queue
			ep, err := n.stack.NewEndpoint(udp.ProtocolNumber, networkOf(gateway4), &wq)
			if err != nil {
				b.Fatal(toError(err))
			}
			at := netip.AddrPortFrom(gateway4, 5000)
			if err := ep.Bind(toFullAddress(at)); err != nil {
				b.Fatal(toError(err))
			}
			p := datagram(netip.AddrPortFrom(pod4, 4000), at, make([]byte, size-28))
			var h packet.Parsed
			packet.Parse(p, &h)
			w := tcpip.SliceWriter(make([]byte, size))
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				n.Deliver(p, &h, packet.Offload{})
				w := w
				if _, err := ep.Read(&w, tcpip.ReadOptions{}); err != nil {
					b.Fatal(toError(err))
				}
			}
		})
	}
}

// BenchmarkWrite sends datagrams: one copy into gVisor, its checksum, and the parts for Inject.
func BenchmarkWrite(b *testing.B) {
	n := newNetstack(b, gateway4)
	n.Connect(func(packet.Offload, ...[]byte) {})
	c, err := n.DialUDP(netip.AddrPortFrom(pod4, 4000))
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	p := make([]byte, 1372)
	b.SetBytes(1400)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(p); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkTCP sends over one connection between two netstacks, with the copies and channels of the test's pipe between
// them.
func BenchmarkTCP(b *testing.B) {
	for _, split := range []bool{false, true} {
		b.Run(map[bool]string{false: "whole", true: "split"}[split], func(b *testing.B) {
			pr := newPair(b, split)
			at := netip.AddrPortFrom(gateway4, 80)
			l, err := pr.node.Listen(at)
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			done := make(chan error, 1)
			go func() {
				c, err := l.Accept()
				if err == nil {
					_, err = io.Copy(io.Discard, c)
					_ = c.Close()
				}
				done <- err
			}()
			c, err := pr.pod.DialTCP(b.Context(), at)
			if err != nil {
				b.Fatal(err)
			}
			p := make([]byte, 1<<20)
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Write(p); err != nil {
					b.Fatal(err)
				}
			}
			_ = c.Close()
			if err := <-done; err != nil {
				b.Fatal(err)
			}
		})
	}
}
