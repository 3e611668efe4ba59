package packet

import (
	"encoding/binary"
	"fmt"
	"testing"

	gvisor "gvisor.dev/gvisor/pkg/tcpip/checksum"
)

func TestChecksum(t *testing.T) {
	r := seeded(t)
	ones := make([]byte, 70_000)
	for i := range ones {
		ones[i] = 0xff
	}
	check := func(b []byte, initial uint16) {
		t.Helper()
		if got, want := Checksum(b, initial), slowSum(b, initial); got != want {
			t.Fatalf("%d bytes from %#04x: got %#04x, want %#04x", len(b), initial, got, want)
		}
	}
	for n := range 300 { // every length around the strides of 8 and 64, the data at any alignment
		at := r.IntN(8)
		b := randomBytes(r, at+n)[at:]
		for _, initial := range []uint16{0, 1, 0xfffe, 0xffff, uint16(r.Uint32())} {
			check(b, initial)
			check(ones[:n], initial) // all carries
			check(make([]byte, n), initial)
		}
	}
	for range 200 {
		check(randomBytes(r, r.IntN(66_000)), uint16(r.Uint32()))
	}
	check(ones, 0xffff)
}

func TestChecksumInParts(t *testing.T) {
	r := seeded(t)
	for range 1000 {
		b := randomBytes(r, r.IntN(500))
		cut := r.IntN(len(b)/2+1) * 2
		if got, want := Checksum(b[cut:], Checksum(b[:cut], 5)), slowSum(b, 5); got != want {
			t.Fatalf("%d + %d bytes: got %#04x, want %#04x", cut, len(b)-cut, got, want)
		}
	}
}

func TestPseudoSum(t *testing.T) {
	for _, s := range []spec{tcp4(0), tcp4(1), tcp6(1400), udp4(65_507), udp6(65_527), tcp6(5).with(func(s *spec) {
		s.extFirst, s.ext = HopByHop, extensions(2, TCP)
	})} {
		s.partial = true
		b := s.build()
		p := parsed(t, b)
		at, _ := checksumOffset(p.Proto)
		if got, want := PseudoSum(b, p, p.Len-p.L4), binary.BigEndian.Uint16(b[p.L4+at:]); got != want {
			t.Errorf("%v of %d bytes: got %#04x, want %#04x", p.Flow, p.Len, got, want)
		}
	}
}

func TestTransportChecksum(t *testing.T) {
	icmp := spec{proto: ICMP, payload: append([]byte{8, 0, 0, 0}, bytesOf(9)...)}
	icmp6 := spec{v6: true, proto: ICMPv6, payload: append([]byte{128, 0, 0, 0}, bytesOf(9)...)}
	zero := func(s spec) []byte { // a UDP checksum of zero
		b := s.build()
		p := parsed(t, b)
		b[p.L4+6], b[p.L4+7] = 0, 0
		return b
	}
	flip := func(s spec) []byte {
		b := s.build()
		b[len(b)-1] ^= 1
		return b
	}
	// A datagram with five bytes of options behind it (RFC 9868), which are not in its checksum.
	surplus := func(s spec) []byte {
		b := append(s.build(), bytesOf(5)...)
		shorten(b)
		return b
	}
	partial := func(s *spec) { s.partial = true }
	for _, tt := range []struct {
		name        string
		b           []byte
		ok, partial bool
	}{
		{"TCP", tcp4(9).build(), true, false},
		{"TCP over IPv6", tcp6(9).build(), true, false},
		{"UDP", udp4(9).build(), true, false},
		{"UDP over IPv6", udp6(9).build(), true, false},
		{"UDP with options behind it", surplus(udp4(9)), true, false},
		{"UDP over IPv6 with options behind it", surplus(udp6(9)), true, false},
		{"ICMP", icmp.build(), true, false},
		{"ICMPv6", icmp6.build(), true, false},
		{"TCP behind extensions", tcp6(9).with(func(s *spec) { s.extFirst, s.ext = HopByHop, extensions(3, TCP) }).build(), true, false},
		{"wrong TCP", flip(tcp4(9)), false, false},
		{"wrong UDP over IPv6", flip(udp6(9)), false, false},
		{"wrong ICMP", flip(icmp), false, false},
		{"wrong ICMPv6", flip(icmp6), false, false},
		{"UDP over IPv4 without", zero(udp4(9)), true, false},
		{"UDP over IPv6 without", zero(udp6(9)), false, false},
		{"another protocol", spec{proto: 47, payload: bytesOf(9)}.build(), true, false},
		{"a fragment", spec{proto: UDP, frag: 1, payload: bytesOf(9)}.build(), true, false},
		{"partial TCP", tcp4(9).with(partial).build(), false, true},
		{"partial TCP over IPv6", tcp6(9).with(partial).build(), false, true},
		{"partial UDP", udp4(9).with(partial).build(), false, true},
		{"partial UDP over IPv6", udp6(9).with(partial).build(), false, true},
		{"partial UDP with options behind it", surplus(udp4(9).with(partial)), false, false},
		{"ICMPv6 with the pseudo-header's sum", icmp6.with(partial).build(), false, false},
		{"fragment with the pseudo-header's sum", udp4(8).with(partial).with(func(s *spec) { s.frag = 0x2000 }).build(), true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := parsed(t, tt.b)
			padded := append(tt.b, 0xaa, 0xbb, 0xcc) // not the packet's
			if got := TransportChecksumOK(padded, p); got != tt.ok {
				t.Errorf("TransportChecksumOK: got %v, want %v", got, tt.ok)
			}
			if got := ChecksumIsPartial(padded, p); got != tt.partial {
				t.Errorf("ChecksumIsPartial: got %v, want %v", got, tt.partial)
			}
		})
	}
}

func TestFinishChecksum(t *testing.T) {
	r := seeded(t)
	for range 2000 {
		s := random(r, r.IntN(200))
		want := s.build()
		s.partial = true
		got := s.build()
		p := parsed(t, got)
		o := PartialOffload(p)
		if reason := o.Check(got, p); reason != Kept {
			t.Fatalf("Check: got %v, want kept", reason)
		}
		FinishChecksum(got, &o)
		if string(got) != string(want) {
			t.Fatalf("got % x\nwant % x", got, want)
		}
		if o.NeedsChecksum {
			t.Fatal("the offload still asks for the checksum")
		}
		if FinishChecksum(got, &o); string(got) != string(want) {
			t.Fatal("a second time: the packet changed")
		}
	}
}

// TestFinishChecksumZero takes a datagram whose sum is zero, which would mean that it has none.
func TestFinishChecksumZero(t *testing.T) {
	s := udp4(2)
	for s.payload[0], s.payload[1] = 0, 0; ; binary.BigEndian.PutUint16(s.payload, binary.BigEndian.Uint16(s.payload)+1) {
		if b := s.build(); b[26] == 0xff && b[27] == 0xff {
			break
		}
	}
	s.partial = true
	b := s.build()
	p := parsed(t, b)
	o := PartialOffload(p)
	FinishChecksum(b, &o)
	if got := binary.BigEndian.Uint16(b[26:]); got != 0xffff {
		t.Errorf("got %#04x, want 0xffff", got)
	}
	if !TransportChecksumOK(b, p) {
		t.Error("the checksum is not right")
	}
}

func TestChecksumAllocs(t *testing.T) {
	b := tcp4(1400).with(func(s *spec) { s.partial = true }).build()
	p := parsed(t, b)
	if n := testing.AllocsPerRun(100, func() {
		ChecksumIsPartial(b, p)
		TransportChecksumOK(b, p)
		o := PartialOffload(p)
		FinishChecksum(b, &o)
	}); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}

func BenchmarkChecksum(b *testing.B) {
	for _, size := range []int{20, 64, 1400, 65536} {
		data := bytesOf(size)
		for _, impl := range []struct {
			name string
			sum  func([]byte, uint16) uint16
		}{{"ours", Checksum}, {"gvisor", gvisor.Checksum}} {
			b.Run(fmt.Sprintf("%d/%s", size, impl.name), func(b *testing.B) {
				b.SetBytes(int64(size))
				b.ReportAllocs()
				var sum uint16
				for b.Loop() {
					sum = impl.sum(data, sum)
				}
			})
		}
	}
}
