package tun_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/packet"
)

// router is a namespace whose kernel forwards from a device of ours to one without offloads, so that it must segment and
// sum by itself:
//
//	super-packet ──► in (ours) ──► kernel: forward, segment, sum ──► out (no vnet header) ──► packets
type router struct {
	in  queue
	out int
}

func newRouter(t testing.TB) *router {
	t.Helper()
	n := newNamespace(t, "router")
	r := &router{in: openIn(t, n, backends[0], "in"), out: -1}
	must(t, n.Do(func() (err error) {
		if r.out, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
			return err
		}
		req, err := unix.NewIfreq("out")
		if err != nil {
			return err
		}
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		return unix.IoctlIfreq(r.out, unix.TUNSETIFF, req)
	}))
	t.Cleanup(func() { _ = unix.Close(r.out) })
	setMTU(t, n, "out")
	h, err := n.Netlink()
	must(t, err)
	link, err := h.LinkByName("out")
	must(t, err)
	must(t, h.LinkSetTxQLen(link, 5000)) // a super-packet of many segments must not overflow it
	must(t, n.Sysctl("net.ipv4.ip_forward", "1"))
	must(t, n.Sysctl("net.ipv6.conf.all.forwarding", "1"))
	for _, dst := range []string{"10.244.1.3/32", "fd00:10:244:1::3/128", "10.244.2.0/24", "fd00:10:244:2::/64"} {
		must(t, n.AddRoute(netip.MustParsePrefix(dst), netip.Addr{}, "out"))
	}
	must(t, h.NeighAdd(&netlink.Neigh{LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: []byte{10, 244, 2, 3}}))
	return r
}

// through writes a frame and returns the n packets that come out.
func (r *router) through(t testing.TB, frame []byte, more [][]byte, n int) (segs [][]byte) {
	t.Helper()
	if err := r.in.Write(frame, more); err != nil {
		t.Fatalf("write % x: %v", frame[:min(len(frame), 90)], err)
	}
	b := make([]byte, 70_000)
	for len(segs) < n {
		if !readable(r.out, time.Second) {
			break
		}
		size, err := unix.Read(r.out, b)
		if errors.Is(err, unix.EAGAIN) {
			continue
		}
		must(t, err)
		if b[0]>>4 == 6 && packet.Proto(b[6]) == packet.HopByHop {
			continue // the kernel's own: it tells of its multicast groups
		}
		segs = append(segs, bytes.Clone(b[:size]))
	}
	return segs
}

// forwarded returns the packets that frame f stands for as they should leave a router, each complete.
func forwarded(t testing.TB, f []byte) [][]byte {
	t.Helper()
	f = bytes.Clone(f)
	var p packet.Parsed
	if packet.Parse(f[packet.VnetLen:], &p) != packet.Kept || !packet.DecrementTTL(f[packet.VnetLen:], &p) {
		t.Fatalf("% x: no packet", f[:60])
	}
	segs, err := expand(f, false)
	must(t, err)
	for i := range segs {
		segs[i] = segs[i][packet.VnetLen:]
	}
	return segs
}

// compare reports the first difference between our packets and the kernel's.
func compare(t testing.TB, what string, ours, kernels [][]byte) {
	t.Helper()
	if len(ours) != len(kernels) {
		t.Errorf("%s: %d packets, by the kernel %d", what, len(ours), len(kernels))
		return
	}
	for i := range ours {
		if !bytes.Equal(ours[i], kernels[i]) {
			t.Errorf("%s: packet %d of %d\nours   % x\nkernel % x", what, i, len(ours), ours[i][:min(len(ours[i]), 100)], kernels[i][:min(len(kernels[i]), 100)])
			return
		}
	}
}

// again merges complete packets by Train and writes them to the router; what the kernel makes of them are the packets.
func (r *router) again(t testing.TB, what string, f []byte, partial bool) {
	t.Helper()
	segs, err := expand(f, partial)
	must(t, err)
	var train packet.Train
	var kernels [][]byte
	flush := func() {
		n := train.Count()
		frame, more := train.Finish()
		kernels = append(kernels, r.through(t, frame, more, n)...)
		train.Reset()
	}
	trains := 0
	for _, s := range segs {
		var p packet.Parsed
		packet.Parse(s[packet.VnetLen:], &p)
		var o packet.Offload
		if partial {
			o = packet.PartialOffload(&p)
		}
		if !train.Empty() && train.Append(s[packet.VnetLen:], &p, o) {
			continue
		}
		if !train.Empty() {
			flush()
		}
		train.Start(s, &p, o)
		trains++
	}
	flush()
	compare(t, fmt.Sprintf("%s, merged into %d (partial %v)", what, trains, partial), forwarded(t, f), kernels)
}

// TestSplitAgainstKernel makes super-packets of every kind: our segments are the kernel's, byte for byte, and our merged
// super-packets are to the kernel what was merged.
func TestSplitAgainstKernel(t *testing.T) {
	r := newRouter(t)
	const ack, psh, fin, ece, cwr = packet.ACK, packet.PSH, packet.FIN, packet.ECE, packet.CWR
	for _, v6 := range []bool{false, true} {
		src, dst := netip.MustParseAddrPort("10.244.1.2:4000"), netip.MustParseAddrPort("10.244.2.3:80")
		if v6 {
			src, dst = netip.MustParseAddrPort("[fd00:10:244:1::2]:4000"), netip.MustParseAddrPort("[fd00:10:244:2::3]:80")
		}
		for _, tt := range []struct {
			name        string
			proto       packet.Proto
			flags       byte
			size, total int
		}{
			{"TCP", packet.TCP, ack, 1378, 10_000},
			{"TCP, even", packet.TCP, ack, 1000, 5000},
			{"TCP with PSH", packet.TCP, ack | psh, 1378, 60_000},
			{"TCP with FIN and PSH", packet.TCP, ack | psh | fin, 700, 5000},
			{"TCP with ECE", packet.TCP, ack | ece, 1378, 5000},
			{"TCP with CWR", packet.TCP, ack | cwr, 1378, 5000},
			{"TCP with everything", packet.TCP, ack | cwr | ece | psh | fin, 1001, 5000},
			{"TCP, small segments", packet.TCP, ack, 48, 2000},
			{"TCP, two segments", packet.TCP, ack, 1378, 1379},
			{"UDP", packet.UDP, 0, 1398, 10_000},
			{"UDP, even", packet.UDP, 0, 1200, 12_000},
			{"UDP, small segments", packet.UDP, 0, 33, 2000},
			{"UDP, two segments", packet.UDP, 0, 1000, 1001},
		} {
			name := fmt.Sprintf("%s, IPv6 %v", tt.name, v6)
			var b []byte
			if tt.proto == packet.TCP {
				b = tcpPacket(src, dst, tt.flags, pattern(tt.total), true)
			} else {
				b = udpPacket(src, dst, pattern(tt.total), true)
			}
			f := super(b, tt.size)
			ours := forwarded(t, f)
			compare(t, name, ours, r.through(t, f, nil, len(ours)))
			r.again(t, name, f, false)
			r.again(t, name, f, true)
		}
	}
}

// TestSplitAgainstKernelRandom is the same for whatever headers may vary, and for IPv6 extension headers.
func TestSplitAgainstKernelRandom(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	defer func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	}()
	r := newRouter(t)
	for i := range 150 {
		src, dst := netip.MustParseAddrPort("10.244.1.2:4000"), netip.MustParseAddrPort("10.244.2.3:80")
		v6 := rnd.IntN(2) == 0
		if v6 {
			src, dst = netip.MustParseAddrPort("[fd00:10:244:1::2]:4000"), netip.MustParseAddrPort("[fd00:10:244:2::3]:80")
		}
		size := 100 + rnd.IntN(1200)
		payload := pattern(size + 1 + rnd.IntN(size*40))
		var b []byte
		if rnd.IntN(3) == 0 {
			b = udpPacket(src, dst, payload, true)
		} else {
			b = tcpPacket(src, dst, packet.ACK|byte(rnd.Uint32())&(packet.PSH|packet.FIN|packet.ECE|packet.CWR), payload, true)
			at := len(b) - len(payload) - 32
			binary.BigEndian.PutUint32(b[at+4:], rnd.Uint32())
			binary.BigEndian.PutUint32(b[at+8:], rnd.Uint32())
			binary.BigEndian.PutUint16(b[at+14:], uint16(rnd.Uint32()))
		}
		if v6 {
			b[1] = byte(rnd.Uint32()) // class and label
			if i%10 == 0 {
				b = slices.Insert(b, 40, b[6], 0, 1, 4, 0, 0, 0, 0) // destination options with padding
				b[6] = byte(packet.DestOptions)
				binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
			}
		} else {
			b[1] = byte(rnd.Uint32())
			binary.BigEndian.PutUint16(b[4:], uint16(rnd.Uint32()))
			b[6] = byte(rnd.IntN(2)) << 6 // DF
			b[8] = byte(2 + rnd.IntN(254))
			binary.BigEndian.PutUint16(b[10:], 0)
			binary.BigEndian.PutUint16(b[10:], ^packet.Checksum(b[:20], 0))
		}
		f := super(b, size)
		ours := forwarded(t, f)
		compare(t, "random", ours, r.through(t, f, nil, len(ours)))
		if i%10 != 0 || !v6 { // extension headers are not merged
			r.again(t, "random", f, rnd.IntN(2) == 0)
		}
		if t.Failed() {
			return
		}
	}
}
