package packet

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestParseWire reads packets as they lie on the wire, written by hand, so that Parse does not only agree with our builder.
func TestParseWire(t *testing.T) {
	for _, tt := range []struct {
		name, hex, flow string
		want            Parsed
	}{
		{
			"TCP SYN over IPv4, as sent by Linux",
			`4500 003c 1c46 4000 4006 0677 0af4 0102 0af4 0203
			 d8f2 0050 2a3f 91c4 0000 0000 a002 faf0 0000 0000 0204 05b4 0402 080a 0001 0203 0000 0000 0103 0307`,
			"tcp 10.244.1.2:55538 -> 10.244.2.3:80",
			Parsed{Version: 4, Proto: TCP, TTL: 64, Flags: SYN, HasFlow: true, L4: 20, Payload: 60, Len: 60},
		},
		{
			"DNS query over IPv6",
			`6000 0000 000d 1140 fd00 0010 0244 0001 0000 0000 0000 0002 fd00 0010 0096 0000 0000 0000 0000 000a
			 8235 0035 000d 0000 0001 0203 04`,
			"udp [fd00:10:244:1::2]:33333 -> [fd00:10:96::a]:53",
			Parsed{Version: 6, Proto: UDP, TTL: 64, HasFlow: true, L4: 40, Payload: 48, Len: 53},
		},
		{
			"ICMP echo request",
			`4500 001c 0001 0000 4001 61e8 0af4 0102 0af4 0203 0800 c3fe 3400 0001`,
			"icmp 10.244.1.2:13312 -> 10.244.2.3:13312",
			Parsed{Version: 4, Proto: ICMP, TTL: 64, HasFlow: true, L4: 20, Len: 28},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := wire(t, tt.hex)
			if b[0]>>4 == 4 { // the rows are about everything else
				binary.BigEndian.PutUint16(b[10:], 0)
				binary.BigEndian.PutUint16(b[10:], ^slowSum(b[:20], 0))
			}
			got := *parsed(t, b)
			if got.Flow.String() != tt.flow {
				t.Errorf("flow: got %v, want %v", got.Flow, tt.flow)
			}
			tt.want.Flow = got.Flow
			if got != tt.want {
				t.Errorf("got %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

func TestParseKeeps(t *testing.T) {
	echo := func(kind byte) []byte { return []byte{kind, 0, 0, 0, 0x34, 0x12, 0, 1} }
	for _, tt := range []struct {
		name     string
		s        spec
		l4       int
		payload  int
		fragment bool
		flow     string // "" where there is none
	}{
		{"TCP", tcp4(5), 20, 40, false, "tcp 10.244.1.2:4000 -> 10.244.2.3:80"},
		{"TCP with options", tcp4(5).with(func(s *spec) { s.options = make([]byte, 40) }), 20, 80, false, "tcp 10.244.1.2:4000 -> 10.244.2.3:80"},
		{"TCP behind IPv4 options", tcp4(5).with(func(s *spec) { s.ipOptions = make([]byte, 40) }), 60, 80, false, "tcp 10.244.1.2:4000 -> 10.244.2.3:80"},
		{"TCP behind an option that cannot be read", tcp4(5).with(func(s *spec) { s.ipOptions = []byte{1, 7, 40, 131} }), 24, 44, false, "tcp 10.244.1.2:4000 -> 10.244.2.3:80"},
		{"TCP without payload", tcp4(0), 20, 40, false, "tcp 10.244.1.2:4000 -> 10.244.2.3:80"},
		{"TCP over IPv6", tcp6(5), 40, 60, false, "tcp [fd00:10:244:1::2]:4000 -> [fd00:10:244:2::3]:80"},
		{"UDP", udp4(5), 20, 28, false, "udp 10.244.1.2:4000 -> 10.244.2.3:53"},
		{"UDP without payload", udp4(0), 20, 28, false, "udp 10.244.1.2:4000 -> 10.244.2.3:53"},
		{"UDP over IPv6", udp6(5), 40, 48, false, "udp [fd00:10:244:1::2]:4000 -> [fd00:10:244:2::3]:53"},
		{"SCTP", spec{proto: SCTP, payload: wire(t, "0fa0 0050 0000 0000 0000 0000")}, 20, 0, false, "sctp 10.244.1.2:4000 -> 10.244.2.3:80"},
		{"ICMP echo request", spec{proto: ICMP, payload: echo(8)}, 20, 0, false, "icmp 10.244.1.2:13330 -> 10.244.2.3:13330"},
		{"ICMP echo reply", spec{proto: ICMP, payload: echo(0)}, 20, 0, false, "icmp 10.244.1.2:13330 -> 10.244.2.3:13330"},
		{"ICMP unreachable", spec{proto: ICMP, payload: echo(3)}, 20, 0, false, ""},
		{"ICMP with the number of an ICMPv6 echo", spec{proto: ICMP, payload: echo(128)}, 20, 0, false, ""},
		{"ICMPv6 echo request", spec{v6: true, proto: ICMPv6, payload: echo(128)}, 40, 0, false, "icmpv6 [fd00:10:244:1::2]:13330 -> [fd00:10:244:2::3]:13330"},
		{"ICMPv6 echo reply", spec{v6: true, proto: ICMPv6, payload: echo(129)}, 40, 0, false, "icmpv6 [fd00:10:244:1::2]:13330 -> [fd00:10:244:2::3]:13330"},
		{"ICMPv6 packet too big", spec{v6: true, proto: ICMPv6, payload: echo(2)}, 40, 0, false, ""},
		{"ICMPv6 with the number of an ICMP echo", spec{v6: true, proto: ICMPv6, payload: echo(8)}, 40, 0, false, ""},
		{"a protocol without ports", spec{proto: 47, payload: bytesOf(9)}, 20, 0, false, "47 10.244.1.2:0 -> 10.244.2.3:0"},
		{"IPv6 no next header", spec{v6: true, proto: 59}, 40, 0, false, "59 [fd00:10:244:1::2]:0 -> [fd00:10:244:2::3]:0"},
		{"IPv4 first fragment", udp4(8).with(func(s *spec) { s.frag = 0x2000 }), 20, 0, true, "udp 10.244.1.2:4000 -> 10.244.2.3:53"},
		{"IPv4 first fragment of an echo", spec{proto: ICMP, frag: 0x2000, payload: echo(8)}, 20, 0, true, "icmp 10.244.1.2:13330 -> 10.244.2.3:13330"},
		{"IPv4 first fragment, TCP options in the next", tcp4(4).with(func(s *spec) { s.frag, s.options = 0x2000, make([]byte, 40) }).cut(24), 20, 0, true, "tcp 10.244.1.2:4000 -> 10.244.2.3:80"},
		{"IPv4 later fragment", spec{proto: 47, frag: 0x2001, payload: bytesOf(8)}, 20, 0, true, ""},
		{"IPv4 last fragment", spec{proto: 47, frag: 0x1ffc, payload: bytesOf(11)}, 20, 0, true, ""},
		{"IPv4 reserved flag is no fragment", udp4(8).with(func(s *spec) { s.frag = 0x8000 }), 20, 28, false, "udp 10.244.1.2:4000 -> 10.244.2.3:53"},
		{"hop-by-hop and destination options", udp6(5).with(func(s *spec) { s.extFirst, s.ext = HopByHop, extensions(2, UDP) }), 64, 72, false, "udp [fd00:10:244:1::2]:4000 -> [fd00:10:244:2::3]:53"},
		{"as many extension headers as are taken", udp6(5).with(func(s *spec) { s.extFirst, s.ext = HopByHop, extensions(maxExtensions, UDP) }), 136, 144, false, "udp [fd00:10:244:1::2]:4000 -> [fd00:10:244:2::3]:53"},
		{"routing header", tcp6(5).with(func(s *spec) { s.extFirst, s.ext = Routing, extension(TCP, 2) }), 64, 84, false, "tcp [fd00:10:244:1::2]:4000 -> [fd00:10:244:2::3]:80"},
		{"authentication header", tcp6(5).with(func(s *spec) { s.extFirst, s.ext = AH, append([]byte{byte(TCP), 4}, make([]byte, 22)...) }), 64, 84, false, "tcp [fd00:10:244:1::2]:4000 -> [fd00:10:244:2::3]:80"},
		{"IPv6 first fragment", udp6(8).with(func(s *spec) { s.extFirst, s.ext = FragmentHdr, fragmentHeader(UDP, 1) }), 48, 0, true, "udp [fd00:10:244:1::2]:4000 -> [fd00:10:244:2::3]:53"},
		{"IPv6 first fragment with options", udp6(8).with(func(s *spec) {
			s.extFirst, s.ext = FragmentHdr, append(fragmentHeader(DestOptions, 1), extension(UDP, 1)...)
		}), 64, 0, true, "udp [fd00:10:244:1::2]:4000 -> [fd00:10:244:2::3]:53"},
		{"IPv6 later fragment", spec{v6: true, proto: UDP, extFirst: FragmentHdr, ext: fragmentHeader(UDP, 8|1)}, 48, 0, true, ""},
		{"IPv6 atomic fragment", udp6(8).with(func(s *spec) { s.extFirst, s.ext = FragmentHdr, fragmentHeader(UDP, 0) }), 48, 0, true, "udp [fd00:10:244:1::2]:4000 -> [fd00:10:244:2::3]:53"},
		{"IPv6 fragment behind options", tcp6(4).with(func(s *spec) {
			s.extFirst, s.ext = HopByHop, append(extension(FragmentHdr, 1), fragmentHeader(TCP, 1)...)
		}), 64, 0, true, "tcp [fd00:10:244:1::2]:4000 -> [fd00:10:244:2::3]:80"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := tt.s.build()
			p := parsed(t, append(b, 1, 2, 3)) // padding is not the packet's
			got := []any{p.L4, p.Payload, p.Len, p.Fragment, p.HasFlow, p.Proto, p.TTL}
			want := []any{tt.l4, tt.payload, len(b), tt.fragment, tt.flow != "", tt.s.proto, uint8(64)}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("L4, payload, length, fragment, has flow, protocol, TTL (-want +got):\n%s", diff)
			}
			if got := p.Flow.String(); tt.flow != "" && got != tt.flow {
				t.Errorf("flow: got %s, want %s", got, tt.flow)
			}
			if !p.HasFlow && (p.Flow.SrcPort() != 0 || p.Flow.DstPort() != 0) {
				t.Errorf("flow %v: got ports where there is no flow", p.Flow)
			}
			src, dst := tt.s.addrs()
			if p.Flow.Src().String() != addrString(src) || p.Flow.Dst().String() != addrString(dst) {
				t.Errorf("addresses: got %v", p.Flow)
			}
		})
	}
}

func addrString(b []byte) string {
	a, _ := netip.AddrFromSlice(b)
	return a.String()
}

func TestParseRefuses(t *testing.T) {
	set := func(s spec, at int, v ...byte) []byte {
		b := s.build()
		copy(b[at:], v)
		if b[0]>>4 == 4 && len(b) >= 20 {
			if head := int(b[0]&0xf) * 4; head >= 20 && head <= len(b) && at != 10 {
				binary.BigEndian.PutUint16(b[10:], 0)
				binary.BigEndian.PutUint16(b[10:], ^slowSum(b[:head], 0))
			}
		}
		return b
	}
	icmp := func(proto Proto, v6 bool) []byte {
		return spec{proto: proto, v6: v6, payload: []byte{8, 0, 0, 0, 0, 1, 0, 1}}.build()
	}
	withExt := func(first Proto, ext []byte) []byte {
		return udp6(5).with(func(s *spec) { s.extFirst, s.ext = first, ext }).build()
	}
	for _, tt := range []struct {
		name string
		b    []byte
		want DropReason
	}{
		{"nothing", nil, DropMalformed},
		{"version 0", set(tcp4(5), 0, 0x05), DropMalformed},
		{"version 5", set(tcp4(5), 0, 0x55), DropMalformed},
		{"version 15", set(tcp4(5), 0, 0xf5), DropMalformed},
		{"IPv4 header of 0 bytes", set(tcp4(5), 0, 0x40), DropMalformed},
		{"IPv4 header of 16 bytes", set(tcp4(5), 0, 0x44), DropMalformed},
		{"IPv4 header longer than the packet", set(spec{proto: 47}, 0, 0x46), DropMalformed},
		{"IPv4 total length below the header's", set(tcp4(5), 2, 0, 19), DropMalformed},
		{"IPv4 total length above the packet's", set(tcp4(5), 2, 0, 46), DropMalformed},
		{"IPv4 total length 0", set(tcp4(5), 2, 0, 0), DropMalformed},
		{"IPv4 loose source route", udp4(5).with(func(s *spec) { s.ipOptions = []byte{1, 131, 7, 4, 10, 244, 1, 9} }).build(), DropSourceRoute},
		{"IPv4 strict source route", udp4(5).with(func(s *spec) { s.ipOptions = []byte{137, 7, 4, 10, 244, 1, 9, 0} }).build(), DropSourceRoute},
		{"IPv4 source route of a fragment", spec{proto: 47, frag: 1, payload: bytesOf(8), ipOptions: []byte{131, 3, 4, 0}}.build(), DropSourceRoute},
		{"IPv4 header checksum", set(tcp4(5), 10, 0, 0), DropChecksum},
		{"IPv4 later fragment, header checksum", set(spec{proto: UDP, frag: 1}, 10, 0, 0), DropChecksum},
		{"IPv4 later fragment without a byte", spec{proto: 47, frag: 1}.build(), DropMalformed},
		{"IPv4 fragment of 9 bytes before another", spec{proto: 47, frag: 0x2001, payload: bytesOf(9)}.build(), DropMalformed},
		{"IPv4 fragment that ends beyond 65535", spec{proto: 47, frag: 0x1ffe, payload: bytesOf(8)}.build(), DropMalformed},
		{"TCP fragment over the flags", spec{proto: TCP, frag: 1}.build(), DropFragment},
		{"TCP fragment over the window", spec{proto: TCP, frag: 2}.build(), DropFragment},
		{"first fragment without TCP's flags", tcp4(0).with(func(s *spec) { s.frag = 0x2000 }).cut(8).build(), DropFragment},
		{"first fragment without SCTP's ports", spec{proto: SCTP, frag: 0x2000, payload: bytesOf(8)}.build(), DropFragment},
		{"first fragment without a transport header", withExt(FragmentHdr, fragmentHeader(UDP, 1))[:48], DropMalformed},
		{"IPv6 later fragment without a byte", spec{v6: true, proto: 47, extFirst: FragmentHdr, ext: fragmentHeader(47, 8)}.build(), DropMalformed},
		{"IPv6 fragment of 9 bytes before another", spec{v6: true, proto: 47, extFirst: FragmentHdr, ext: fragmentHeader(47, 8|1), payload: bytesOf(9)}.build(), DropMalformed},
		{"IPv6 fragment that ends beyond 65535", spec{v6: true, proto: 47, extFirst: FragmentHdr, ext: fragmentHeader(47, 0xfff8), payload: bytesOf(8)}.build(), DropMalformed},
		{"IPv6 TCP fragment over the flags", spec{v6: true, proto: TCP, extFirst: FragmentHdr, ext: fragmentHeader(TCP, 8)}.build(), DropFragment},
		{"IPv6 first fragment whose headers go on in the next", spec{v6: true, proto: 47, extFirst: FragmentHdr, ext: append(fragmentHeader(DestOptions, 1), extension(UDP, 2)[:8]...)}.build(), DropMalformed},
		{"IPv6 first fragment without TCP's flags", spec{v6: true, proto: 47, extFirst: FragmentHdr, ext: fragmentHeader(TCP, 1), payload: bytesOf(16)}.build(), DropFragment},
		{"IPv6 fragment of a fragment", withExt(FragmentHdr, append(fragmentHeader(FragmentHdr, 1), fragmentHeader(UDP, 1)...)), DropMalformed},
		{"IPv6 payload length above the packet's", set(tcp6(5), 4, 0, 26), DropMalformed},
		{"IPv6 jumbogram", set(udp6(5).with(func(s *spec) { s.extFirst, s.ext = HopByHop, extension(UDP, 0) }), 4, 0, 0), DropMalformed},
		{"IPv6 payload length 0 with TCP", set(tcp6(5), 4, 0, 0), DropMalformed},
		{"IPv6 mapped source", tcp6(5).with(func(s *spec) { s.src = "::ffff:10.244.1.2" }).build(), DropMalformed},
		{"IPv6 mapped destination", tcp6(5).with(func(s *spec) { s.dst = "::ffff:10.244.1.2" }).build(), DropMalformed},
		{"one extension header too many", withExt(HopByHop, extensions(maxExtensions+1, UDP)), DropMalformed},
		{"extension header longer than the packet", withExt(HopByHop, []byte{byte(UDP), 200, 0, 0, 0, 0, 0, 0}), DropMalformed},
		{"authentication header longer than the packet", withExt(AH, []byte{byte(UDP), 200, 0, 0, 0, 0, 0, 0}), DropMalformed},
		{"extension header cut off", set(spec{v6: true, proto: 59, payload: bytesOf(7)}, 6, byte(HopByHop)), DropMalformed},
		{"authentication header cut off", set(spec{v6: true, proto: 59, payload: bytesOf(7)}, 6, byte(AH)), DropMalformed},
		{"fragment header cut off", set(spec{v6: true, proto: 59, payload: bytesOf(7)}, 6, byte(FragmentHdr)), DropMalformed},
		{"nothing behind an extension header", spec{v6: true, proto: UDP, extFirst: HopByHop, ext: extension(UDP, 0)}.build()[:48], DropMalformed},
		{"TCP header below 20 bytes", set(tcp4(5), 20+12, 0x40), DropMalformed},
		{"TCP header above the packet", set(tcp4(5), 20+12, 0x70), DropMalformed},
		{"TCP over IPv6, header above the packet", set(tcp6(5), 40+12, 0xf0), DropMalformed},
		{"UDP length 0", set(udp4(5), 24, 0, 0), DropMalformed},
		{"UDP length 7", set(udp4(5), 24, 0, 7), DropMalformed},
		{"UDP length above the packet", set(udp4(5), 24, 0, 14), DropMalformed},
		{"SCTP of 11 bytes", spec{proto: SCTP, payload: bytesOf(11)}.build(), DropMalformed},
		{"ICMP of 7 bytes", spec{proto: ICMP, payload: bytesOf(7)}.build(), DropMalformed},
		{"ICMP over IPv6", icmp(ICMP, true), DropMalformed},
		{"ICMPv6 over IPv4", icmp(ICMPv6, false), DropMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var p Parsed
			if got := Parse(tt.b, &p); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
			if p.HasFlow {
				t.Error("a packet that is not kept has a flow")
			}
		})
	}
}

// TestParseTruncated cuts whole packets at every length: none but the whole one is kept.
func TestParseTruncated(t *testing.T) {
	for name, s := range map[string]spec{
		"tcp4": tcp4(3).with(func(s *spec) { s.options = make([]byte, 12) }),
		"udp4": udp4(3), "tcp6": tcp6(3), "udp6": udp6(3),
		"sctp":      {proto: SCTP, payload: bytesOf(12)},
		"icmp":      {proto: ICMP, payload: bytesOf(8)},
		"icmpv6":    {v6: true, proto: ICMPv6, payload: bytesOf(8)},
		"extension": udp6(3).with(func(s *spec) { s.extFirst, s.ext = HopByHop, extensions(3, UDP) }),
		"fragment":  {v6: true, proto: UDP, extFirst: FragmentHdr, ext: fragmentHeader(UDP, 0), payload: bytesOf(3)},
	} {
		b := s.build()
		for n := range len(b) {
			if got := Parse(b[:n:n], new(Parsed)); got != DropMalformed {
				t.Errorf("%s cut to %d of %d bytes: got %v, want malformed", name, n, len(b), got)
			}
			// The IP header tells the truth about what is left: only what the transport needs can be missing.
			short := append([]byte(nil), b[:n]...)
			if shorten(short) {
				p := new(Parsed)
				if Parse(short, p) == Kept && !sound(p, short) {
					t.Errorf("%s shortened to %d bytes: kept as %+v", name, n, *p)
				}
			}
		}
	}
}

// shorten makes the IP header say how long b is.
func shorten(b []byte) bool {
	switch {
	case len(b) >= 40 && b[0]>>4 == 6:
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
	case len(b) >= 20 && b[0]>>4 == 4:
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		binary.BigEndian.PutUint16(b[10:], 0)
		binary.BigEndian.PutUint16(b[10:], ^slowSum(b[:20], 0))
	default:
		return false
	}
	return true
}

// sound reports whether p may be what Parse made of b.
func sound(p *Parsed, b []byte) bool {
	if p.Len > len(b) || p.L4 > p.Len || p.L4 < 20 || p.Fragment && (p.Piece > p.L4 || p.HasFlow && p.FragmentOffset > 0) {
		return false
	}
	if !p.Fragment && (p.Proto == TCP || p.Proto == UDP) {
		return p.L4 < p.Payload && p.Payload <= p.Len
	}
	return p.Payload == 0
}

func TestRoutable(t *testing.T) {
	for addr, want := range map[string]bool{
		"10.244.1.2": true, "1.0.0.0": true, "223.255.255.255": true, "169.253.255.255": true, "169.255.0.0": true, "128.0.0.1": true,
		"0.0.0.0": false, "0.1.2.3": false, "127.0.0.1": false, "127.255.255.255": false, "169.254.0.1": false,
		"224.0.0.1": false, "239.255.255.255": false, "240.0.0.1": false, "255.255.255.255": false,
		"fd00:10:244:1::2": true, "2001:db8::1": true, "fe7f::1": true, "fec0::1": true, "::2": true, "fe00::": true,
		"::": false, "::1": false, "fe80::1": false, "febf:ffff::1": false, "ff02::1": false, "ff00::": false,
	} {
		a := netip.MustParseAddr(addr)
		for _, s := range []spec{{src: addr, v6: a.Is6(), proto: 59}, {dst: addr, v6: a.Is6(), proto: 59}} {
			if got := parsed(t, s.build()).Routable(); got != want {
				t.Errorf("%s: got %v, want %v", addr, got, want)
			}
		}
	}
}

// TestDecrementTTL compares with a header built with the lower TTL, for every TTL and for every checksum.
func TestDecrementTTL(t *testing.T) {
	check := func(s spec) {
		t.Helper()
		b := s.build()
		p := parsed(t, b)
		if !DecrementTTL(b, p) {
			t.Fatalf("TTL %d: refused", s.ttl)
		}
		s.ttl--
		if want := s.build(); string(b) != string(want) {
			t.Fatalf("TTL %d, id %d: got % x, want % x", s.ttl+1, s.id, b, want)
		}
		if p.TTL != s.ttl {
			t.Fatalf("TTL: got %d, want %d", p.TTL, s.ttl)
		}
	}
	for ttl := 2; ttl < 256; ttl++ {
		check(spec{proto: 59, ttl: byte(ttl)})
		check(spec{proto: 59, ttl: byte(ttl), v6: true})
	}
	for id := range 1 << 16 { // takes the checksum through all its values
		check(spec{proto: 59, ttl: 64, id: uint16(id)})
	}
	for _, v6 := range []bool{false, true} {
		b := spec{proto: 59, ttl: 1, v6: v6}.build()
		want := string(b)
		if p := parsed(t, b); DecrementTTL(b, p) || p.TTL != 1 || string(b) != want {
			t.Errorf("TTL 1: taken")
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []spec{
		tcp4(5), tcp6(5), udp4(5), udp6(5),
		tcp4(0).with(func(s *spec) { s.options, s.flags = make([]byte, 20), SYN }),
		{proto: ICMP, payload: []byte{8, 0, 0, 0, 1, 2, 0, 1}},
		{proto: ICMPv6, v6: true, payload: []byte{128, 0, 0, 0, 1, 2, 0, 1}},
		{proto: SCTP, payload: bytesOf(12)},
		{proto: UDP, frag: 0x2000, payload: bytesOf(8)},
		{proto: 47, frag: 0x1001, payload: bytesOf(8)},
		udp6(5).with(func(s *spec) { s.extFirst, s.ext = HopByHop, extensions(3, UDP) }),
		udp6(5).with(func(s *spec) { s.extFirst, s.ext = FragmentHdr, fragmentHeader(UDP, 0) }),
		tcp6(5).with(func(s *spec) { s.extFirst, s.ext = AH, append([]byte{byte(TCP), 4}, make([]byte, 22)...) }),
	} {
		f.Add(s.build())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= 20 && b[0]>>4 == 4 { // else nearly nothing gets past the header checksum
			if head := int(b[0]&0xf) * 4; head >= 20 && head <= len(b) && b[10] == 0 {
				binary.BigEndian.PutUint16(b[10:], 0)
				binary.BigEndian.PutUint16(b[10:], ^slowSum(b[:head], 0))
			}
		}
		before := string(b)
		var p, again Parsed
		reason := Parse(b, &p)
		if string(b) != before {
			t.Fatal("Parse wrote")
		}
		if reason != Kept {
			if p.HasFlow {
				t.Fatalf("%v with a flow: %+v", reason, p)
			}
			return
		}
		if !sound(&p, b) {
			t.Fatalf("got %+v of %d bytes", p, len(b))
		}
		if Parse(b[:p.Len:p.Len], &again) != Kept || again != p {
			t.Fatalf("again, without padding: got %+v, want %+v", again, p)
		}
		if p.HasFlow {
			src, dst := netip.AddrPortFrom(p.Flow.Src(), p.Flow.SrcPort()), netip.AddrPortFrom(p.Flow.Dst(), p.Flow.DstPort())
			if NewFlow(p.Proto, src, dst) != p.Flow || src.Addr().Is4() != (p.Version == 4) || dst.Addr().Is4() != (p.Version == 4) {
				t.Fatalf("flow %v does not come back", p.Flow)
			}
		}
		TransportChecksumOK(b, &p)
		ChecksumIsPartial(b, &p)
		p.Routable()
		DecrementTTL(b, &p)
		if again = (Parsed{}); Parse(b, &again) != Kept || again != p {
			t.Fatalf("after DecrementTTL: got %+v, want %+v", again, p)
		}
	})
}

func TestParseAllocs(t *testing.T) {
	b := tcp6(5).with(func(s *spec) { s.extFirst, s.ext = HopByHop, extensions(2, TCP) }).build()
	var p Parsed
	if n := testing.AllocsPerRun(100, func() { Parse(b, &p) }); n != 0 {
		t.Errorf("Parse: got %v allocations, want 0", n)
	}
}

func BenchmarkParse(b *testing.B) {
	for _, bb := range []struct {
		name string
		s    spec
	}{
		{"TCP4", tcp4(1400)}, {"UDP4", udp4(1400)}, {"TCP6", tcp6(1400)},
		{"UDP6 two extensions", udp6(1400).with(func(s *spec) { s.extFirst, s.ext = HopByHop, extensions(2, UDP) })},
	} {
		b.Run(bb.name, func(b *testing.B) {
			data := bb.s.build()
			var p Parsed
			b.ReportAllocs()
			for b.Loop() {
				if Parse(data, &p) != Kept {
					b.Fatal("not kept")
				}
			}
		})
	}
}

// seeded returns a generator whose seed a failure prints.
func seeded(t testing.TB) *rand.Rand {
	seed := rand.Uint64()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 0))
}

func ExampleFlow_String() {
	fmt.Println(NewFlow(TCP, netip.MustParseAddrPort("10.244.1.2:4000"), netip.MustParseAddrPort("10.96.0.10:53")))
	// Output: tcp 10.244.1.2:4000 -> 10.96.0.10:53
}
