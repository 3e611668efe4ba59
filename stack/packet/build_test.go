package packet

import (
	"bytes"
	"net/netip"
	"testing"
)

// TestBuildUDP: a datagram that is built parses as its flow, with a right checksum, and has its payload.
func TestBuildUDP(t *testing.T) {
	for _, ends := range [][2]string{{"10.96.0.10:53", "10.244.1.2:4000"}, {"[fd00:10:96::a]:53", "[fd00:10:244:1::2]:4000"}} {
		f := NewFlow(UDP, netip.MustParseAddrPort(ends[0]), netip.MustParseAddrPort(ends[1]))
		for _, payload := range [][]byte{nil, {1}, bytes.Repeat([]byte{0xff}, 1232)} {
			head := UDPHeaderLen(f.Is4())
			b := append(bytes.Repeat([]byte{0xee}, head), payload...) // what lay there before must not show
			BuildUDP(b, &f)
			p := parsed(t, b)
			if p.Flow != f || p.TTL != 64 || !TransportChecksumOK(b, p) || !bytes.Equal(UDPPayload(b, p), payload) {
				t.Errorf("%v with %d bytes: got % x", f, len(payload), b[:head])
			}
		}
	}
}

// No sum of a datagram is zero, which would mean that there is none.
func TestBuildUDPNoZero(t *testing.T) {
	f := NewFlow(UDP, netip.MustParseAddrPort("10.96.0.10:53"), netip.MustParseAddrPort("10.244.1.2:4000"))
	found := false
	for i := range 1 << 16 {
		b := append(make([]byte, UDPHeaderLen(true)), byte(i>>8), byte(i))
		BuildUDP(b, &f)
		if b[26] == 0 && b[27] == 0 {
			t.Fatalf("payload %#04x: no checksum", i)
		}
		found = found || b[26] == 0xff && b[27] == 0xff
	}
	if !found {
		t.Error("no payload makes the sum zero")
	}
}

// TestBuildReset refuses what is never answered; what is, TestReset of package stack shows in full.
func TestBuildReset(t *testing.T) {
	for _, tt := range []struct {
		name string
		s    spec
		want int
	}{
		{"SYN", spec{proto: TCP, flags: SYN}, 40},
		{"SYN over IPv6", spec{v6: true, proto: TCP, flags: SYN}, 60},
		{"RST", spec{proto: TCP, flags: RST}, 0},
		{"UDP", udp4(5), 0},
		{"a first fragment", spec{proto: TCP, flags: SYN, frag: 0x2000, payload: bytesOf(44)}, 0},
	} {
		b := tt.s.build()
		dst := bytes.Repeat([]byte{0xee}, ResetLen)
		n := BuildReset(dst, b, parsed(t, b))
		if n != tt.want {
			t.Errorf("%s: %d bytes, want %d", tt.name, n, tt.want)
		}
		if n > 0 && parsed(t, dst[:n]).Flow != parsed(t, b).Flow.Reverse() {
			t.Errorf("%s: got %v", tt.name, parsed(t, dst[:n]).Flow)
		}
	}
}

// TestBuildProbe: a probe is a packet like others.
func TestBuildProbe(t *testing.T) {
	for _, tt := range []struct {
		proto    Proto
		src, dst string
		payload  int
		want     int
	}{
		{TCP, "10.244.1.2:4000", "10.244.1.3:80", 0, 40},
		{UDP, "10.244.1.2:4000", "10.244.1.3:80", 1, 29},
		{SCTP, "10.244.1.2:4000", "10.244.1.3:80", 5, 37},
		{ICMP, "10.244.1.2:4000", "10.244.1.3:4000", 3, 31},
		{47, "10.244.1.2:0", "10.244.1.3:0", 9, 29},
		{TCP, "[fd00::1]:4000", "[fd00::2]:80", 7, 67},
		{UDP, "[fd00::1]:4000", "[fd00::2]:80", 0, 48},
		{ICMPv6, "[fd00::1]:4000", "[fd00::2]:4000", 0, 48},
		{UDP, "[fd00::1]:4000", "[fd00::2]:80", MaxSize - ProbeHeaders, MaxSize - 12},
	} {
		src, dst := netip.MustParseAddrPort(tt.src), netip.MustParseAddrPort(tt.dst)
		b := bytes.Repeat([]byte{0xee}, MaxSize)
		b = b[:BuildProbe(b, &Probe{Proto: tt.proto, Src: src, Dst: dst, Flags: SYN, TTL: 9, Payload: tt.payload, MayFragment: true})]
		p := parsed(t, b)
		if p.Flow != NewFlow(tt.proto, src, dst) || p.TTL != 9 || len(b) != tt.want || !TransportChecksumOK(b, p) || p.Version == 4 && !MayFragment(b, p) {
			t.Errorf("%v: got %v, %d bytes of %d", tt, p.Flow, len(b), tt.want)
		}
		if tt.proto == TCP && p.Flags != SYN {
			t.Errorf("flags: got %#x", p.Flags)
		}
	}
}
