package packet_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
)

func TestHeader(t *testing.T) {
	for _, tt := range []struct {
		name     string
		src, dst string
		fragment bool
	}{
		{"IPv4", "10.244.1.2", "203.0.113.7", false},
		{"IPv4 that may be cut", "10.244.1.2", "203.0.113.7", true},
		{"IPv6", "fd00:10:244:1::2", "2001:db8::7", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			src, dst := netip.MustParseAddr(tt.src), netip.MustParseAddr(tt.dst)
			want := packettest.Packet{Src: src, Dst: dst, Proto: 99, TTL: 7, TOS: 0xb9, ID: 0, Payload: []byte("0123456")}.Frame()[packet.VnetLen:]
			h := packet.Header{Src: src, Dst: dst, Proto: 99, TTL: 7, TOS: 0xb9, MayFragment: tt.fragment, ID: 0x1234}
			got := make([]byte, len(want))
			n := h.Put(got, len(want)-map[bool]int{true: 20, false: 40}[src.Is4()])
			copy(got[n:], want[n:])
			if tt.fragment {
				want[4], want[5], want[6] = 0x12, 0x34, 0
				want[10], want[11] = 0, 0
				sum := ^packet.Checksum(want[:20], 0)
				want[10], want[11] = byte(sum>>8), byte(sum)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			var p packet.Parsed
			if r := packet.Parse(got, &p); r != packet.Kept || packet.MayFragment(got, &p) != tt.fragment || packet.TOS(got) != 0xb9 {
				t.Errorf("got %v, may be cut %v, TOS %#x", r, packet.MayFragment(got, &p), packet.TOS(got))
			}
		})
	}
}
