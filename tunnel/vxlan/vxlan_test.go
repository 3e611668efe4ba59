package vxlan

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
)

func wire(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var dst, src = MAC{0x0a, 0, 0, 0, 0, 2}, MAC{0x0a, 0, 0, 0, 0, 1}

// TestWire has headers byte by byte: the first is what a flannel node's kernel sends.
func TestWire(t *testing.T) {
	for _, tt := range []struct {
		name, hex string
		want      Header
	}{
		{"flannel, IPv4", "08000000 00000100 0a0000000002 0a0000000001 0800", Header{VNI: 1, Dst: dst, Src: src, Type: EtherTypeIPv4}},
		{"the largest VNI, IPv6", "08000000 ffffff00 0a0000000002 0a0000000001 86dd", Header{VNI: MaxVNI, Dst: dst, Src: src, Type: EtherTypeIPv6}},
		{"VNI 0", "08000000 00000000 0a0000000002 0a0000000001 0800", Header{Dst: dst, Src: src, Type: EtherTypeIPv4}},
		{"TCP checksum at 34", "08200000 00000111 0a0000000002 0a0000000001 0800", Header{VNI: 1, Dst: dst, Src: src, Type: EtherTypeIPv4, Remote: RemoteChecksum{Start: 34}}},
		{"UDP checksum at 54", "08200000 0000019b 0a0000000002 0a0000000001 86dd", Header{VNI: 1, Dst: dst, Src: src, Type: EtherTypeIPv6, Remote: RemoteChecksum{Start: 54, UDP: true}}},
		{"checksum at the first place", "08200000 00000101 0a0000000002 0a0000000001 0800", Header{VNI: 1, Dst: dst, Src: src, Type: EtherTypeIPv4, Remote: RemoteChecksum{Start: 2}}},
		{"checksum at the last place", "08200000 000001ff 0a0000000002 0a0000000001 0800", Header{VNI: 1, Dst: dst, Src: src, Type: EtherTypeIPv4, Remote: RemoteChecksum{Start: 254, UDP: true}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			data := wire(t, tt.hex)
			got := Header{Remote: RemoteChecksum{Start: 9, UDP: true}} // what was in it does not matter
			if err := Decode(append(data, 0x45), &got); err != nil || got != tt.want {
				t.Errorf("Decode: got %+v, %v\nwant %+v", got, err, tt.want)
			}
			b := bytes.Repeat([]byte{0xee}, Overhead+1)
			if tt.want.Encode(b); !bytes.Equal(b[:Overhead], data) || b[Overhead] != 0xee {
				t.Errorf("Encode: got % x, want % x", b, data)
			}
		})
	}
}

func TestRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		want := Header{VNI: VNI(r.Uint32()) & MaxVNI, Type: EtherType(uint8(4 + r.IntN(2)*2))}
		for i := range want.Dst {
			want.Dst[i], want.Src[i] = byte(r.Uint32()), byte(r.Uint32())
		}
		if r.IntN(2) == 0 {
			want.Remote = RemoteChecksum{Start: uint8(1+r.IntN(127)) * 2, UDP: r.IntN(2) == 0}
		}
		var b [Overhead]byte
		want.Encode(b[:])
		var got Header
		if err := Decode(b[:], &got); err != nil || got != want {
			t.Fatalf("got %+v, %v, want %+v", got, err, want)
		}
	}
}

func TestDecodeShort(t *testing.T) {
	b := make([]byte, Overhead)
	(&Header{VNI: 1, Dst: dst, Src: src, Type: EtherTypeIPv4}).Encode(b)
	for n := range Overhead {
		if err := Decode(b[:n:n], new(Header)); !errors.Is(err, ErrShort) {
			t.Errorf("%d bytes: got %v, want %v", n, err, ErrShort)
		}
	}
	if err := Decode(b, new(Header)); err != nil {
		t.Errorf("%d bytes: got %v, want an empty packet", Overhead, err)
	}
}

// TestReservedBits flips each bit of the VXLAN header: only the VNI's, and those of a remote checksum, may differ.
func TestReservedBits(t *testing.T) {
	plain := make([]byte, Overhead)
	(&Header{VNI: 1, Type: EtherTypeIPv4}).Encode(plain)
	remote := make([]byte, Overhead)
	(&Header{VNI: 1, Type: EtherTypeIPv4, Remote: RemoteChecksum{Start: 34}}).Encode(remote)
	for bit := range HeaderLen * 8 {
		flip := func(b []byte) error {
			b = bytes.Clone(b)
			b[bit/8] ^= 0x80 >> (bit % 8)
			return Decode(b, new(Header))
		}
		vni := bit >= 32 && bit < 56
		if err := flip(plain); (err == nil) != vni || err != nil && !errors.Is(err, ErrFlags) {
			t.Errorf("bit %d: got %v", bit, err)
		}
		if err := flip(remote); (err == nil) != (vni || bit >= 56) || err != nil && !errors.Is(err, ErrFlags) {
			t.Errorf("bit %d with a remote checksum: got %v", bit, err)
		}
	}
	for _, last := range []byte{0x00, 0x80} { // RCO without a start
		b := bytes.Clone(remote)
		b[7] = last
		if err := Decode(b, new(Header)); !errors.Is(err, ErrFlags) {
			t.Errorf("remote checksum %#02x: got %v, want %v", last, err, ErrFlags)
		}
	}
}

func TestDecodeType(t *testing.T) {
	for typ, want := range map[uint16]error{
		EtherTypeIPv4: nil, EtherTypeIPv6: nil,
		0: ErrType, 0x0806: ErrType, 0x8100: ErrType, 0x86dc: ErrType, 0x0008: ErrType, 0xdd86: ErrType,
	} {
		var b [Overhead]byte
		(&Header{VNI: 1, Type: typ}).Encode(b[:])
		if err := Decode(b[:], new(Header)); !errors.Is(err, want) {
			t.Errorf("%#04x: got %v, want %v", typ, err, want)
		}
	}
	if EtherType(4) != EtherTypeIPv4 || EtherType(6) != EtherTypeIPv6 {
		t.Error("EtherType: wrong")
	}
}

func TestParseMAC(t *testing.T) {
	for s, want := range map[string]MAC{
		"0a:00:00:00:00:01": src, "0A-00-00-00-00-01": src, "0a00.0000.0001": src, "fe:ff:ff:ff:ff:ff": {0xfe, 255, 255, 255, 255, 255},
	} {
		got, err := ParseMAC(s)
		if err != nil || got != want {
			t.Errorf("%s: got %v, %v, want %v", s, got, err, want)
		}
		if again, err := ParseMAC(got.String()); err != nil || again != want {
			t.Errorf("%s: does not come back from %v", s, got)
		}
	}
	for s, why := range map[string]string{
		"": "six bytes", "0a:00:00:00:00": "six bytes", "0a:00:00:00:00:0g": "six bytes",
		"02:00:5e:10:00:00:00:01": "six bytes", // EUI-64
		"01:00:5e:00:00:01":       "unicast", "ff:ff:ff:ff:ff:ff": "unicast", "03:00:00:00:00:01": "unicast",
		"00:00:00:00:00:00": "zeros",
	} {
		got, err := ParseMAC(s)
		if err == nil || got != (MAC{}) || !strings.Contains(err.Error(), why) || !strings.Contains(err.Error(), `"`+s+`"`) {
			t.Errorf("%q: got %v, %v, want an error that says %q", s, got, err, why)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(wire(f, "08000000 00000100 0a0000000002 0a0000000001 0800 45"))   // plain IPv4
	f.Add(wire(f, "08000000 ffffff00 0a0000000002 0a0000000001 86dd 60"))   // plain IPv6
	f.Add(wire(f, "08200000 00000111 0a0000000002 0a0000000001 0800 45"))   // remote TCP checksum
	f.Add(wire(f, "08200000 0000019b 0a0000000002 0a0000000001 86dd 60"))   // remote UDP checksum
	f.Add(wire(f, "08200000 00000180 0a0000000002 0a0000000001 0800 45"))   // remote checksum at nothing
	f.Add(wire(f, "88000800 00000100 0a0000000002 0a0000000001 0800 45"))   // group policy extension
	f.Add(wire(f, "0c000003 00000100 0a0000000002 0a0000000001 0800 45"))   // generic protocol extension
	f.Add(wire(f, "08000000 00000100 0a0000000002 0a0000000001 8100 0001")) // VLAN
	f.Fuzz(func(t *testing.T, b []byte) {
		var h Header
		if err := Decode(b, &h); err != nil {
			if !errors.Is(err, ErrShort) && !errors.Is(err, ErrFlags) && !errors.Is(err, ErrType) {
				t.Fatalf("got %v", err)
			}
			return
		}
		var again [Overhead]byte
		if h.Encode(again[:]); !bytes.Equal(again[:], b[:Overhead]) {
			t.Fatalf("got % x, want % x", again, b[:Overhead])
		}
	})
}

func TestAllocs(t *testing.T) {
	h := Header{VNI: 1, Dst: dst, Src: src, Type: EtherTypeIPv4, Remote: RemoteChecksum{Start: 34}}
	var b [Overhead]byte
	if n := testing.AllocsPerRun(100, func() {
		h.Encode(b[:])
		if Decode(b[:], &h) != nil {
			t.Fatal("Decode")
		}
	}); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}

func BenchmarkEncode(b *testing.B) {
	h := Header{VNI: 1, Dst: dst, Src: src, Type: EtherTypeIPv4}
	var data [Overhead]byte
	b.ReportAllocs()
	for b.Loop() {
		h.Encode(data[:])
	}
}

func BenchmarkDecode(b *testing.B) {
	h := Header{VNI: 1, Dst: dst, Src: src, Type: EtherTypeIPv4}
	var data [Overhead]byte
	h.Encode(data[:])
	b.ReportAllocs()
	for b.Loop() {
		if Decode(data[:], &h) != nil {
			b.Fatal("Decode")
		}
	}
}
