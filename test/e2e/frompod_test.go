package e2e

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/stack/packet"
)

func TestMalformedFromPod(t *testing.T)     { testFromPod(t, fewer(20_000)) }
func TestSoakMalformedFromPod(t *testing.T) { soak(t); testFromPod(t, 400_000) }

func testFromPod(t *testing.T, n int) {
	s := newStage(t)
	f := flood{node: s.node, burst: 64}
	kinds := podKinds(t, s)
	for _, k := range kinds {
		f.run(t, n/len(kinds)+1, k)
		if t.Failed() {
			break
		}
	}
	f.run(t, n/len(kinds)+1, rawSource(t, s))
	s.close(t)
}

// rawSource sends through an ordinary raw socket with an IP header of its own.
func rawSource(t *testing.T, s *stage) flooding {
	var fd int
	err := s.node.Pods[0].Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW) // IP_HDRINCL
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	b := flow{netip.MustParseAddr("203.0.113.7"), s.target.Addr4}.udp(9)
	return flooding{"raw socket, another's source", packet.DropSource, func(int) error {
		return unix.Sendto(fd, b, 0, &unix.SockaddrInet4{Addr: s.target.Addr4.As4()})
	}}
}

// podKinds are the ways in which a pod with CAP_NET_RAW can send what it should not: through a packet socket on its device,
// past its own IP.
func podKinds(t *testing.T, s *stage) (kinds []flooding) {
	random := rand.New(rand.NewPCG(7, 8))
	pod := s.node.Pods[0]
	fd := packetSocket(t, pod.Namespace, 0)
	v4, v6 := flow{pod.Addr4, s.target.Addr4}, flow{pod.Addr6, s.target.Addr6}
	each := func(name string, want packet.DropReason, packets ...[]byte) {
		kinds = append(kinds, flooding{name, want, func(i int) error {
			_, err := unix.Write(fd, packets[i%len(packets)])
			return err
		}})
	}
	kinds = append(kinds, flooding{"random bytes", packet.Kept, func(int) error {
		b := make([]byte, 1+random.IntN(1400))
		fill(random, b)
		_, err := unix.Write(fd, b)
		return err
	}})

	var cut [][]byte
	for _, whole := range [][]byte{v4.udp(60), v6.tcp(30)} {
		for i := 1; i < len(whole); i++ {
			cut = append(cut, whole[:i])
		}
	}
	each("cut", packet.DropMalformed, cut...)
	each("another's source", packet.DropSource,
		flow{netip.MustParseAddr("203.0.113.7"), v4.dst}.udp(9), flow{s.node.Pods[1].Addr4, v4.dst}.tcp(9),
		flow{host(lab.PodCIDR4(1), 1), v4.dst}.echo(9), flow{lab.NodeAddr4(1).Addr(), v4.dst}.udp(9),
		flow{host(lab.PodCIDR4(2), 2), v4.dst}.udp(9), flow{s.node.Pods[1].Addr6, v6.dst}.tcp(9),
		flow{host(lab.PodCIDR6(1), 1), v6.dst}.udp(9),
		with(flow{s.node.Pods[1].Addr4, v4.dst}.udp(24), put16(6, 0x2000)), // a first fragment
		with(flow{s.node.Pods[1].Addr4, v4.dst}.udp(24), put16(6, 0x0010))) // a last one
	each("not to be forwarded", packet.DropScope,
		flow{v4.src, netip.MustParseAddr("224.0.0.251")}.udp(9), flow{v4.src, netip.MustParseAddr("255.255.255.255")}.udp(9),
		flow{v4.src, netip.MustParseAddr("127.0.0.1")}.tcp(9), flow{v4.src, netip.MustParseAddr("169.254.169.254")}.tcp(9),
		flow{v6.src, netip.MustParseAddr("ff02::1")}.udp(9), flow{v6.src, netip.MustParseAddr("fe80::1")}.echo(9),
		flow{v6.src, netip.MustParseAddr("::1")}.tcp(9), flow{netip.IPv4Unspecified(), v4.dst}.udp(9),
		flow{netip.MustParseAddr("127.0.0.1"), v4.dst}.udp(9))
	each("time to live used up", packet.DropTTL,
		with(v4.udp(9), put(8, 1)), with(v4.tcp(9), put(8, 0)), with(v6.udp(9), put(7, 1)), with(v6.echo(9), put(7, 0)),
		with(flow{v4.src, host(lab.PodCIDR4(2), 2)}.udp(9), put(8, 1)))
	each("no such pod", packet.DropNoPod, flow{v4.src, host(lab.PodCIDR4(1), 200)}.echo(9),
		flow{v4.src, host(lab.PodCIDR4(1), 255)}.udp(9), flow{v6.src, host(lab.PodCIDR6(1), 200)}.tcp(9))
	each("no route", packet.DropNoRoute,
		flow{v4.src, netip.MustParseAddr("203.0.113.7")}.udp(9), flow{v4.src, lab.NodeAddr4(9).Addr()}.tcp(9))
	wrong := flow{v4.src, host(lab.PodCIDR4(1), 1)}
	badTCP, badEcho := wrong.tcp(9), wrong.echo(9)
	badTCP[len(badTCP)-1] ^= 1
	badEcho[len(badEcho)-1] ^= 1
	each("wrong checksum, to the node", packet.DropChecksum, badTCP, badEcho)
	for _, broken := range brokenPackets(v4, v6) {
		each(broken.name, broken.want, broken.b)
	}
	return kinds
}

// packetVnetHdr is PACKET_VNET_HDR of linux/if_packet.h: packets of the socket start with a virtio_net_hdr.
const packetVnetHdr = 15

// contradiction is a packet whose description by the pod (virtio_net_hdr) is not true.
type contradiction struct {
	name string
	want packet.DropReason // packet.Kept: the pod's kernel may put it right
	o    packet.Offload
	b    []byte
}

func contradictions(v4, v6 flow) []contradiction {
	const bad, kept = packet.DropOffload, packet.Kept
	fragment := with(v4.udp(24), put16(6, 0x2000))
	padded := append(v4.udp(40), make([]byte, 40)...)
	foreign := flow{netip.MustParseAddr("203.0.113.7"), v4.dst}
	sum := func(start, offset int) packet.Offload {
		return packet.Offload{NeedsChecksum: true, ChecksumStart: uint16(start), ChecksumOffset: uint16(offset)}
	}
	gso := func(kind packet.GSO, size, start, offset int) packet.Offload {
		o := sum(start, offset)
		o.GSO, o.Size, o.HeaderLen = kind, uint16(size), uint16(start+offset+2)
		return o
	}
	return []contradiction{
		{"checksum over the IP header", bad, sum(0, 10), v4.udp(40)},
		{"checksum in the addresses", bad, sum(12, 0), v4.udp(40)},
		{"checksum beyond the end", bad, sum(20, 400), v4.udp(40)},
		{"checksum from beyond the end", bad, sum(4000, 6), v4.udp(40)},
		{"checksum before IPv6's transport", bad, sum(20, 6), v6.udp(40)},
		{"checksum in the padding", bad, sum(70, 16), padded},
		{"TCP over IPv4, but UDP", bad, gso(packet.GSOTCP4, 100, 20, 6), v4.udp(1000)},
		{"TCP over IPv6, but IPv4", bad, gso(packet.GSOTCP6, 100, 20, 16), v4.tcp(1000)},
		{"TCP over IPv4, but IPv6", bad, gso(packet.GSOTCP4, 100, 40, 16), v6.tcp(1000)},
		{"UDP, but TCP", bad, gso(packet.GSOUDP, 100, 20, 16), v4.tcp(1000)},
		{"UDP with a length of its own", bad, gso(packet.GSOUDP, 100, 20, 6), with(v4.udp(1000), put16(24, 500))},
		{"segments without checksum", kept, packet.Offload{GSO: packet.GSOTCP4, Size: 100, HeaderLen: 40}, v4.tcp(1000)},
		{"segments of size 0", bad, gso(packet.GSOTCP4, 0, 20, 16), v4.tcp(1000)},
		{"segments larger than the packet", kept, gso(packet.GSOTCP4, 2000, 20, 16), v4.tcp(1000)},
		{"segments larger than the MTU", kept, gso(packet.GSOTCP4, 2000, 20, 16), v4.tcp(5000)},
		{"segments of one byte", bad, gso(packet.GSOTCP4, 1, 20, 16), v4.tcp(60000)},
		{"segments of a fragment", bad, gso(packet.GSOUDP, 8, 20, 6), fragment},
		{"segments by IP fragments", kept, gso(3, 100, 20, 6), v4.udp(1000)},
		{"unknown kind of segments", bad, gso(7, 100, 20, 6), v4.udp(1000)},
		{"checksum where TCP has none", bad, gso(packet.GSOTCP4, 100, 20, 6), v4.tcp(1000)},
		{"another's source", packet.DropSource, gso(packet.GSOTCP4, 100, 20, 16), foreign.tcp(1000)},
		{"another's source, UDP", packet.DropSource, gso(packet.GSOUDP, 100, 20, 6), foreign.udp(1000)},
		{"time to live used up", packet.DropTTL, gso(packet.GSOTCP4, 100, 20, 16), with(v4.tcp(1000), put(8, 1))},
	}
}

// What a pod tells of its packets is checked like the packets. Much of it its own kernel refuses, swallows or puts right.
func TestContradictionsFromPod(t *testing.T) {
	s := newStage(t)
	pod, to := s.node.Pods[0], s.node.Pods[1]
	fd := packetSocket(t, pod.Namespace, 0)
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, packetVnetHdr, 1); err != nil {
		t.Fatal(err)
	}
	seen := newCapture(t, to.Namespace)
	f := flood{node: s.node, burst: 64}
	for _, c := range contradictions(flow{pod.Addr4, to.Addr4}, flow{pod.Addr6, to.Addr6}) {
		frame := append(make([]byte, packet.VnetLen), c.b...)
		c.o.Encode(frame)
		send := func(int) error { _, err := unix.Write(fd, frame); return err }
		seen.received(t)
		before := dropsOf(t, s.node)
		if err := send(0); err != nil {
			t.Logf("%s: refused by the pod's kernel: %v", c.name, err)
			continue
		}
		time.Sleep(20 * time.Millisecond)
		more := dropsOf(t, s.node).minus(before)
		delete(more, packet.DropScope.String())
		arrived := 0
		for _, b := range seen.received(t) {
			var p packet.Parsed
			if packet.Parse(b, &p) == packet.Kept && p.Flow.DstPort() == 9 {
				arrived++
			}
		}
		switch {
		case more.sum() == 0 && arrived == 0:
			t.Logf("%s: swallowed by the pod's kernel", c.name)
		case arrived > 0 && c.want == packet.Kept:
			t.Logf("%s: put right by the pod's kernel: %d arrived, dropped %v", c.name, arrived, more)
		case arrived > 0:
			t.Errorf("%s: %d arrived, dropped %v", c.name, arrived, more)
		case c.want != packet.Kept:
			f.run(t, 500, flooding{c.name, c.want, send})
		default:
			t.Logf("%s: dropped %v", c.name, more)
		}
	}
	s.close(t)
}
