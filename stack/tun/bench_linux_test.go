package tun_test

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
	wgtun "golang.zx2c4.com/wireguard/tun"

	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/tun"
)

// ring is how many frames are put into a device's queue before they are read; the kernel takes 500.
const ring = 256

// benchSizes are a super-packet of 44 segments of 1,400 bytes, a packet of 1,400 and one of 64, IP header included.
var benchSizes = []struct {
	name          string
	payload, size int // bytes of payload, of a segment (0: no super-packet)
}{{"64K", 44 * 1372, 1372}, {"1400", 1372, 0}, {"64", 36, 0}}

// filler returns a function that has the pod send n frames.
func filler(b *testing.B, p *pod, payload, segment int) func(n int) {
	c := dialUDP(b, p, netip.MustParseAddrPort("10.244.2.3:53"))
	if segment > 0 {
		setUDP(b, c, unix.UDP_SEGMENT, segment)
	}
	data := pattern(payload)
	return func(n int) {
		for range n {
			if _, err := c.Write(data); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkTunRead is one read of a frame that waits, without what the pod's kernel needs to make it.
func BenchmarkTunRead(b *testing.B) {
	for _, bb := range benchSizes {
		b.Run(bb.name, func(b *testing.B) {
			p := newPod(b, backends[0], 2)
			fill := filler(b, p, bb.payload, bb.size)
			f := make([]byte, packet.VnetLen+packet.MaxSize)
			b.SetBytes(int64(bb.payload + 28))
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				if i%ring == 0 {
					b.StopTimer()
					fill(min(ring, b.N-i))
					b.StartTimer()
				}
				if n, err := p.queue.Read(f); err != nil || n != packet.VnetLen+bb.payload+28 {
					b.Fatal(n, err)
				}
			}
		})
	}
}

// BenchmarkTunWrite is one write of a frame that the pod's kernel drops as soon as it has read its destination: whole, with
// a header length of 0 instead of the right one, and in parts. The payloads of a merged train are such parts.
func BenchmarkTunWrite(b *testing.B) {
	src, dst := netip.MustParseAddrPort("10.244.2.3:4000"), netip.MustParseAddrPort("10.244.9.9:53")
	for _, bb := range benchSizes {
		var whole []byte
		if bb.size > 0 {
			whole = super(udpPacket(src, dst, pattern(bb.payload), true), bb.size)
		} else {
			one := udpPacket(src, dst, pattern(bb.payload), true)
			var q packet.Parsed
			packet.Parse(one, &q)
			whole = frame(packet.PartialOffload(&q), one)
		}
		for _, variant := range []struct {
			name  string
			parts int
			zero  bool // header length
		}{{"1 part", 1, false}, {"1 part, hdr_len 0", 1, true}, {"45 parts", 45, false}, {"45 parts, hdr_len 0", 45, true}, {"90 parts", 90, false}} {
			if bb.size == 0 && variant.parts > 1 {
				continue
			}
			b.Run(bb.name+"/"+variant.name, func(b *testing.B) {
				p := newPod(b, backends[0], 2)
				f := append([]byte(nil), whole...)
				o, _ := packet.DecodeOffload(f)
				if variant.zero {
					o.HeaderLen = 0
				}
				o.Encode(f)
				head := packet.VnetLen + 28
				var more [][]byte
				if variant.parts > 1 {
					head = len(f)/variant.parts + 1
					for at := head; at < len(f); at += head {
						more = append(more, f[at:min(at+head, len(f))])
					}
				} else {
					head = len(f)
				}
				b.SetBytes(int64(len(f) - packet.VnetLen))
				b.ReportAllocs()
				for b.Loop() {
					if err := p.queue.Write(f[:head], more); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkTunPass64K takes a super-packet from one pod to another: read, parse, TTL, write. Beside it the same through the
// package golang.zx2c4.com/wireguard/tun, which splits and merges, and has to be read segment by segment.
func BenchmarkTunPass64K(b *testing.B) {
	for _, be := range backends {
		b.Run(be.name, func(b *testing.B) {
			one, two := newPod(b, be, 2), newPod(b, be, 3)
			payload, size := benchSizes[0].payload, benchSizes[0].size
			fill := filler(b, one, payload, size)
			f := make([]byte, packet.VnetLen+packet.MaxSize)
			var parsed packet.Parsed
			b.SetBytes(int64(payload + 28))
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				if i%ring == 0 {
					b.StopTimer()
					fill(min(ring, b.N-i))
					b.StartTimer()
				}
				for left := payload; left > 0; {
					n, err := one.queue.Read(f)
					if errors.Is(err, unix.EAGAIN) {
						b.Fatal("lost a frame")
					}
					must(b, err)
					data := f[packet.VnetLen:n]
					if packet.Parse(data, &parsed) != packet.Kept || !packet.DecrementTTL(data, &parsed) {
						b.Fatal("no packet")
					}
					if err := two.queue.Write(f[:n], nil); err != nil {
						b.Fatal(err)
					}
					left -= parsed.Len - parsed.Payload
				}
			}
		})
	}
}

// BenchmarkTunPass64KBatch is BenchmarkTunPass64K as that package is meant to be used: a batch read, the same batch written.
func BenchmarkTunPass64KBatch(b *testing.B) {
	one, two := newPod(b, wireguard, 2), newPod(b, wireguard, 3)
	payload, size := benchSizes[0].payload, benchSizes[0].size
	fill := filler(b, one, payload, size)
	from, to := one.queue.(*native), two.queue.(*native)
	n := from.BatchSize()
	bufs, sizes, batch := make([][]byte, n), make([]int, n), make([][]byte, n)
	for i := range bufs {
		bufs[i] = make([]byte, 70_000)
	}
	b.SetBytes(int64(payload + 28))
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if i%ring == 0 {
			b.StopTimer()
			fill(min(ring, b.N-i))
			b.StartTimer()
		}
		n, err := from.Device.Read(bufs, sizes, packet.VnetLen)
		if err != nil || n != 44 {
			b.Fatal(n, err)
		}
		for j := range n {
			batch[j] = bufs[j][:packet.VnetLen+sizes[j]]
		}
		if _, err := to.Device.Write(batch[:n], packet.VnetLen); err != nil {
			b.Fatal(err)
		}
	}
}

// wireguard opens the device of that package, nothing in between.
var wireguard = backend{"wireguard", func(c tun.Config) (queue, io.Closer, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	req, err := unix.NewIfreq(c.Name)
	if err == nil {
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, nil, err
	}
	dev, _, err := wgtun.CreateUnmonitoredTUNFromFD(fd)
	return &native{dev}, dev, err
}}

// native is that device behind a face that is not used.
type native struct{ wgtun.Device }

func (*native) FD() int                      { return -1 }
func (*native) Takes(packet.GSO) bool        { return false }
func (*native) Read([]byte) (int, error)     { return 0, unix.ENOSYS }
func (*native) Write([]byte, [][]byte) error { return unix.ENOSYS }

// BenchmarkTunMerged64K is pass 64K where the super-packet came as 44 packets: merged by Train, they cost one write.
func BenchmarkTunMerged64K(b *testing.B) {
	src, dst := netip.MustParseAddrPort("10.244.2.3:4000"), netip.MustParseAddrPort("10.244.9.9:53")
	segs, err := expand(super(tcpPacket(src, dst, packet.ACK, pattern(44*1398), true), 1398), false)
	must(b, err)
	ps := make([]packet.Parsed, len(segs))
	for i, s := range segs {
		packet.Parse(s[packet.VnetLen:], &ps[i])
	}
	for _, train := range []bool{true, false} {
		b.Run(fmt.Sprintf("train %v", train), func(b *testing.B) {
			p := newPod(b, backends[0], 2)
			head := append([]byte(nil), segs[0]...)
			var t packet.Train
			b.SetBytes(44 * 1450)
			b.ReportAllocs()
			for b.Loop() {
				if !train {
					for _, s := range segs {
						packet.Offload{}.Encode(s)
						must(b, p.queue.Write(s, nil))
					}
					continue
				}
				copy(segs[0], head) // Finish wrote into it
				t.Reset()
				t.Start(segs[0], &ps[0], packet.Offload{})
				for i := 1; i < len(segs); i++ {
					if !t.Append(segs[i][packet.VnetLen:], &ps[i], packet.Offload{}) {
						b.Fatal("did not join")
					}
				}
				must(b, p.queue.Write(t.Finish()))
			}
		})
	}
}
