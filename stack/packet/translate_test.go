package packet

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// moved is s with other addresses and ports.
func (s spec) moved(src, dst string, sport, dport uint16) spec {
	s.src, s.dst, s.sport, s.dport = src, dst, sport, dport
	if s.proto == ICMP || s.proto == ICMPv6 {
		s.payload = bytes.Clone(s.payload)
		binary.BigEndian.PutUint16(s.payload[4:], sport)
		s.payload[2], s.payload[3] = 0, 0
	}
	return s
}

// flowOf returns the flow of a packet.
func (s spec) flowOf(t testing.TB) Flow { return parsed(t, s.build()).Flow }

func echo4(n int) spec {
	return spec{proto: ICMP, payload: append([]byte{8, 0, 0, 0, 0x34, 0x12, 0, 1}, bytesOf(n)...)}
}

func echo6(n int) spec {
	return spec{v6: true, proto: ICMPv6, payload: append([]byte{128, 0, 0, 0, 0x34, 0x12, 0, 1}, bytesOf(n)...)}
}

const (
	other4, third4 = "10.244.1.0", "203.0.113.9"
	other6, third6 = "fd00:10:244:1::", "2001:db8::9"
)

// TestTranslate: the translated packet is, bit for bit, the one that would be built of the new addresses and ports.
func TestTranslate(t *testing.T) {
	hop := func(s *spec) { s.extFirst, s.ext = HopByHop, extensions(2, s.proto) }
	for _, tt := range []struct {
		name string
		from spec
	}{
		{"TCP", tcp4(5)},
		{"TCP with options of both kinds", tcp4(5).with(func(s *spec) { s.options, s.ipOptions = bytesOf(12), make([]byte, 8) })},
		{"TCP over IPv6", tcp6(5)},
		{"TCP behind extension headers", tcp6(5).with(hop)},
		{"UDP", udp4(5)},
		{"UDP over IPv6", udp6(4)},
		{"UDP without payload", udp4(0)},
		{"ICMP echo", echo4(5)},
		{"ICMPv6 echo", echo6(5)},
		{"open checksum", tcp4(500).with(func(s *spec) { s.partial = true })},
		{"open checksum of UDP over IPv6", udp6(500).with(func(s *spec) { s.partial = true })},
		{"no ports", spec{proto: 50, payload: bytesOf(40)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			to := tt.from.moved(other4, third4, 5000, 81)
			if tt.from.v6 {
				to = tt.from.moved(other6, third6, 5000, 81)
			}
			b := tt.from.build()
			p := parsed(t, b)
			var o Offload
			if tt.from.partial {
				o = PartialOffload(p)
			}
			want := *parsed(t, to.build())
			if reason := Translate(b, p, &o, &want.Flow); reason != Kept {
				t.Fatal(reason)
			}
			if diff := cmp.Diff(to.build(), b); diff != "" {
				t.Errorf("translated (-want +got):\n%s", diff)
			}
			if *p != want {
				t.Errorf("headers: got %+v, want %+v", *p, want)
			}
		})
	}
}

// TestTranslateRandom does so with anything, there and back.
func TestTranslateRandom(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	for range 20_000 {
		from := random(r, r.IntN(200))
		from.partial = r.IntN(3) == 0
		var a [2][16]byte
		for i := range a {
			copy(a[i][:], randomBytes(r, 16))
			a[i][0] |= 0x20 // not IPv4-mapped
		}
		src, dst := netip.AddrFrom16(a[0]).String(), netip.AddrFrom16(a[1]).String()
		if !from.v6 {
			src, dst = netip.AddrFrom4([4]byte(a[0][:4])).String(), netip.AddrFrom4([4]byte(a[1][:4])).String()
		}
		to := from.moved(src, dst, uint16(r.Uint32()), uint16(r.Uint32()))
		b := from.build()
		p := parsed(t, b)
		var o Offload
		if from.partial {
			o = PartialOffload(p)
		}
		back, there := p.Flow, to.flowOf(t)
		if reason := Translate(b, p, &o, &there); reason != Kept || !bytes.Equal(b, to.build()) {
			t.Fatalf("seed %d: %v: %+v to %+v:\ngot  %x\nwant %x", seed, reason, from, to, b, to.build())
		}
		if reason := Translate(b, p, &o, &back); reason != Kept || !bytes.Equal(b, from.build()) {
			t.Fatalf("seed %d: back: %v: %+v:\ngot  %x\nwant %x", seed, reason, from, b, from.build())
		}
	}
}

// TestTranslateSuper: the segments of a translated super-packet are those of a super-packet of the new flow.
func TestTranslateSuper(t *testing.T) {
	for _, from := range []spec{tcp4(4000), tcp6(4000), udp4(4000), udp6(4000)} {
		to := from.moved(other4, third4, 5000, 81)
		if from.v6 {
			to = from.moved(other6, third6, 5000, 81)
		}
		b, p, o := from.super(t, 1000)
		want := to.flowOf(t)
		if reason := Translate(b, p, &o, &want); reason != Kept {
			t.Fatal(reason)
		}
		for _, partial := range []bool{false, true} {
			to.partial = partial
			equalSegments(t, walk(t, b, p, o, partial), to.segments(1000))
		}
	}
}

// TestTranslateTrain: headers edited between the last packet of a train and its end are those of the super-packet.
func TestTranslateTrain(t *testing.T) {
	for _, whole := range []spec{tcp4(3000), udp6(3000)} {
		to := whole.moved(other4, third4, 5000, 81)
		if whole.v6 {
			to = whole.moved(other6, third6, 5000, 81)
		}
		for _, count := range []int{1, 3} {
			var train Train
			for i, b := range whole.segments(1000)[:count] {
				frame := framed(b)
				if p := parsed(t, b); i == 0 {
					train.Start(frame, p, Offload{})
				} else if !train.Append(frame[VnetLen:], p, Offload{}) {
					t.Fatalf("packet %d does not join", i)
				}
			}
			b, p := train.First()
			want := to.flowOf(t)
			if reason := Translate(b, p, train.Offload(), &want); reason != Kept {
				t.Fatal(reason)
			}
			frame, more := train.Finish()
			got := bytes.Join(append([][]byte{frame[VnetLen:]}, more...), nil)
			o, err := DecodeOffload(frame)
			if err != nil {
				t.Fatal(err)
			}
			if count == 1 {
				if !bytes.Equal(got, to.segments(1000)[0]) {
					t.Errorf("a train of one: got %x", got)
				}
				continue
			}
			equalSegments(t, walk(t, got, parsed(t, got), o, false), to.segments(1000)[:count])
		}
	}
}

func TestTranslateNoChecksum(t *testing.T) {
	b := udp4(9).build()
	b[26], b[27] = 0, 0
	to := udp4(9).moved(other4, third4, 1, 2).flowOf(t)
	if reason := Translate(b, parsed(t, b), &Offload{}, &to); reason != Kept || b[26] != 0 || b[27] != 0 {
		t.Errorf("%v: a datagram without a checksum got %x", reason, b[26:28])
	}
}

// A UDP checksum that comes to zero is written as its other form.
func TestTranslateZeroSum(t *testing.T) {
	found := false
	for port := range uint16(65535) {
		s := udp4(2).moved(other4, third4, port+1, 53)
		want := s.build()
		if found = binary.BigEndian.Uint16(want[26:]) == 0xffff; !found {
			continue
		}
		b, to := udp4(2).build(), s.flowOf(t)
		if reason := Translate(b, parsed(t, b), &Offload{}, &to); reason != Kept || !bytes.Equal(b, want) {
			t.Errorf("%v: got %x, want %x", reason, b, want)
		}
		break
	}
	if !found {
		t.Error("no port makes the sum zero")
	}
}

// TestTranslatePieces: translated fragments are those of the translated packet. The first has the checksum, the others follow
// its flow.
func TestTranslatePieces(t *testing.T) {
	for name, s := range map[string]spec{"udp": udp4(4000), "tcp": tcp4(4000)} {
		s.frag = 0
		moved := s.moved(other4, third4, 5000, 81)
		to, from := moved.flowOf(t), s.flowOf(t)
		want := fragments(t, moved.build(), 1400)
		for i, b := range fragments(t, s.build(), 1400) {
			p := parsed(t, b)
			if i > 0 {
				p.Follow(from, true)
			}
			if reason := Translate(b, p, &Offload{}, &to); reason != Kept || p.Flow != to {
				t.Errorf("%s, piece %d: %v, flow %v", name, i, reason, p.Flow)
			}
			if !bytes.Equal(b, want[i]) {
				t.Errorf("%s, piece %d:\ngot  % x\nwant % x", name, i, b[:40], want[i][:40])
			}
		}
	}
}

func TestTranslateRefuses(t *testing.T) {
	sctp := spec{proto: SCTP, payload: wire(t, "0fa0 0050 0000 0000 0000 0000")}
	wrong := spec{proto: SCTP, payload: wire(t, "0fa0 0050 0000 0000 0000 0001")}
	piece := spec{proto: SCTP, frag: 0x2000, payload: wire(t, "0fa0 0050 0000 0000 0000 0000 0000 0000")}
	odd := tcp4(40)
	weird := PartialOffload(parsed(t, odd.build()))
	weird.ChecksumOffset = 6
	for _, tt := range []struct {
		name string
		from spec
		o    Offload
		to   Flow
		want DropReason
	}{
		{"SCTP whose checksum is wrong with another port", wrong, Offload{}, NewFlow(SCTP, netip.MustParseAddrPort("10.244.1.0:1"), netip.MustParseAddrPort("10.244.2.3:80")), DropChecksum},
		{"a piece of SCTP with another port", piece, Offload{}, NewFlow(SCTP, netip.MustParseAddrPort("10.244.1.0:1"), netip.MustParseAddrPort("10.244.2.3:80")), DropTranslate},
		{"SCTP with its port", sctp, Offload{}, NewFlow(SCTP, netip.MustParseAddrPort("10.244.1.0:4000"), netip.MustParseAddrPort("10.244.2.3:80")), Kept},
		{"an open checksum elsewhere", odd, weird, odd.moved(other4, third4, 1, 2).flowOf(t), DropOffload},
		{"an open checksum of a protocol without", spec{proto: 50, payload: bytesOf(40)}, Offload{NeedsChecksum: true, ChecksumStart: 20}, spec{proto: 50, payload: bytesOf(40), src: other4}.flowOf(t), DropOffload},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := tt.from.build()
			before := bytes.Clone(b)
			if got := Translate(b, parsed(t, b), &tt.o, &tt.to); got != tt.want {
				t.Fatalf("got %v, want %v", got, tt.want)
			}
			if tt.want != Kept && !bytes.Equal(b, before) {
				t.Error("was changed")
			}
		})
	}
}

// TestTranslateSCTP: with new ports an INIT (RFC 9260, section 3.3.2) gets the checksum that its new sender would have given it.
func TestTranslateSCTP(t *testing.T) {
	for _, tt := range []struct{ name, from, want string }{
		{"ports", "0fa0 0050 00000000 SUM 0100 0014 00000001 0001f400 000a ffff 00000001", "1388 0051 00000000 SUM 0100 0014 00000001 0001f400 000a ffff 00000001"},
		{"odd length", "0fa0 0050 00000007 SUM 0003 0005 01", "1388 0051 00000007 SUM 0003 0005 01"},
		{"no checksum (RFC 9653)", "0fa0 0050 00000007 00000000 0e00 0004", "1388 0051 00000007 00000000 0e00 0004"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, six := range []bool{false, true} {
				b, want := sctpPacket(t, tt.from, six, false), sctpPacket(t, tt.want, six, true)
				p, to := parsed(t, b), parsed(t, want).Flow
				if r := Translate(b, p, &Offload{}, &to); r != Kept || p.Flow != to {
					t.Fatalf("%v, flow %v", r, p.Flow)
				}
				if !bytes.Equal(b, want) {
					t.Errorf("got  % x\nwant % x", b, want)
				}
			}
		})
	}
}

// sctpPacket returns an SCTP packet of the given bytes, SUM standing for its checksum, from one pair of addresses or another.
func sctpPacket(t *testing.T, l4 string, six, other bool) []byte {
	t.Helper()
	at := strings.Index(l4, "SUM")
	payload := wire(t, strings.Replace(l4, "SUM", "00000000", 1))
	if at >= 0 {
		binary.LittleEndian.PutUint32(payload[8:], crc32.Checksum(payload, crc32.MakeTable(crc32.Castagnoli)))
	}
	s := spec{proto: SCTP, payload: payload, v6: six}
	switch {
	case other && six:
		s.src, s.dst = other6, third6
	case other:
		s.src, s.dst = other4, third4
	}
	return s.build()
}

func TestTranslateAllocs(t *testing.T) {
	b, p, o := tcp4(1000).super(t, 500)
	to, back := tcp4(1000).moved(other4, third4, 5000, 81).flowOf(t), p.Flow
	if n := testing.AllocsPerRun(100, func() {
		Translate(b, p, &o, &to)
		Translate(b, p, &o, &back)
	}); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}

// FuzzTranslate: whatever parses can be translated there and back, and stays what it was; what is not kept is not touched.
func FuzzTranslate(f *testing.F) {
	for _, s := range []spec{tcp4(5), tcp6(5), udp4(5), udp6(5), echo4(3), echo6(3), {proto: SCTP, payload: bytesOf(12)}, {proto: UDP, frag: 0x2000, payload: bytesOf(8)}} {
		f.Add(s.build(), []byte{10, 244, 1, 0}, uint16(5000))
	}
	f.Fuzz(func(t *testing.T, b, source []byte, port uint16) {
		var p Parsed
		if Parse(b, &p) != Kept {
			return
		}
		b = b[:p.Len]
		addr, ok := netip.AddrFromSlice(source)
		if !ok || addr.Is4() != (p.Version == 4) || addr.Is4In6() {
			return
		}
		if !p.Flow.HasPorts() || !p.HasFlow {
			port = p.Flow.SrcPort()
		}
		before, was := bytes.Clone(b), p
		right := TransportChecksumOK(b, &p)
		to := p.Flow.WithSource(KeyOf(addr), port)
		if Translate(b, &p, &Offload{}, &to) != Kept {
			if !bytes.Equal(b, before) || p != was {
				t.Fatal("not kept, but changed")
			}
			return
		}
		var again Parsed
		if reason := Parse(b, &again); reason != Kept || again != p {
			t.Fatalf("%v: parses as %+v, want %+v", reason, again, p)
		}
		if TransportChecksumOK(b, &p) != right {
			t.Fatalf("checksum right before: %v; translated: %v", right, !right)
		}
		if Translate(b, &p, &Offload{}, &was.Flow) != Kept || p != was {
			t.Fatalf("back: got %+v, want %+v", p, was)
		}
	})
}
