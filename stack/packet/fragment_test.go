package packet

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fragments returns packet b cut for a way of mtu bytes, and fails the test if a fragment is larger or no packet.
func fragments(t testing.TB, b []byte, mtu int) (all [][]byte) {
	t.Helper()
	f, ok := Fragment(b, parsed(t, b), mtu)
	if !ok {
		t.Fatalf("Fragment: refused for %d bytes", mtu)
	}
	for f.Left() {
		one := make([]byte, MaxFragmentHeader)
		head, payload := f.Next(one)
		one = append(one[:head], payload...)
		if len(one) > mtu {
			t.Fatalf("fragment %d has %d bytes of at most %d", len(all), len(one), mtu)
		}
		parsed(t, one)
		all = append(all, one)
	}
	return all
}

// reassemble is RFC 791's procedure with one bit a byte. It returns the payload behind the header of the first fragment.
func reassemble(t testing.TB, all [][]byte) []byte {
	t.Helper()
	var got, have []byte
	total := -1
	for _, b := range all {
		p := parsed(t, b)
		piece := b[p.Piece:p.Len]
		if !p.Fragment {
			piece = b[int(b[0]&0xf)*4 : p.Len]
		}
		end := int(p.FragmentOffset) + len(piece)
		if len(got) < end {
			got = append(got, make([]byte, end-len(got))...)
			have = append(have, make([]byte, end-len(have))...)
		}
		copy(got[p.FragmentOffset:], piece)
		for i := range piece {
			if have[int(p.FragmentOffset)+i]++; have[int(p.FragmentOffset)+i] > 1 {
				t.Fatalf("byte %d comes twice", int(p.FragmentOffset)+i)
			}
		}
		if !p.MoreFragments {
			total = end
		}
	}
	if total != len(got) || bytes.IndexByte(have, 0) >= 0 {
		t.Fatalf("got %d of %d bytes, first gap at %d", len(got), total, bytes.IndexByte(have, 0))
	}
	return got
}

func TestFragment(t *testing.T) {
	for _, tt := range []struct {
		name string
		s    spec
		mtu  int
		want []string // offset, bytes, more
	}{
		{"fits", udp4(100), 128, []string{"0 108 false"}},
		{"one byte too many", udp4(101), 128, []string{"0 104 true", "104 5 false"}},
		{"a way whose payload is no multiple of 8", udp4(2000), 1006, []string{"0 984 true", "984 984 true", "1968 40 false"}},
		{"the least", udp4(20), 28, []string{"0 8 true", "8 8 true", "16 8 true", "24 4 false"}},
		{"a fragment in the middle", spec{proto: 47, frag: 0x2000 | 10, payload: bytesOf(48)}, 52, []string{"80 32 true", "112 16 true"}},
		{"a last fragment", spec{proto: 47, frag: 10, payload: bytesOf(48)}, 52, []string{"80 32 false", "112 16 false"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := tt.s.build()
			before := bytes.Clone(b)
			all := fragments(t, b, tt.mtu)
			var got []string
			for _, f := range all {
				p := parsed(t, f)
				got = append(got, fmt.Sprint(p.FragmentOffset, p.Len-int(f[0]&0xf)*4, p.MoreFragments))
			}
			if tt.name == "a last fragment" { // what was cut off in front is not the last
				tt.want[0] = "80 32 true"
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("offset, bytes, more (-want +got):\n%s", diff)
			}
			if !bytes.Equal(b, before) {
				t.Error("Fragment wrote to the packet")
			}
		})
	}
}

// TestFragmentWire: the header of each fragment differs from the packet's where RFC 791 says so, and only options that are to
// be copied stand in a later one: here one of type 0x94, not the timestamp (0x44).
func TestFragmentWire(t *testing.T) {
	s := udp4(40)
	s.ipOptions = wire(t, "44 04 05 00  01  94 07 04 0a f4 01 09  00 00 00 00")
	s.id, s.tos = 0x1234, 0xb8
	all := fragments(t, s.build(), 68)
	want := []string{
		"49b8 0044 1234 2000", "47b8 002c 1234 0004",
	}
	for i, b := range all {
		if got := fmt.Sprintf("%x %x %x %x", b[0:2], b[2:4], b[4:6], b[6:8]); got != want[i] {
			t.Errorf("fragment %d: got %s, want %s", i, got, want[i])
		}
	}
	if got, want := all[1][20:28], wire(t, "94 07 04 0a f4 01 09 00"); !bytes.Equal(got, want) {
		t.Errorf("options of the second: got %x, want %x", got, want)
	}
	if got := reassemble(t, all); !bytes.Equal(got, s.build()[36:]) {
		t.Error("what is reassembled is not what was sent")
	}
}

func TestFragmentRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		s   spec
		mtu int
	}{
		"may not be cut":      {udp4(100).with(func(s *spec) { s.frag = dontFragment }), 68},
		"IPv6":                {udp6(2000), 1280},
		"no room for payload": {udp4(100), 27},
		"no room for options": {udp4(100).with(func(s *spec) { s.ipOptions = make([]byte, 40) }), 67},
	} {
		b := tt.s.build()
		if _, ok := Fragment(b, parsed(t, b), tt.mtu); ok {
			t.Errorf("%s: not refused", name)
		}
	}
}

// TestFragmentTwice: what two routers in a row cut is put together as if one had.
func TestFragmentTwice(t *testing.T) {
	r := seeded(t)
	for range 300 {
		s := random(r, 100+r.IntN(5000))
		s.v6, s.frag, s.ext = false, 0, nil
		if r.IntN(2) == 0 {
			s.ipOptions = wire(t, "94 04 00 00  07 04 04 00")
		}
		b := s.build()
		var all [][]byte
		for _, one := range fragments(t, b, 400+r.IntN(1200)) {
			all = append(all, fragments(t, one, 100+r.IntN(500))...)
		}
		r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		if got := reassemble(t, all); !bytes.Equal(got, b[int(b[0]&0xf)*4:]) {
			t.Fatal("what is reassembled is not what was sent")
		}
	}
}

func FuzzFragment(f *testing.F) {
	f.Add(uint16(68), uint16(0), bytesOf(100), []byte{})                        // whole
	f.Add(uint16(576), uint16(0x2001), bytesOf(800), []byte{0x94, 4, 0, 0})     // a piece, router alert
	f.Add(uint16(100), uint16(5), bytesOf(300), []byte{0x44, 4, 5, 0, 1, 1, 0}) // a last piece
	f.Add(uint16(80), uint16(0), bytesOf(90), []byte{0x94, 200, 4, 0})          // an option longer than its list
	f.Fuzz(func(t *testing.T, mtu, frag uint16, payload, options []byte) {
		options = options[:min(len(options), 40)&^3]
		b := spec{proto: 47, frag: frag &^ dontFragment, payload: payload[:min(len(payload), 60_000)], ipOptions: options}.build()
		var p Parsed
		if Parse(b, &p) != Kept {
			return
		}
		if _, ok := Fragment(b, &p, int(mtu)); !ok {
			return
		}
		all := fragments(t, b, int(mtu))
		first := parsed(t, all[0])
		if p.FragmentOffset != first.FragmentOffset || !bytes.Equal(all[0][20:len(all[0])-(first.Len-first.L4)], options) {
			t.Fatalf("the first fragment's header: % x", all[0])
		}
		if !p.Fragment {
			if got := reassemble(t, all); !bytes.Equal(got, b[p.L4:]) {
				t.Fatal("what is reassembled is not what was cut")
			}
		}
		if last := parsed(t, all[len(all)-1]); last.MoreFragments != p.MoreFragments {
			t.Fatal("the last fragment does not end as the packet did")
		}
	})
}

func TestFragmentAllocs(t *testing.T) {
	b := udp4(4000).build()
	p := parsed(t, b)
	var head [MaxFragmentHeader]byte
	if n := testing.AllocsPerRun(100, func() {
		f, _ := Fragment(b, p, 1400)
		for f.Left() {
			f.Next(head[:])
		}
	}); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}

func TestPacketID(t *testing.T) {
	id := func(s spec) PacketID { return parsed(t, s.build()).PacketID() }
	v4 := spec{proto: UDP, frag: 0x2001, id: 7, payload: bytesOf(8)}
	v6 := spec{v6: true, proto: UDP, extFirst: FragmentHdr, ext: fragmentHeader(UDP, 8|1), payload: bytesOf(8)}
	for name, tt := range map[string]struct {
		a, b spec
		same bool
	}{
		"another piece":          {v4, v4.with(func(s *spec) { s.frag = 0x1005 }), true},
		"another ID":             {v4, v4.with(func(s *spec) { s.id = 8 }), false},
		"another protocol":       {v4, v4.with(func(s *spec) { s.proto = 50 }), false},
		"another source":         {v4, v4.with(func(s *spec) { s.src = "10.244.1.9" }), false},
		"another destination":    {v4, v4.with(func(s *spec) { s.dst = "10.244.1.9" }), false},
		"IPv6, another piece":    {v6, v6.with(func(s *spec) { s.ext = fragmentHeader(UDP, 800) }), true},
		"IPv6, another protocol": {v6, v6.with(func(s *spec) { s.ext = fragmentHeader(DestOptions, 800) }), true},
	} {
		a, b := id(tt.a), id(tt.b)
		if (a == b) != tt.same || (a.Hash(1) == b.Hash(1)) != tt.same {
			t.Errorf("%s: got same %v, want %v", name, a == b, tt.same)
		}
		if a.HashSource(1) != b.HashSource(1) && name != "another source" {
			t.Errorf("%s: another hash of the same source", name)
		}
	}
}

// TestParseQuoted cuts packets as errors quote them, at every length: what it tells is what Parse tells of the whole packet.
func TestParseQuoted(t *testing.T) {
	for name, s := range map[string]spec{
		"tcp4": tcp4(30), "tcp6": tcp6(30), "udp4": udp4(30), "udp6": udp6(30),
		"options":    udp4(30).with(func(s *spec) { s.ipOptions = make([]byte, 12) }),
		"extensions": udp6(30).with(func(s *spec) { s.extFirst, s.ext = HopByHop, extensions(2, UDP) }),
		"echo":       {proto: ICMP, payload: []byte{8, 0, 0, 0, 1, 2, 0, 1, 7, 7}},
		"error":      {proto: ICMP, payload: []byte{3, 0, 0, 0, 1, 2, 0, 1, 7, 7}},
		"echo6":      {v6: true, proto: ICMPv6, payload: []byte{128, 0, 0, 0, 1, 2, 0, 1, 7, 7}},
		"first":      udp4(24).with(func(s *spec) { s.frag = 0x2000 }),
		"later":      {proto: UDP, frag: 0x2001, payload: bytesOf(24)},
		"no ports":   {proto: 47, payload: bytesOf(24)},
	} {
		whole := s.build()
		want := parsed(t, whole)
		if whole[0]>>4 == 4 {
			whole[8], whole[10] = 1, whole[10]^0x55 // a router took from the TTL and did not look at the checksum
		}
		for n := range len(whole) + 1 {
			var p Parsed
			r := ParseQuoted(whole[:n:n], &p)
			if r != Kept {
				if p.HasFlow || n >= want.L4+8 {
					t.Errorf("%s cut to %d bytes: got %v, %+v", name, n, r, p)
				}
				continue
			}
			if p.L4 != want.L4 || p.Len != n || p.Proto != want.Proto || p.Flow.Src() != want.Flow.Src() || p.Flow.Dst() != want.Flow.Dst() {
				t.Errorf("%s cut to %d bytes: got %+v, want %+v", name, n, p, want)
			}
			if n >= want.L4+8 && (p.HasFlow != want.HasFlow || p.Flow != want.Flow) || p.HasFlow && p.Flow != want.Flow {
				t.Errorf("%s cut to %d bytes: got flow %v, want %v", name, n, p.Flow, want.Flow)
			}
		}
	}
	for name, b := range map[string][]byte{
		"version 5":         append([]byte{0x55}, make([]byte, 60)...),
		"header of 4 bytes": append([]byte{0x41}, make([]byte, 60)...),
		"mapped":            tcp6(5).with(func(s *spec) { s.src = "::ffff:10.244.1.2" }).build(),
	} {
		if r := ParseQuoted(b, new(Parsed)); r != DropMalformed {
			t.Errorf("%s: got %v, want malformed", name, r)
		}
	}
}

func FuzzParseQuoted(f *testing.F) {
	f.Add(tcp4(5).build()[:28])                                                                            // RFC 792's eight bytes
	f.Add(udp6(5).with(func(s *spec) { s.extFirst, s.ext = FragmentHdr, fragmentHeader(UDP, 1) }).build()) // a first fragment
	f.Add(spec{proto: ICMP, payload: []byte{8, 0, 0, 0, 1, 2, 0, 1}}.build())                              // echo
	f.Fuzz(func(t *testing.T, b []byte) {
		var p Parsed
		if ParseQuoted(b, &p) != Kept {
			if p.HasFlow {
				t.Fatal("a flow of what cannot be read")
			}
			return
		}
		if p.Len > len(b) || p.L4 > p.Len || p.HasFlow && p.FragmentOffset > 0 || p.Payload != 0 || p.Flags != 0 {
			t.Fatalf("got %+v of %d bytes", p, len(b))
		}
		var whole Parsed
		if binary.BigEndian.Uint16(b[6:])&dontFragment == 0 && Parse(b, &whole) == Kept && whole.Flow != p.Flow {
			t.Fatalf("got %v, Parse says %v", p.Flow, whole.Flow)
		}
	})
}
