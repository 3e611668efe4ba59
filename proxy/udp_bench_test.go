package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
)

// BenchmarkUDPEgress sends a pod's packets to a socket on this machine that nobody reads.
func BenchmarkUDPEgress(b *testing.B) {
	for _, size := range []int{64, 1400} {
		for _, datagrams := range []int{1, 40} {
			b.Run(fmt.Sprintf("bytes=%d/datagrams=%d", size, datagrams), func(b *testing.B) {
				n := start(b, Config{})
				sink, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, 0)))
				must(b, err)
				defer sink.Close()
				to := sink.LocalAddr().(*net.UDPAddr).AddrPort()
				d := datagram(0, 4000, to, pattern(size*datagrams))
				frame := d.Frame()
				if datagrams > 1 {
					frame = d.Super(size)
				}
				o, _ := packet.DecodeOffload(frame)
				var h packet.Parsed
				packet.Parse(frame[packet.VnetLen:], &h)
				n.Deliver(frame[packet.VnetLen:], &h, o)
				eventually(b, "the socket is open", func() bool { return n.Stats().UDP.Sent > 0 })
				b.ReportAllocs()
				b.SetBytes(int64(size * datagrams))
				for b.Loop() {
					n.Deliver(frame[packet.VnetLen:], &h, o)
				}
			})
		}
	}
}

// BenchmarkUDPRoundTrip asks a server on this machine, over one flow and over a new one each time.
func BenchmarkUDPRoundTrip(b *testing.B) {
	for _, flows := range []int{1, 50_000} {
		b.Run(fmt.Sprintf("flows=%d", flows), func(b *testing.B) {
			n := start(b, Config{})
			to := serveUDP(b, local)
			var frames [][]byte
			for i := range flows {
				frames = append(frames, packettest.Packet{
					Src: netip.AddrFrom4([4]byte{10, 244, 1, byte(2 + i%64)}), Dst: to.Addr(), SrcPort: uint16(1024 + i), DstPort: to.Port(),
				}.Frame())
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				n.deliver(frames[i%flows])
				<-n.out
			}
		})
	}
}
