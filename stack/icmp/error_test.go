package icmp

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/icmp"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
)

var (
	podA, podB     = netip.MustParseAddr("10.244.1.2"), netip.MustParseAddr("10.244.2.3")
	podA6, podB6   = netip.MustParseAddr("fd00:10:244:1::2"), netip.MustParseAddr("fd00:10:244:2::3")
	gateway        = netip.MustParseAddr("10.244.1.1")
	gateway6       = netip.MustParseAddr("fd00:10:244:1::1")
	datagram       = packettest.Packet{Src: podA, Dst: podB, SrcPort: 4000, DstPort: 53, TTL: 1, Payload: []byte("hello")}
	datagram6      = packettest.Packet{Src: podA6, Dst: podB6, SrcPort: 4000, DstPort: 53, TTL: 1, Payload: []byte("hello")}
	allKinds       = []Kind{TimeExceeded, NetUnreachable, HostUnreachable, Prohibited, TooBig, PortUnreachable}
	typesAndCodes4 = []string{"11/0", "3/0", "3/1", "3/13", "3/4", "3/3"}
	typesAndCodes6 = []string{"3/0", "1/0", "1/3", "1/1", "2/0", "1/4"}
)

func parse(t testing.TB, b []byte) *packet.Parsed {
	t.Helper()
	p := new(packet.Parsed)
	if r := packet.Parse(b, p); r != packet.Kept {
		t.Fatalf("Parse(% x): %v", b[:min(len(b), 60)], r)
	}
	return p
}

// build returns e about packet b, which is handed over in two parts.
func build(t testing.TB, e Error, b []byte) []byte {
	t.Helper()
	from := gateway
	p := parse(t, b)
	if p.Version == 6 {
		from = gateway6
	}
	dst := bytes.Repeat([]byte{0xee}, MaxLen) // what lay there before must not show
	cut := min(len(b), p.L4+8)
	return dst[:e.Build(dst, from, p, b[:cut], b[cut:])]
}

func wire(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBuildWire(t *testing.T) {
	ip := datagram.Frame()[packet.VnetLen:]
	ip6 := datagram6.Frame()[packet.VnetLen:]
	for _, tt := range []struct {
		name string
		e    Error
		b    []byte
		hex  string
	}{
		{"fragmentation needed", Error{TooBig, 1450}, ip,
			`45c0 003d 0000 4000 4001 2222 0af4 0101 0af4 0102
			 0304 xxxx 0000 05aa
			 4500 0021 0000 4000 0111 62be 0af4 0102 0af4 0203 0fa0 0035 000d 0bc7 6865 6c6c 6f`},
		{"packet too big", Error{TooBig, 1430}, ip6,
			`6000 0000 003d 3a40 fd00 0010 0244 0001 0000 0000 0000 0001 fd00 0010 0244 0001 0000 0000 0000 0002
			 0200 xxxx 0000 0596
			 6000 0000 000d 1101 fd00 0010 0244 0001 0000 0000 0000 0002 fd00 0010 0244 0002 0000 0000 0000 0003
			 0fa0 0035 000d 16dc 6865 6c6c 6f`},
	} {
		got := build(t, tt.e, tt.b)
		p := parse(t, got)
		if !packet.TransportChecksumOK(got, p) {
			t.Errorf("%s: wrong checksum", tt.name)
		}
		// The sums are checked above and by gVisor below; here they are taken over from what came.
		s := strings.Join(strings.Fields(tt.hex), "")
		s = strings.ReplaceAll(s, "xxxx", fmt.Sprintf("%x", got[p.L4+2:p.L4+4]))
		want := wire(t, s)
		if p.Version == 4 {
			copy(want[10:12], got[10:12])
			copy(want[28+10:], tt.b[10:12])
		}
		at := p.L4 + 8 + p.L4 + 6
		copy(want[at:], tt.b[p.L4+6:p.L4+8])
		if diff := cmp.Diff(hex.Dump(want), hex.Dump(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// TestBuild reads every error with the parsers of gVisor and golang.org/x/net.
func TestBuild(t *testing.T) {
	for _, size := range []int{0, 1, 100, 519, 520, 521, 1183, 1184, 1185, 1400, 60000} {
		for i, kind := range allKinds {
			for _, d := range []packettest.Packet{datagram, datagram6} {
				d.Payload = bytes.Repeat([]byte{7}, size)
				b := d.Frame()[packet.VnetLen:]
				got := build(t, Error{kind, 1400}, b)
				var proto, most, at int
				var kindCode string
				if d.Src.Is4() {
					ip := header.IPv4(got)
					if !ip.IsValid(len(got)) || !ip.IsChecksumValid() || ip.ID() != 0 || ip.Flags() != header.IPv4FlagDontFragment {
						t.Fatalf("gVisor: no good IPv4 header: % x", got[:20])
					}
					if tos, _ := ip.TOS(); tos != 0xc0 || ip.TTL() != 64 || ip.SourceAddress() != addr(gateway) || ip.DestinationAddress() != addr(podA) {
						t.Fatalf("IPv4 header: % x", got[:20])
					}
					m := header.ICMPv4(ip.Payload())
					if header.ICMPv4Checksum(m[:header.ICMPv4MinimumSize], payloadSum(m[header.ICMPv4MinimumSize:])) != m.Checksum() {
						t.Error("gVisor: wrong ICMP checksum")
					}
					if want := map[bool]uint16{true: 1400}[kind == TooBig]; m.MTU() != want {
						t.Errorf("got MTU %d, want %d", m.MTU(), want)
					}
					kindCode, proto, most, at = fmt.Sprint(m.Type(), "/", m.Code()), 1, 576, 20
				} else {
					ip := header.IPv6(got)
					if !ip.IsValid(len(got)) || ip.HopLimit() != 64 || ip.SourceAddress() != addr(gateway6) || ip.DestinationAddress() != addr(podA6) {
						t.Fatalf("IPv6 header: % x", got[:40])
					}
					m := header.ICMPv6(ip.Payload())
					rest := m[header.ICMPv6PayloadOffset:]
					if sum := header.ICMPv6Checksum(header.ICMPv6ChecksumParams{
						Header: m[:header.ICMPv6PayloadOffset], Src: ip.SourceAddress(), Dst: ip.DestinationAddress(),
						PayloadCsum: payloadSum(rest), PayloadLen: len(rest),
					}); sum != m.Checksum() {
						t.Error("gVisor: wrong ICMPv6 checksum")
					}
					want := map[Kind]uint32{TooBig: 1400}[kind]
					if m.MTU() != want {
						t.Errorf("%d: got word %d, want %d", kind, m.MTU(), want)
					}
					kindCode, proto, most, at = fmt.Sprint(m.Type(), "/", m.Code()), 58, 1280, 40
				}
				kindCode = strings.ReplaceAll(kindCode, " ", "")
				if want := [][]string{typesAndCodes6, typesAndCodes4}[proto%2][i]; kindCode != want {
					t.Errorf("kind %d: got %s, want %s", kind, kindCode, want)
				}
				quoted := got[at+8:]
				if len(got) != min(most, at+8+len(b)) || !bytes.Equal(quoted, b[:len(quoted)]) {
					t.Errorf("%d bytes: the error has %d, quoted %d", len(b), len(got), len(quoted))
				}
				if m, err := icmp.ParseMessage(proto, got[at:]); err != nil || m.Body.Len(proto) != len(quoted)+4 {
					t.Errorf("x/net: %v, %+v", err, m)
				}
			}
		}
	}
}

func addr(a netip.Addr) tcpip.Address { return tcpip.AddrFromSlice(a.AsSlice()) }

func payloadSum(b []byte) uint16 { return packet.Checksum(b, 0) }

func TestMayAnswer(t *testing.T) {
	v4 := func(edit func(*packettest.Packet)) []byte {
		d := packettest.Packet{Src: podA, Dst: podB, Payload: make([]byte, 24)}
		edit(&d)
		return d.Frame()[packet.VnetLen:]
	}
	from := func(s string) []byte {
		a := netip.MustParseAddr(s)
		return packettest.Packet{Src: a, Dst: map[bool]netip.Addr{true: podB, false: podB6}[a.Is4()]}.Frame()[packet.VnetLen:]
	}
	to := func(s string) []byte {
		a := netip.MustParseAddr(s)
		return packettest.Packet{Dst: a, Src: map[bool]netip.Addr{true: podB, false: podB6}[a.Is4()]}.Frame()[packet.VnetLen:]
	}
	message := func(version int, kind byte) []byte {
		d := packettest.Packet{Src: podA, Dst: podB, Proto: 200, Payload: make([]byte, 8)}
		at, proto, l4 := 9, packet.ICMP, 20
		if version == 6 {
			d.Src, d.Dst, at, proto, l4 = podA6, podB6, 6, packet.ICMPv6, 40
		}
		b := d.Frame()[packet.VnetLen:]
		b[at], b[l4] = byte(proto), kind
		return resum(b)
	}
	fragment := func(field byte, offset byte) []byte {
		b := v4(func(*packettest.Packet) {})
		b[6], b[7] = field, offset
		return resum(b)
	}
	fragment6 := func(offset byte, proto packet.Proto) []byte {
		b := packettest.Packet{Src: podA6, Dst: podB6, Proto: 200, Payload: make([]byte, 28)}.Frame()[packet.VnetLen:]
		b[6] = byte(packet.FragmentHdr)
		copy(b[40:], []byte{byte(proto), 0, 0, offset | 1, 0, 0, 0, 7, 200}) // an ICMPv6 type of no error
		return b[:len(b)-(len(b)-48)%8]
	}
	for _, tt := range []struct {
		name string
		b    []byte
		kind Kind
		want bool
	}{
		{"a datagram", v4(func(*packettest.Packet) {}), TimeExceeded, true},
		{"TCP", v4(func(d *packettest.Packet) { d.Proto = packet.TCP }), TooBig, true},
		{"a protocol without ports", v4(func(d *packettest.Packet) { d.Proto = 50 }), HostUnreachable, true},
		{"echo request", message(4, 8), TimeExceeded, true},
		{"echo reply", message(4, 0), TimeExceeded, true},
		{"unreachable", message(4, 3), TimeExceeded, false},
		{"source quench", message(4, 4), TimeExceeded, false},
		{"redirect", message(4, 5), TimeExceeded, false},
		{"time exceeded", message(4, 11), TimeExceeded, false},
		{"parameter problem", message(4, 12), TimeExceeded, false},
		{"a type that nobody knows", message(4, 200), TimeExceeded, false},
		{"ICMPv6 echo request", message(6, 128), TimeExceeded, true},
		{"ICMPv6 unreachable", message(6, 1), TimeExceeded, false},
		{"ICMPv6 packet too big", message(6, 2), TooBig, false},
		{"ICMPv6 time exceeded", message(6, 3), TimeExceeded, false},
		{"ICMPv6 error that nobody knows", message(6, 127), TimeExceeded, false},
		{"ICMPv6 redirect", message(6, 137), TimeExceeded, false},
		{"ICMPv6 query that nobody knows", message(6, 200), TimeExceeded, true},
		{"first fragment", fragment(0x20, 0), TimeExceeded, true},
		{"later fragment", fragment(0x20, 2), TimeExceeded, false},
		{"last fragment", fragment(0, 2), TimeExceeded, false},
		{"IPv6 first fragment", fragment6(0, 200), TimeExceeded, true},
		{"IPv6 later fragment", fragment6(16, 200), TooBig, true},
		{"IPv6 later fragment of ICMPv6", fragment6(16, packet.ICMPv6), TooBig, false},
		{"from multicast", from("224.0.0.5"), TimeExceeded, false},
		{"from broadcast", from("255.255.255.255"), TimeExceeded, false},
		{"from loopback", from("127.0.0.1"), TimeExceeded, false},
		{"from nobody", from("0.0.0.0"), TimeExceeded, false},
		{"from link-local", from("fe80::1"), TooBig, false},
		{"from IPv6 nobody", from("::"), TooBig, false},
		{"from IPv6 multicast", from("ff02::5"), TooBig, false},
		{"to multicast", to("224.0.0.5"), TooBig, false},
		{"to broadcast", to("255.255.255.255"), TimeExceeded, false},
		{"to IPv6 multicast", to("ff0e::5"), TimeExceeded, false},
		{"to IPv6 multicast, too big", to("ff0e::5"), TooBig, true},
		{"to link-local, too big", to("fe80::5"), TooBig, false},
	} {
		if got := MayAnswer(tt.b, parse(t, tt.b), tt.kind); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

// resum puts the IPv4 header's checksum right after an edit.
func resum(b []byte) []byte {
	if b[0]>>4 == 4 {
		b[10], b[11] = 0, 0
		sum := ^packet.Checksum(b[:20], 0)
		b[10], b[11] = byte(sum>>8), byte(sum)
	}
	return b
}

func TestBuildAllocs(t *testing.T) {
	var dst [MaxLen]byte
	for _, d := range []packettest.Packet{datagram, datagram6} {
		b := d.Frame()[packet.VnetLen:]
		p := parse(t, b)
		from := map[bool]netip.Addr{true: gateway, false: gateway6}[d.Src.Is4()]
		var l Limit
		var s SharedLimit
		if n := testing.AllocsPerRun(100, func() {
			if MayAnswer(b, p, TooBig) && l.Allow(0) && s.Allow(7, 0) || true {
				Error{TooBig, 1400}.Build(dst[:], from, p, b, nil)
			}
		}); n != 0 {
			t.Errorf("%v: got %v allocations, want 0", d.Src, n)
		}
	}
}
