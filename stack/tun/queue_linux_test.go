package tun_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/packet"
)

// TestQueueRead has a pod send, and reads it through either back end: what comes out stands for the same packets.
func TestQueueRead(t *testing.T) {
	for _, b := range backends {
		for _, v6 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, IPv6 %v", b.name, v6), func(t *testing.T) {
				p := newPod(t, b, 2)
				dst := netip.MustParseAddrPort("10.244.2.3:53")
				if v6 {
					dst = netip.MustParseAddrPort("[fd00:10:244:2::3]:53")
				}
				c := dialUDP(t, p, dst)
				f := make([]byte, 70_000)
				if _, err := p.queue.Read(f); !errors.Is(err, unix.EAGAIN) || readable(p.queue.FD(), 0) {
					t.Errorf("before anything was sent: got %v, want EAGAIN", err)
				}
				for _, tt := range []struct {
					name             string
					segment, size    int
					packets, atLeast int // packets, and the fewest frames
				}{
					{"one packet", 0, 700, 1, 1},
					{"an empty one", 0, 0, 1, 1},
					{"as large as the MTU", 0, mtu - 48, 1, 1},
					{"super-packet", 1000, 5300, 6, 1},
					{"the largest super-packet of the kernel", 1000, 60_000, 60, 1},
				} {
					setUDP(t, c, unix.UDP_SEGMENT, tt.segment)
					want := pattern(tt.size)
					_, err := c.Write(want)
					mustSegment(t, b, err)
					segs, frames := nextPackets(t, p.queue, tt.packets)
					var got []byte
					for _, s := range segs {
						got = append(got, payloadOf(t, s[packet.VnetLen:])...)
					}
					if !bytes.Equal(got, want) || len(segs) != tt.packets {
						t.Errorf("%s: got %d bytes in %d packets, want %d in %d", tt.name, len(got), len(segs), tt.size, tt.packets)
					}
					if p.queue.Takes(packet.GSOUDP) && frames != 1 {
						t.Errorf("%s: got %d frames, want it whole", tt.name, frames)
					}
				}
				if _, err := p.queue.Read(f); !errors.Is(err, unix.EAGAIN) || readable(p.queue.FD(), 0) {
					t.Errorf("after everything: got %v, want EAGAIN", err)
				}
			})
		}
	}
}

// TestQueueWrite writes to a pod through either back end, whole and in parts, finished and unfinished.
func TestQueueWrite(t *testing.T) {
	for _, b := range backends {
		for _, v6 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, IPv6 %v", b.name, v6), func(t *testing.T) {
				p := newPod(t, b, 2)
				src, dst := netip.MustParseAddrPort("10.244.2.3:4000"), netip.AddrPortFrom(p.v4, 53)
				if v6 {
					src, dst = netip.MustParseAddrPort("[fd00:10:244:2::3]:4000"), netip.AddrPortFrom(p.v6, 53)
				}
				l := listenUDP(t, p, dst.Addr(), dst.Port())
				partial := func(payload []byte) []byte {
					one := udpPacket(src, dst, payload, true)
					var q packet.Parsed
					packet.Parse(one, &q)
					return frame(packet.PartialOffload(&q), one)
				}
				for _, tt := range []struct {
					name  string
					frame []byte
					cut   []int // where it is cut into parts
					sizes []int // of the datagrams that arrive
				}{
					{"one packet", frame(packet.Offload{}, udpPacket(src, dst, pattern(700), false)), nil, []int{700}},
					{"in two parts", frame(packet.Offload{}, udpPacket(src, dst, pattern(700), false)), []int{58}, []int{700}},
					{"open checksum", partial(pattern(700)), nil, []int{700}},
					{"open checksum, in parts", partial(pattern(700)), []int{58, 59, 300}, []int{700}},
					{"super-packet", super(udpPacket(src, dst, pattern(2500), true), 1000), nil, []int{1000, 1000, 500}},
					{"super-packet in parts", super(udpPacket(src, dst, pattern(2500), true), 1000), []int{58, 1058, 2058}, []int{1000, 1000, 500}},
					{"super-packet of a single segment", super(udpPacket(src, dst, pattern(900), true), 1000), nil, []int{900}},
				} {
					f := bytes.Clone(tt.frame)
					var parts [][]byte
					for _, at := range tt.cut {
						done := len(tt.frame) - len(f)
						parts = append(parts, f[:at-done:at-done])
						f = f[at-done:]
					}
					parts = append(parts, f)
					if err := p.queue.Write(parts[0], parts[1:]); err != nil {
						if tt.name == "super-packet of a single segment" && errors.Is(err, unix.EINVAL) {
							continue // the kernel may call it a contradiction
						}
						t.Errorf("%s: %v", tt.name, err)
						continue
					}
					rest := tt.sizes
					var got []byte
					for len(rest) > 0 {
						data := make([]byte, 70_000)
						must(t, l.SetReadDeadline(time.Now().Add(2*time.Second)))
						n, from, err := l.ReadFromUDPAddrPort(data)
						if err != nil || n != rest[0] || from.Port() != 4000 {
							t.Errorf("%s: got %d bytes from %v, %v, want %d", tt.name, n, from, err, rest[0])
							break
						}
						got, rest = append(got, data[:n]...), rest[1:]
					}
					if !bytes.Equal(got, pattern(len(got))) {
						t.Errorf("%s: got other bytes", tt.name)
					}
				}
			})
		}
	}
}

// TestQueueWriteRefuses writes what contradicts itself: an error, and the next write is well.
func TestQueueWriteRefuses(t *testing.T) {
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) {
			p := newPod(t, b, 2)
			src, dst := netip.MustParseAddrPort("10.244.2.3:4000"), netip.AddrPortFrom(p.v4, 53)
			l := listenUDP(t, p, dst.Addr(), dst.Port())
			one := udpPacket(src, dst, []byte("good"), false)
			for name, bad := range map[string][]byte{
				"nothing":                  {},
				"a cut header":             make([]byte, packet.VnetLen-1),
				"no packet":                make([]byte, packet.VnetLen),
				"no IP":                    frame(packet.Offload{}, []byte("\x10arbage that is no packet")),
				"checksum beyond it":       frame(packet.Offload{NeedsChecksum: true, ChecksumStart: 20, ChecksumOffset: 9999}, one),
				"checksum far beyond it":   frame(packet.Offload{NeedsChecksum: true, ChecksumStart: 65535, ChecksumOffset: 65535}, one),
				"a kind there is not":      frame(packet.Offload{NeedsChecksum: true, GSO: 77, Size: 1, ChecksumStart: 20, ChecksumOffset: 6}, one),
				"segments of no bytes":     frame(packet.Offload{NeedsChecksum: true, GSO: packet.GSOUDP, ChecksumStart: 20, ChecksumOffset: 6}, one),
				"TCP that is none":         frame(packet.Offload{NeedsChecksum: true, GSO: packet.GSOTCP4, Size: 2, ChecksumStart: 20, ChecksumOffset: 16}, one),
				"UDP in too many segments": super(udpPacket(src, dst, pattern(1000), true), 1),
			} {
				if err := p.queue.Write(bad, nil); err == nil && name != "UDP in too many segments" {
					t.Errorf("%s: taken", name)
				}
			}
			for end := time.Now().Add(10 * time.Second); ; { // the first one finds no room beside a thousand segments
				must(t, p.queue.Write(frame(packet.Offload{}, one), nil))
				var data [2000]byte
				must(t, l.SetReadDeadline(time.Now().Add(time.Second)))
				n, _, err := l.ReadFrom(data[:])
				if string(data[:n]) == "good" {
					break
				}
				if time.Now().After(end) {
					t.Fatalf("the good packet does not come: %v", err)
				}
			}
		})
	}
}

// TestQueueHostilePod: a process in the pod may hand over super-packets of its own making (PACKET_VNET_HDR). Whatever it
// is, the queue goes on.
func TestQueueHostilePod(t *testing.T) {
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) {
			p := newPod(t, b, 2)
			src, dst := netip.AddrPortFrom(p.v4, 4000), netip.MustParseAddrPort("10.244.2.3:53")
			send := packetSocket(t, p)
			whole := udpPacket(src, dst, pattern(20_000), true)
			tcp := tcpPacket(src, dst, packet.ACK|packet.CWR, pattern(20_000), true)
			sent := 0
			for name, f := range map[string][]byte{
				"segments above the MTU":          super(whole, 9000),
				"a segment of the whole":          super(whole, 20_000),
				"more segments than a batch":      super(tcp, 100),
				"segments of one byte":            super(tcp, 1),
				"TCP with CWR":                    super(tcp, 1000),
				"a checksum in the payload":       frame(packet.Offload{NeedsChecksum: true, ChecksumStart: 28, ChecksumOffset: 100}, whole[:1000]),
				"a packet above the MTU":          frame(packet.Offload{}, whole),
				"padding":                         frame(packet.Offload{}, append(udpPacket(src, dst, pattern(100), false), 1, 2, 3)),
				"an IP header that says nonsense": frame(packet.Offload{}, append([]byte{0x45, 0, 0xff, 0xff}, pattern(60)...)),
				"another version":                 frame(packet.Offload{}, append([]byte{0x10}, pattern(60)...)),
			} {
				if err := send(f); err == nil {
					sent++
				} else {
					t.Logf("%s: the kernel refuses it: %v", name, err)
				}
			}
			if sent < 5 {
				t.Fatalf("the kernel took only %d of them", sent)
			}
			c := dialUDP(t, p, dst)
			f := make([]byte, 70_000)
			for end := time.Now().Add(5 * time.Second); ; {
				n, err := p.queue.Read(f)
				switch {
				case errors.Is(err, unix.EAGAIN):
					if time.Now().After(end) {
						t.Fatal("the good packet does not come")
					}
					_, err := c.Write([]byte("good")) // now there is room for it: the bad ones may fill a ring
					must(t, err)
					readable(p.queue.FD(), 10*time.Millisecond)
					continue
				case err != nil:
					t.Fatalf("the device is lost: %v", err)
				}
				if bytes.Contains(f[:n], []byte("good")) {
					return
				}
			}
		})
	}
}

// packetSocket returns a function that hands a frame to the pod's device, past its IP stack.
func packetSocket(t *testing.T, p *pod) func(frame []byte) error {
	t.Helper()
	fd, at := -1, &unix.SockaddrLinklayer{Protocol: 0x0008} // IPv4, in network byte order
	must(t, p.Do(func() (err error) {
		ifc, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		at.Ifindex = ifc.Index
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1)
	}))
	t.Cleanup(func() { _ = unix.Close(fd) })
	return func(frame []byte) error { return unix.Sendto(fd, frame, 0, at) }
}

// TestWritesOfSuperPackets: a device that takes super-packets gets one as one write, one without the offload each segment as
// a write of its own. The portable back end splits them, and the package behind it joins them again.
func TestWritesOfSuperPackets(t *testing.T) {
	for _, b := range backends {
		p := newPod(t, b, 2)
		src, dst := netip.MustParseAddrPort("10.244.2.3:4000"), netip.AddrPortFrom(p.v4, 53)
		count := func() uint64 {
			h, err := p.Netlink()
			must(t, err)
			link, err := h.LinkByName("eth0")
			must(t, err)
			return link.Attrs().Statistics.RxPackets
		}
		before := count()
		must(t, p.queue.Write(super(tcpPacket(src, dst, packet.ACK, pattern(60_000), true), 1398), nil))
		must(t, p.queue.Write(super(udpPacket(src, dst, pattern(60_000), true), 1400), nil))
		want := uint64(2)
		switch {
		case strings.HasPrefix(b.name, "device without"):
			want = 2 * 43
		case !kernelTakesUDP(t):
			want = 1 + 43
		}
		if got := count() - before; got != want {
			t.Errorf("%s: two super-packets took %d writes, want %d", b.name, got, want)
		}
	}
}

func TestQueueAllocs(t *testing.T) {
	p := newPod(t, backends[0], 2)
	c := dialUDP(t, p, netip.MustParseAddrPort("10.244.2.3:53"))
	for range 20 {
		_, err := c.Write([]byte("question"))
		must(t, err)
	}
	f := make([]byte, 2000)
	if n := testing.AllocsPerRun(10, func() {
		if _, err := p.queue.Read(f); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("Read: got %v allocations, want 0", n)
	}
	whole := super(udpPacket(netip.MustParseAddrPort("10.244.2.3:4000"), netip.MustParseAddrPort("10.244.9.9:53"), pattern(5000), true), 1000)
	more := [][]byte{whole[1038:2038], whole[2038:]}
	if n := testing.AllocsPerRun(10, func() {
		must(t, p.queue.Write(whole, nil))
		must(t, p.queue.Write(whole[:1038], more))
	}); n != 0 {
		t.Errorf("Write: got %v allocations, want 0", n)
	}
}
