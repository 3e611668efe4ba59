package e2e

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/stack/packet"
)

// flow names the ends of a test packet.
type flow struct{ src, dst netip.Addr }

// udp returns a datagram with n bytes of payload, right in every field.
func (f flow) udp(n int) []byte {
	b := make([]byte, 8+n)
	binary.BigEndian.PutUint16(b[0:], 4000)
	binary.BigEndian.PutUint16(b[2:], 9)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	return f.packet(packet.UDP, b)
}

// tcp returns a segment with n bytes of payload, right in every field.
func (f flow) tcp(n int) []byte {
	b := make([]byte, 20+n)
	binary.BigEndian.PutUint16(b[0:], 4000)
	binary.BigEndian.PutUint16(b[2:], 9)
	b[12], b[13] = 5<<4, packet.ACK
	return f.packet(packet.TCP, b)
}

// echo returns an echo request with n bytes of payload.
func (f flow) echo(n int) []byte {
	b := make([]byte, 8+n)
	if f.src.Is6() {
		b[0] = 128
		return f.packet(packet.ICMPv6, b)
	}
	b[0] = 8
	return f.packet(packet.ICMP, b)
}

// packet puts an IP header in front of a transport segment and sums both.
func (f flow) packet(proto packet.Proto, seg []byte) []byte {
	b := f.headed(proto, seg)
	var p packet.Parsed
	if reason := packet.Parse(b, &p); reason != packet.Kept {
		panic("a test packet is " + reason.String())
	}
	at := map[packet.Proto]int{packet.UDP: 6, packet.TCP: 16, packet.ICMP: 2, packet.ICMPv6: 2}[proto]
	sum := uint16(0)
	if proto != packet.ICMP {
		sum = packet.PseudoSum(b, &p, len(seg))
	}
	seg = b[p.L4:]
	binary.BigEndian.PutUint16(seg[at:], ^packet.Checksum(seg, sum))
	return b
}

// headed puts an IP header in front of whatever seg is.
func (f flow) headed(proto packet.Proto, seg []byte) []byte {
	if f.src.Is6() {
		b := make([]byte, 40, 40+len(seg))
		b[0], b[6], b[7] = 6<<4, byte(proto), 64
		binary.BigEndian.PutUint16(b[4:], uint16(len(seg)))
		copy(b[8:], f.src.AsSlice())
		copy(b[24:], f.dst.AsSlice())
		return append(b, seg...)
	}
	b := make([]byte, 20, 20+len(seg))
	b[0], b[8], b[9] = 4<<4|5, 64, byte(proto)
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(seg)))
	copy(b[12:], f.src.AsSlice())
	copy(b[16:], f.dst.AsSlice())
	b = append(b, seg...)
	return resum(b)
}

// resum makes the checksum of an IPv4 header right again after an edit.
func resum(b []byte) []byte {
	b[10], b[11] = 0, 0
	head := min(max(20, int(b[0]&0xf)*4), len(b))
	binary.BigEndian.PutUint16(b[10:], ^packet.Checksum(b[:head], 0))
	return b
}

// with returns b after an edit, its IPv4 header summed again.
func with(b []byte, edit func(b []byte)) []byte {
	edit(b)
	if b[0]>>4 == 4 {
		resum(b)
	}
	return b
}

// put and put16 are edits: a byte, or two, at an offset.
func put(at int, v int) func([]byte) {
	return func(b []byte) { b[at] = byte(v) }
}

func put16(at int, v int) func([]byte) {
	return func(b []byte) { binary.BigEndian.PutUint16(b[at:], uint16(v)) }
}

// broken is a packet with wrong headers, by the reason that it is dropped for.
type broken struct {
	name string
	want packet.DropReason
	b    []byte
}

// brokenPackets are wrong in one place each; v4 and v6 are flows that would be forwarded.
func brokenPackets(v4, v6 flow) []broken {
	const malformed = packet.DropMalformed
	chain := func(headers int, last byte) []byte {
		b := make([]byte, 8*headers+8)
		for i := range headers {
			b[8*i] = 60 // destination options follow
		}
		b[8*(headers-1)] = last
		return b
	}
	return []broken{
		{"version 0", malformed, with(v4.udp(20), put(0, 0x05))},
		{"version 5", malformed, with(v4.udp(20), put(0, 0x55))},
		{"version 15", malformed, with(v6.udp(20), put(0, 0xf0))},
		{"version 6 of an IPv4 packet", malformed, with(v4.udp(8), put(0, 0x65))},
		{"version 4 of an IPv6 packet", malformed, with(v6.udp(8), func(b []byte) { b[0] = 0x41 })},
		{"header of 16 bytes", malformed, with(v4.udp(20), put(0, 0x44))},
		{"header longer than the packet", malformed, with(v4.udp(0), put(0, 0x4f))},
		{"total length too long", malformed, with(v4.udp(20), put16(2, 49))},
		{"total length 65535", malformed, with(v4.udp(20), put16(2, 65535))},
		{"total length below the header's", malformed, with(v4.udp(20), put16(2, 19))},
		{"total length 0", malformed, with(v4.tcp(20), put16(2, 0))},
		{"total length cuts UDP header", malformed, with(v4.udp(20), put16(2, 27))},
		{"wrong header checksum", packet.DropChecksum, func() []byte { b := v4.udp(20); b[10] ^= 1; return b }()},
		{"payload length too long", malformed, with(v6.udp(20), put16(4, 29))},
		{"payload length 0 (jumbogram)", malformed, with(v6.udp(20), put16(4, 0))},
		{"UDP length 7", malformed, with(v4.udp(20), put16(24, 7))},
		{"UDP length too long", malformed, with(v6.udp(20), put16(44, 29))},
		{"TCP header of 16 bytes", malformed, with(v4.tcp(20), put(32, 0x40))},
		{"TCP header longer than the packet", malformed, with(v6.tcp(20), put(52, 0xf0))},
		{"TCP header cut", malformed, v4.headed(packet.TCP, make([]byte, 19))},
		{"ICMP header cut", malformed, v4.headed(packet.ICMP, make([]byte, 7))},
		{"ICMPv6 in IPv4", malformed, v4.headed(packet.ICMPv6, make([]byte, 8))},
		{"ICMP in IPv6", malformed, v6.headed(packet.ICMP, make([]byte, 8))},
		{"SCTP header cut", malformed, v4.headed(packet.SCTP, make([]byte, 11))},
		{"extension header beyond the end", malformed, v6.headed(0, append([]byte{17, 200}, make([]byte, 14)...))},
		{"extension header cut", malformed, v6.headed(43, make([]byte, 4))},
		{"40 extension headers", malformed, v6.headed(60, chain(40, 17))},
		{"fragment header cut", malformed, v6.headed(44, make([]byte, 6))},
		{"loose source route", packet.DropSourceRoute, sourceRouted(v4.udp(9))},
		{"fragment without a byte", malformed, with(v4.headed(47, nil), put16(6, 1))},
		{"fragment of 9 bytes before another", malformed, with(v4.headed(47, make([]byte, 9)), put16(6, 0x2001))},
		{"fragment beyond 65535 bytes", malformed, with(v4.headed(47, make([]byte, 40)), put16(6, 0x1fff))},
		{"first fragment without TCP's flags", packet.DropFragment, with(v4.headed(packet.TCP, make([]byte, 8)), put16(6, 0x2000))},
		{"fragment over TCP's flags", packet.DropFragment, with(v4.headed(packet.TCP, make([]byte, 8)), put16(6, 1))},
		{"fragment over TCP's flags, IPv6", packet.DropFragment, v6.headed(44, []byte{6, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0})},
		{"fragment of a fragment", malformed, v6.headed(44, append([]byte{44, 0, 0, 1, 0, 0, 0, 1, 17, 0, 0, 1, 0, 0, 0, 1}, make([]byte, 8)...))},
		{"mapped source", malformed, flow{netip.MustParseAddr("::ffff:10.244.3.2"), v6.dst}.rawV6()},
		{"mapped destination", malformed, flow{v6.src, netip.MustParseAddr("::ffff:10.244.1.2")}.rawV6()},
	}
}

// sourceRouted puts a loose source route into an IPv4 header.
func sourceRouted(b []byte) []byte {
	b = append(append(append([]byte(nil), b[:20]...), 131, 7, 4, 10, 244, 1, 9, 0), b[20:]...)
	b[0] = 4<<4 | 7
	return with(b, put16(2, len(b)))
}

// rawV6 is an IPv6 packet whose addresses may be mapped ones.
func (f flow) rawV6() []byte {
	b := flow{netip.IPv6Unspecified(), netip.IPv6Unspecified()}.headed(packet.Proto(59), make([]byte, 8)) // no next header
	src, dst := f.src.As16(), f.dst.As16()
	copy(b[8:], src[:])
	copy(b[24:], dst[:])
	return b
}

// capture sees what a device receives.
type capture int

// newCapture sees eth0 of a namespace from now on.
func newCapture(t testing.TB, n *lab.Namespace) capture {
	t.Helper()
	fd := packetSocket(t, n, unix.ETH_P_ALL)
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20) == nil {
		return capture(fd)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 16<<20); err != nil { // by an ordinary user: at most rmem_max
		t.Fatal(err)
	}
	return capture(fd)
}

// packetSocket opens a packet socket on eth0 of a namespace, for packets of an Ethernet type.
func packetSocket(t testing.TB, n *lab.Namespace, etherType uint16) (fd int) {
	t.Helper()
	nl, err := n.Netlink()
	if err != nil {
		t.Fatal(err)
	}
	link, err := nl.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	order := func(v uint16) uint16 { return v>>8 | v<<8 }
	err = n.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: order(etherType), Ifindex: link.Attrs().Index})
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// received returns the packets received since the last call.
func (c capture) received(t testing.TB) (packets [][]byte) {
	t.Helper()
	b := make([]byte, 1<<16)
	for {
		n, from, err := unix.Recvfrom(int(c), b, 0)
		if err == unix.EAGAIN {
			return packets
		}
		if err != nil {
			t.Fatal(err)
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype != unix.PACKET_OUTGOING {
			packets = append(packets, append([]byte(nil), b[:n]...))
		}
	}
}

// flood sends packets to a node, no faster than it takes them, and checks what they are counted as.
type flood struct {
	node  *lab.Node
	burst int
}

// flooding is one kind of packet. send sends packet number i, of those that the kernel does not refuse.
type flooding struct {
	name string
	want packet.DropReason // packet.Kept: any reason
	send func(i int) error
}

// run sends n packets and expects exactly n drops more, all by the reason. Multicast that a pod's kernel sends by itself
// is not counted, nor is a fragment of the kind before whose time is up by now.
func (f flood) run(t *testing.T, n int, k flooding) {
	t.Helper()
	before := dropsOf(t, f.node)
	count := func() (uint64, drops) {
		more := dropsOf(t, f.node).minus(before)
		if k.want == packet.Kept {
			delete(more, packet.DropScope.String())
			return more.sum(), more
		}
		for _, other := range []packet.DropReason{packet.DropScope, packet.DropFragmentTimeout} {
			if k.want != other {
				delete(more, other.String())
			}
		}
		return more[k.want.String()], more
	}
	for sent := 0; sent < n; {
		for range min(f.burst, n-sent) {
			if err := k.send(sent); err != nil {
				t.Errorf("%s: send packet %d: %v", k.name, sent, err)
				return
			}
			sent++
		}
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
			got, all := count()
			if got >= uint64(sent) {
				break
			}
			if time.Now().After(end) {
				t.Errorf("%s: of %d packets %d were counted as %v: %v", k.name, sent, got, k.want, all)
				return
			}
		}
	}
	got, all := count()
	if got > uint64(n) && k.want != packet.DropScope || k.want != packet.Kept && all.sum() != got {
		t.Errorf("%s: %d packets were counted as %v, want %v only", k.name, n, all, k.want)
	}
}
