package tool

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// extendedError is what the kernel reports.
func extendedError(origin, kind, code byte, info uint32, from netip.Addr) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.EHOSTUNREACH))
	b = append(b, origin, kind, code, 0)
	b = binary.NativeEndian.AppendUint32(b, info)
	b = append(b, 0, 0, 0, 0)
	if from.Is4() {
		return append(append(append(b, unix.AF_INET, 0, 0, 0), from.AsSlice()...), make([]byte, 8)...)
	}
	return append(append(append(b, unix.AF_INET6, 0, 0, 0, 0, 0, 0, 0), from.AsSlice()...), 0, 0, 0, 0)
}

func TestParseICMPError(t *testing.T) {
	router4, router6 := netip.MustParseAddr("192.168.254.12"), netip.MustParseAddr("fd00:254::12")
	for _, tt := range []struct {
		family *echoFamily
		b      []byte
		want   string // "" if it is refused
	}{
		{echo4, extendedError(unix.SO_EE_ORIGIN_ICMP, 11, 0, 0, router4), "time to live exceeded, says 192.168.254.12"},
		{echo4, extendedError(unix.SO_EE_ORIGIN_ICMP, 3, 4, 1400, router4), "fragmentation needed, MTU 1400, says 192.168.254.12"},
		{echo4, extendedError(unix.SO_EE_ORIGIN_ICMP, 3, 1, 1400, router4), "host unreachable, says 192.168.254.12"},
		{echo4, extendedError(unix.SO_EE_ORIGIN_ICMP, 3, 99, 0, router4), "ICMP error type 3 code 99, says 192.168.254.12"},
		{echo6, extendedError(unix.SO_EE_ORIGIN_ICMP6, 2, 0, 1280, router6), "packet too big, MTU 1280, says fd00:254::12"},
		{echo6, extendedError(unix.SO_EE_ORIGIN_ICMP6, 1, 4, 0, router6), "port unreachable, says fd00:254::12"},
		{echo4, extendedError(unix.SO_EE_ORIGIN_LOCAL, 0, 0, 1400, router4), ""},
		{echo4, extendedError(unix.SO_EE_ORIGIN_ICMP6, 1, 4, 0, router6), ""},
	} {
		e, ok := parseICMPError(tt.family, tt.b)
		got := ""
		if ok {
			got = e.Error()
		}
		if got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
		for n := range tt.b {
			if e, ok := parseICMPError(tt.family, tt.b[:n]); ok {
				t.Errorf("the first %d of %d bytes: got %v", n, len(tt.b), e)
			}
		}
	}
}

func FuzzParseICMPError(f *testing.F) {
	f.Add(extendedError(unix.SO_EE_ORIGIN_ICMP, 11, 0, 0, netip.MustParseAddr("192.168.254.12")), false)
	f.Add(extendedError(unix.SO_EE_ORIGIN_ICMP6, 2, 0, 1280, netip.MustParseAddr("fd00:254::12")), true)
	f.Fuzz(func(t *testing.T, b []byte, v6 bool) {
		family := echo4
		if v6 {
			family = echo6
		}
		if e, ok := parseICMPError(family, b); ok && (!e.From.IsValid() || e.From.Is6() != v6 || e.Words() == "") {
			t.Errorf("got %+v", e)
		}
	})
}
