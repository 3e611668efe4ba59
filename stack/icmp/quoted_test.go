package icmp

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
)

// TestDecode reads back every error that Build makes.
func TestDecode(t *testing.T) {
	for _, size := range []int{0, 100, 3000} {
		for _, d := range []packettest.Packet{datagram, datagram6} {
			d.Payload = make([]byte, size)
			b := d.Frame()[packet.VnetLen:]
			of := parse(t, b)
			for _, kind := range allKinds {
				e := build(t, Error{kind, 1400}, b)
				p := parse(t, e)
				var q Quoted
				if !q.Decode(e, p) {
					t.Fatalf("kind %d about %v: not read", kind, of.Flow)
				}
				mtu := map[bool]int{true: 1400}[kind == TooBig]
				if q.Flow != of.Flow || !q.HasFlow || q.MTU != mtu || q.L4 != of.L4 || q.At+q.Len != len(e) {
					t.Errorf("kind %d: got %+v, want MTU %d and flow %v", kind, q, mtu, of.Flow)
				}
				if m := messages[kind]; p.Version == 4 && (q.Type != m.type4 || q.Code != m.code4) || p.Version == 6 && (q.Type != m.type6 || q.Code != m.code6) {
					t.Errorf("kind %d: got %d/%d", kind, q.Type, q.Code)
				}
			}
		}
	}
}

// message sets bytes of an ICMP message and puts its checksum right.
func message(t testing.TB, b []byte, at int, v ...byte) []byte {
	t.Helper()
	b = bytes.Clone(b)
	p := parse(t, b)
	copy(b[p.L4+at:], v)
	seg := b[p.L4:]
	binary.BigEndian.PutUint16(seg[2:], 0)
	sum := uint16(0)
	if p.Version == 6 {
		sum = packet.PseudoSum(b, p, len(seg))
	}
	binary.BigEndian.PutUint16(seg[2:], ^packet.Checksum(seg, sum))
	return b
}

func TestDecodeRefuses(t *testing.T) {
	ip, ip6 := datagram.Frame()[packet.VnetLen:], datagram6.Frame()[packet.VnetLen:]
	good, good6 := build(t, Error{Kind: PortUnreachable}, ip), build(t, Error{Kind: PortUnreachable}, ip6)
	foreign := datagram
	foreign.Src = podB
	cut := func(b []byte, n int) []byte { // n bytes of message
		b = bytes.Clone(b)
		head := parse(t, b).L4
		b = b[:head+n]
		if b[0]>>4 == 4 {
			binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
			return message(t, resum(b), 0)
		}
		binary.BigEndian.PutUint16(b[4:], uint16(n))
		return message(t, b, 0)
	}
	flip := func(b []byte) []byte { b = bytes.Clone(b); b[len(b)-1] ^= 1; return b }
	to := bytes.Clone(good)
	copy(to[16:], podB.AsSlice())
	for _, tt := range []struct {
		name string
		b    []byte
		want bool
	}{
		{"as it is", good, true},
		{"as it is, IPv6", good6, true},
		{"a datagram", ip, false},
		{"echo request", message(t, good, 0, 8), false},
		{"ICMPv6 echo request", message(t, good6, 0, 128), false},
		{"a type that nobody knows", message(t, good, 0, 200), false},
		{"redirect", message(t, good, 0, 5, 1), true},
		{"wrong checksum", flip(good), false},
		{"wrong checksum, IPv6", flip(good6), false},
		{"nothing quoted", cut(good, 8), false},
		{"half an IP header", cut(good, 8+19), false},
		{"an IP header", cut(good, 8+20), true},
		{"half an IPv6 header", cut(good6, 8+39), false},
		{"an IPv6 header", cut(good6, 8+40), true},
		{"extensions behind a short quote (RFC 4884)", message(t, good, 5, 4), false},
		{"extensions behind 28 bytes", message(t, good, 5, 7), true},
		{"IPv6 quoted over IPv4", message(t, good, 8, 6<<4), false},
		{"about a packet of somebody else", resum(to), false},
	} {
		var q Quoted
		if got := q.Decode(tt.b, parse(t, tt.b)); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
	var q Quoted
	if short := message(t, good, 5, 7); !q.Decode(short, parse(t, short)) || q.Len != 28 || !q.HasFlow {
		t.Errorf("28 bytes quoted: got %+v", q)
	}
}

// FuzzDecode: whatever comes, what is told of a quote lies within it.
func FuzzDecode(f *testing.F) {
	ip, ip6 := datagram.Frame()[packet.VnetLen:], datagram6.Frame()[packet.VnetLen:]
	f.Add(build(f, Error{TooBig, 1400}, ip)[20:], false)              // fragmentation needed
	f.Add(build(f, Error{TooBig, 1400}, ip6)[40:], true)              // packet too big
	f.Add(build(f, Error{Kind: TimeExceeded}, ip)[20:], false)        // time exceeded
	f.Add(build(f, Error{Kind: ProtocolUnreachable}, ip6)[40:], true) // parameter problem
	f.Fuzz(func(t *testing.T, seg []byte, v6 bool) {
		seg = append(seg[:min(len(seg), 1200):min(len(seg), 1200)], make([]byte, 8)...)
		b := errorPacket(seg, v6)
		p := new(packet.Parsed)
		if packet.Parse(b, p) != packet.Kept {
			t.Fatal("not a packet")
		}
		b = message(t, b, 0)
		var q Quoted
		if !q.Decode(b, p) {
			if q.HasFlow && q.At == 0 {
				t.Fatal("a flow of nothing")
			}
			return
		}
		if q.At+q.Len > len(b) || q.L4 > q.Len || q.Version != p.Version || q.Flow.Src() != p.Flow.Dst() {
			t.Fatalf("got %+v of %d bytes", q, len(b))
		}
	})
}

// errorPacket puts the header of a packet from the gateway to a pod in front of an ICMP message.
func errorPacket(seg []byte, v6 bool) []byte {
	if v6 {
		b := make([]byte, 40, 40+len(seg))
		b[0], b[6], b[7] = 6<<4, byte(packet.ICMPv6), 64
		binary.BigEndian.PutUint16(b[4:], uint16(len(seg)))
		copy(b[8:], gateway6.AsSlice())
		copy(b[24:], podA6.AsSlice())
		return append(b, seg...)
	}
	b := make([]byte, 20, 20+len(seg))
	b[0], b[8], b[9] = 4<<4|5, 64, byte(packet.ICMP)
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(seg)))
	copy(b[12:], gateway.AsSlice())
	copy(b[16:], podA.AsSlice())
	return append(resum(b), seg...)
}
