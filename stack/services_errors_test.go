package stack

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
	"github.com/middleway-net/middleway/stack/service"
)

// about returns an ICMP error of either family, port unreachable, about a packet that it quotes whole.
func about(src, dst netip.Addr, quoted []byte) []byte {
	if src.Is4() {
		return icmpAbout(src, dst, quoted)
	}
	b := append([]byte{1, 4, 0, 0, 0, 0, 0, 0}, quoted...)
	ip := binary.BigEndian.AppendUint32(nil, 6<<28)
	ip = binary.BigEndian.AppendUint16(ip, uint16(len(b)))
	ip = append(append(append(ip, byte(packet.ICMPv6), 64), src.AsSlice()...), dst.AsSlice()...)
	p := packet.Parsed{Version: 6, Proto: packet.ICMPv6}
	binary.BigEndian.PutUint16(b[2:], ^packet.Checksum(b, packet.PseudoSum(ip, &p, len(b))))
	return append(make([]byte, packet.VnetLen), append(ip, b...)...)
}

// says returns what an ICMP error says, all checksums of which have to be right.
func says(t *testing.T, b []byte) string {
	t.Helper()
	var p, q, whole packet.Parsed
	if r := packet.Parse(b, &p); r != packet.Kept || !packet.TransportChecksumOK(b, &p) {
		t.Fatalf("%v, or its checksum is wrong", r)
	}
	quoted := b[p.L4+8:]
	if r := packet.ParseQuoted(quoted, &q); r != packet.Kept {
		t.Fatalf("what it quotes: %v", r)
	}
	if q.Version == 4 && packet.Checksum(quoted[:20], 0) != 0xffff {
		t.Error("the quoted header's checksum is wrong")
	}
	if packet.Parse(quoted, &whole) == packet.Kept && !packet.TransportChecksumOK(quoted, &whole) {
		t.Error("the quoted packet's checksum is wrong")
	}
	return fmt.Sprintf("%v -> %v about %v", p.Flow.Src(), p.Flow.Dst(), q.Flow)
}

// TestServiceErrors: an ICMP error about a packet to or from a Service tells its receiver of the packet that it sent; a router in
// the middle keeps its address.
func TestServiceErrors(t *testing.T) {
	router, router6 := netip.MustParseAddr("10.244.2.77"), netip.MustParseAddr("fd00:10:244:2::77")
	for _, tt := range []struct {
		name   string
		client string // who sends to the Service
		sent   packettest.Packet
		// The error: from whom, where it comes in, and whether it is about what came back.
		src    netip.Addr
		from   string
		answer bool
		want   string // where it comes out, and what it says
	}{
		{"the backend refuses", "a", packettest.Packet{Src: podA, Dst: far, SrcPort: 4000, DstPort: 80}, farPod, "peer", false,
			"a: 10.96.0.22 -> 10.244.1.2 about udp 10.244.1.2:4000 -> 10.96.0.22:80"},
		{"a router on the way", "a", packettest.Packet{Src: podA, Dst: far, SrcPort: 4000, DstPort: 80}, router, "peer", false,
			"a: 10.244.2.77 -> 10.244.1.2 about udp 10.244.1.2:4000 -> 10.96.0.22:80"},
		{"of TCP", "a", packettest.Packet{Src: podA, Dst: far, Proto: packet.TCP, SrcPort: 4000, DstPort: 80, Flags: packet.ACK, Payload: []byte("data")}, router, "peer", false,
			"a: 10.244.2.77 -> 10.244.1.2 about tcp 10.244.1.2:4000 -> 10.96.0.22:80"},
		{"over IPv6", "a", packettest.Packet{Src: podA6, Dst: far6, Proto: packet.TCP, SrcPort: 4000, DstPort: 80, Flags: packet.ACK}, router6, "peer", false,
			"a: fd00:10:244:2::77 -> fd00:10:244:1::2 about tcp [fd00:10:244:1::2]:4000 -> [fd00:10:96::22]:80"},
		{"the backend over IPv6", "a", packettest.Packet{Src: podA6, Dst: far6, Proto: packet.TCP, SrcPort: 4000, DstPort: 80, Flags: packet.ACK}, farPod6, "peer", false,
			"a: fd00:10:96::22 -> fd00:10:244:1::2 about tcp [fd00:10:244:1::2]:4000 -> [fd00:10:96::22]:80"},
		{"a backend of the node", "a", packettest.Packet{Src: podA, Dst: web, SrcPort: 4000, DstPort: 80}, podB, "b", false,
			"a: 10.96.0.20 -> 10.244.1.2 about udp 10.244.1.2:4000 -> 10.96.0.20:80"},
		{"the client refuses the answer", "a", packettest.Packet{Src: podA, Dst: far, SrcPort: 4000, DstPort: 80}, podA, "a", true,
			"peer 192.168.254.12: 10.244.1.2 -> 10.244.2.2 about udp 10.244.2.2:8080 -> 10.244.1.2:4000"},
		{"the client of a backend of the node", "a", packettest.Packet{Src: podA6, Dst: web6, SrcPort: 4000, DstPort: 80}, podA6, "a", true,
			"b: fd00:10:244:1::2 -> fd00:10:244:1::3 about udp [fd00:10:244:1::3]:8080 -> [fd00:10:244:1::2]:4000"},
		{"hairpin", "a", packettest.Packet{Src: podA, Dst: self, Proto: packet.TCP, SrcPort: 4000, DstPort: 80, Flags: packet.ACK}, podA, "a", false,
			"a: 10.96.0.21 -> 10.244.1.2 about tcp 10.244.1.2:4000 -> 10.96.0.21:80"},
		{"to the host", "host", packettest.Packet{Src: hostNode, Dst: far, Proto: packet.TCP, SrcPort: 4000, DstPort: 80, Flags: packet.ACK}, farPod, "peer", false,
			"host: 10.96.0.22 -> 192.168.254.11 about tcp 192.168.254.11:4000 -> 10.96.0.22:80"},
		{"to the host, from a router", "host", packettest.Packet{Src: hostNode, Dst: far, Proto: packet.TCP, SrcPort: 4000, DstPort: 80, Flags: packet.ACK}, router, "peer", false,
			"host: 10.244.2.77 -> 192.168.254.11 about tcp 192.168.254.11:4000 -> 10.96.0.22:80"},
		{"of the host", "host", packettest.Packet{Src: hostNode, Dst: far, Proto: packet.TCP, SrcPort: 4000, DstPort: 80, Flags: packet.ACK}, hostNode, "host", true,
			"peer 192.168.254.12: 10.244.1.0 -> 10.244.2.2 about tcp 10.244.2.2:8080 -> 10.244.1.0:4000"},
		{"of SCTP", "a", packettest.Packet{Src: podA, Dst: web, Proto: packet.SCTP, SrcPort: 4000, DstPort: 80}, podB, "b", false,
			"a: 10.96.0.20 -> 10.244.1.2 about sctp 10.244.1.2:4000 -> 10.96.0.20:80"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newServiceBed(t, 1)
			d.run(t)
			d.from(tt.client).Inject(0, tt.sent.Frame())
			came := d.outcome(t)
			if came.packet == nil {
				t.Fatalf("dropped: %s", came.where)
			}
			if tt.answer { // what arrives at the client
				backend := "peer"
				if came.where == "b" {
					backend = "b"
				}
				d.from(backend).Inject(0, answerTo(came.packet))
				came = d.outcome(t)
			}
			var p packet.Parsed
			packet.Parse(came.packet, &p)
			d.from(tt.from).Inject(0, about(tt.src, p.Flow.Src(), came.packet))
			o := d.outcome(t)
			got := o.where
			if o.packet != nil {
				got += ": " + says(t, o.packet)
			}
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// TestServiceOwnErrors: what the node itself says about a packet to or from a Service is about the packet as it was sent.
func TestServiceOwnErrors(t *testing.T) {
	for _, tt := range []struct {
		name string
		from string // its answer, if it is the backend's
		sent packettest.Packet
		want string
	}{
		{"time to live", "", packettest.Packet{Src: podA, Dst: far, SrcPort: 4000, DstPort: 80, TTL: 1}, "a: 10.244.1.1 -> 10.244.1.2 about udp 10.244.1.2:4000 -> 10.96.0.22:80"},
		{"too big", "", packettest.Packet{Src: podA, Dst: far, SrcPort: 4000, DstPort: 80, Payload: make([]byte, 1500)}, "a: 10.244.1.1 -> 10.244.1.2 about udp 10.244.1.2:4000 -> 10.96.0.22:80"},
		{"too big, IPv6", "", packettest.Packet{Src: podA6, Dst: web6, SrcPort: 4000, DstPort: 80, Payload: make([]byte, 1500)}, "a: fd00:10:244:1::1 -> fd00:10:244:1::2 about udp [fd00:10:244:1::2]:4000 -> [fd00:10:96::20]:80"},
		{"an answer too big", "b", packettest.Packet{Src: podB, Dst: podA, SrcPort: 8080, DstPort: 4000, Payload: make([]byte, 1500)}, "b: 10.244.1.1 -> 10.244.1.3 about udp 10.244.1.3:8080 -> 10.244.1.2:4000"},
		{"an answer's time to live", "b", packettest.Packet{Src: podB, Dst: podA, SrcPort: 8080, DstPort: 4000, TTL: 1}, "b: 10.244.1.1 -> 10.244.1.3 about udp 10.244.1.3:8080 -> 10.244.1.2:4000"},
		{"hairpin, time to live", "", packettest.Packet{Src: podA, Dst: self, Proto: packet.TCP, SrcPort: 4000, DstPort: 80, TTL: 1}, "a: 10.244.1.1 -> 10.244.1.2 about tcp 10.244.1.2:4000 -> 10.96.0.21:80"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newServiceBed(t, 1)
			for range 2 { // without an entry, and with one
				dev := "a"
				if tt.from != "" {
					dev = tt.from
				}
				att := d.tables.Load().attachments[d.idA]
				if dev == "b" {
					att = d.tables.Load().attachments[d.idA+1]
				}
				got := d.traceFrame(d.tables.Load(), att, originPod, tt.sent.Frame(), true)
				if len(got.Answers) != 1 || dev+": "+says(t, got.Answers[0]) != tt.want {
					t.Errorf("got %d answers, %s\nwant %s", len(got.Answers), says(t, got.Answers[0]), tt.want)
				}
				if _, err := d.Trace(Probe{From: "a", Dst: web, Proto: packet.UDP, SrcPort: 4000, DstPort: 80, Enter: true}); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestServicePieces: the pieces of a large datagram reach the backend as those of a translated one, in whatever order, and so do those
// of its answer.
func TestServicePieces(t *testing.T) {
	for _, tt := range []struct {
		name       string
		sent, left packettest.Packet
	}{
		{"IPv4", packettest.Packet{Src: podA, Dst: web, SrcPort: 4000, DstPort: 80, ID: 5}, packettest.Packet{Src: podA, Dst: podB, SrcPort: 4000, DstPort: 8080, ID: 5}},
		{"IPv6", packettest.Packet{Src: podA6, Dst: web6, SrcPort: 4000, DstPort: 80}, packettest.Packet{Src: podA6, Dst: podB6, SrcPort: 4000, DstPort: 8080}},
	} {
		for _, backwards := range []bool{false, true} {
			t.Run(fmt.Sprint(tt.name, ", backwards ", backwards), func(t *testing.T) {
				d := newServiceBed(t, 2)
				d.run(t)
				sent, left := tt.sent, tt.left
				sent.Payload = bytes.Repeat([]byte("large"), 8000)
				left.Payload, left.TTL = sent.Payload, 63
				pieces := packettest.Fragments(sent.Frame()[packet.VnetLen:], 1400, 7)
				for i := range pieces {
					n := i
					if backwards {
						n = len(pieces) - 1 - i
					}
					d.a.Inject(i%2, append(make([]byte, packet.VnetLen), pieces[n]...))
				}
				got := map[string]bool{}
				eventually(t, "all pieces come", func() bool {
					for _, o := range d.arrived() {
						got[o.where+string(o.packet)] = true
					}
					return len(got) == len(pieces)
				})
				want := map[string]bool{}
				for _, b := range packettest.Fragments(left.Frame()[packet.VnetLen:], 1400, 7) {
					want["b"+string(b)] = true
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Error("the pieces are not those of the translated datagram")
				}
			})
		}
	}
}

// TestServiceSuperPacket: a super-packet goes through a Service whole, with its payload untouched and a checksum that its segments can
// be finished by; and a train of answers is merged into one.
func TestServiceSuperPacket(t *testing.T) {
	for _, tt := range []struct {
		name       string
		sent, left packettest.Packet
	}{
		{"TCP", packettest.Packet{Src: podA, Dst: web, Proto: packet.TCP, SrcPort: 4000, DstPort: 80, Flags: packet.ACK}, packettest.Packet{Src: podA, Dst: podB, Proto: packet.TCP, SrcPort: 4000, DstPort: 8080, Flags: packet.ACK}},
		{"TCP over IPv6", packettest.Packet{Src: podA6, Dst: web6, Proto: packet.TCP, SrcPort: 4000, DstPort: 80, Flags: packet.ACK}, packettest.Packet{Src: podA6, Dst: podB6, Proto: packet.TCP, SrcPort: 4000, DstPort: 8080, Flags: packet.ACK}},
		{"UDP", packettest.Packet{Src: podA, Dst: web, SrcPort: 4000, DstPort: 80}, packettest.Packet{Src: podA, Dst: podB, SrcPort: 4000, DstPort: 8080}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newServiceBed(t, 1)
			d.run(t)
			sent, left := tt.sent, tt.left
			sent.Payload = bytes.Repeat([]byte("segment"), 8000)
			left.Payload, left.TTL = sent.Payload, 63
			d.a.Inject(0, sent.Super(1300))
			var frames [][]byte
			eventually(t, "it comes out", func() bool {
				for _, w := range d.b.Written() {
					frames = append(frames, w.Frame)
				}
				return len(frames) > 0
			})
			if diff := cmp.Diff(packettest.Split(left.Super(1300)), packettest.Split(frames[0])); diff != "" || len(frames) != 1 {
				t.Errorf("%d frames, of which the first has not the segments of the translated packet", len(frames))
			}
		})
	}
}

// TestServiceTrain: what a backend behind a peer answers is merged, and comes from the Service.
func TestServiceTrain(t *testing.T) {
	d := newServiceBed(t, 1)
	d.run(t)
	d.sends(t, packettest.Packet{Src: podA, Dst: far, Proto: packet.TCP, SrcPort: 4000, DstPort: 80, Flags: packet.SYN})
	const n, size = 8, 100
	answer := func(i int, src netip.Addr, port uint16, ttl byte) packettest.Packet {
		return packettest.Packet{
			Src: src, SrcPort: port, Dst: podA, DstPort: 4000, Proto: packet.TCP, Flags: packet.ACK, TTL: ttl,
			ID: uint16(i), Seq: uint32(1000 + i*size), Payload: bytes.Repeat([]byte{byte(i)}, size),
		}
	}
	if err := d.workers[0].call(func() error { // all of them in one batch
		for i := range n {
			d.wire.Inject(0, answer(i, farPod, 8080, 64).Frame())
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	var frames [][]byte
	eventually(t, "they come out", func() bool {
		for _, w := range d.a.Written() {
			frames = append(frames, w.Frame)
		}
		return len(frames) > 0
	})
	var want [][]byte
	for i := range n {
		want = append(want, answer(i, far, 80, 63).Frame()[packet.VnetLen:])
	}
	if diff := cmp.Diff(want, packettest.Split(frames[0])); diff != "" || len(frames) != 1 {
		t.Errorf("%d frames; segments of the first (-want +got):\n%s", len(frames), diff)
	}
}

// TestStrayOfBackend: a segment of a connection is translated whatever its window (kubernetes/kubernetes#74839), also when one
// direction of its flow was given up.
func TestStrayOfBackend(t *testing.T) {
	d := newServiceBed(t, 2)
	d.run(t)
	d.sends(t, packettest.Packet{Src: podA, Dst: web, Proto: packet.TCP, SrcPort: 4000, DstPort: 80, Flags: packet.SYN})
	for _, flags := range []byte{packet.SYN | packet.ACK, packet.ACK, packet.PSH | packet.ACK, packet.RST, 0} {
		d.b.Inject(1, packettest.Packet{Src: podB, Dst: podA, Proto: packet.TCP, SrcPort: 8080, DstPort: 4000, Seq: 0xdead0000, Flags: flags}.Frame())
		if got, want := d.comesOut(t), "a: tcp 10.96.0.20:80 -> 10.244.1.2:4000"; got != want {
			t.Errorf("flags %#x: got %s, want %s", flags, got, want)
		}
	}
	d.SetServices(service.New(serviceRanges)) // whatever becomes of the Service
	d.b.Inject(0, packettest.Packet{Src: podB, Dst: podA, Proto: packet.TCP, SrcPort: 8080, DstPort: 4000, Flags: packet.ACK}.Frame())
	if got, want := d.comesOut(t), "a: tcp 10.96.0.20:80 -> 10.244.1.2:4000"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
