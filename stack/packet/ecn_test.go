package packet_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
)

// TestDecapsulate is RFC 6040, figure 4, cell by cell. An x is a drop.
func TestDecapsulate(t *testing.T) {
	const x packet.ECN = 9
	outers := []packet.ECN{packet.NotECT, packet.ECT0, packet.ECT1, packet.CE}
	for _, row := range []struct {
		inner packet.ECN
		want  [4]packet.ECN
	}{
		{packet.NotECT, [4]packet.ECN{packet.NotECT, packet.NotECT, packet.NotECT, x}},
		{packet.ECT0, [4]packet.ECN{packet.ECT0, packet.ECT0, packet.ECT1, packet.CE}},
		{packet.ECT1, [4]packet.ECN{packet.ECT1, packet.ECT1, packet.ECT1, packet.CE}},
		{packet.CE, [4]packet.ECN{packet.CE, packet.CE, packet.CE, packet.CE}},
	} {
		for i, outer := range outers {
			for _, dscp := range []byte{0, 46, 63} {
				for name, d := range ecnPackets() {
					d.TOS = dscp<<2 | byte(row.inner)
					t.Run(fmt.Sprintf("%s/dscp=%d/inner=%d/outer=%d", name, dscp, row.inner, outer), func(t *testing.T) {
						checkDecapsulate(t, d, outer, row.want[i], row.want[i] != x)
					})
				}
			}
		}
	}
}

func ecnPackets() map[string]packettest.Packet {
	return map[string]packettest.Packet{
		"IPv4": {Src: netip.MustParseAddr("10.244.1.2"), Dst: netip.MustParseAddr("10.244.2.2"), Payload: []byte("ecn")},
		"IPv6": {Src: netip.MustParseAddr("fd00:10:244:1::2"), Dst: netip.MustParseAddr("fd00:10:244:2::2"), Payload: []byte("ecn")},
	}
}

// checkDecapsulate compares with the packet that has the wanted field from the start, its checksum summed anew.
func checkDecapsulate(t *testing.T, d packettest.Packet, outer, want packet.ECN, kept bool) {
	t.Helper()
	got := d.Frame()[packet.VnetLen:]
	if packet.ECNOf(got) != packet.ECN(d.TOS&3) {
		t.Fatalf("field of the packet is %d, want %d", packet.ECNOf(got), d.TOS&3)
	}
	if ok := packet.Decapsulate(got, outer); ok != kept {
		t.Fatalf("kept: %v, want %v", ok, kept)
	}
	if kept {
		d.TOS = d.TOS&^3 | byte(want)
	}
	if b := d.Frame()[packet.VnetLen:]; string(got) != string(b) {
		t.Errorf("got  %x\nwant %x", got, b)
	}
}

// TestDecapsulateSums: the checksum stays right for every value that the rest of the header can give it.
func TestDecapsulateSums(t *testing.T) {
	d := ecnPackets()["IPv4"]
	d.TOS = byte(packet.ECT0)
	for id := range 1 << 16 {
		d.ID = uint16(id)
		b := d.Frame()[packet.VnetLen:]
		packet.Decapsulate(b, packet.CE)
		var p packet.Parsed
		if reason := packet.Parse(b, &p); reason != packet.Kept {
			t.Fatalf("ID %d: %v after the mark", id, reason)
		}
	}
}

func TestDecapsulateNoAllocs(t *testing.T) {
	d := ecnPackets()["IPv4"]
	d.TOS = byte(packet.ECT0)
	b := d.Frame()[packet.VnetLen:]
	if got := testing.AllocsPerRun(100, func() { packet.Decapsulate(b, packet.CE) }); got != 0 {
		t.Errorf("%v allocations", got)
	}
}
