package lab

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"
)

// ipFrame is an Ethernet frame with an IP header of the given traffic class.
func ipFrame(version, class byte) []byte {
	b := make([]byte, ethernetHeader+headerLen6)
	ip := b[ethernetHeader:]
	if version == 6 {
		binary.BigEndian.PutUint16(b[12:], 0x86dd)
		ip[0], ip[1] = 6<<4|class>>4, class<<4
		return b
	}
	binary.BigEndian.PutUint16(b[12:], 0x0800)
	ip[0], ip[1] = 0x45, class
	binary.BigEndian.PutUint16(ip[10:], ^(0x4500 + uint16(class)))
	return b
}

func TestLineMark(t *testing.T) {
	arp := make([]byte, 60)
	binary.BigEndian.PutUint16(arp[12:], 0x0806)
	for _, tt := range []struct {
		name     string
		in, want []byte
	}{
		{"IPv4, ECT(0)", ipFrame(4, 0xba), ipFrame(4, 0xbb)},
		{"IPv4, ECT(1)", ipFrame(4, 1), ipFrame(4, 3)},
		{"IPv4, not ECT", ipFrame(4, 0xb8), ipFrame(4, 0xb8)},
		{"IPv6, ECT(0)", ipFrame(6, 0xba), ipFrame(6, 0xbb)},
		{"IPv6, not ECT", ipFrame(6, 0xb8), ipFrame(6, 0xb8)},
		{"no IP", arp, arp},
		{"short", arp[:20], arp[:20]},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLine(Faults{Mark: 1})
			out := l.pass(tt.in, time.Now(), nil)
			if len(out) != 1 || !bytes.Equal(out[0].bytes, tt.want) {
				t.Fatalf("got  %x\nwant %x", out[0].bytes, tt.want)
			}
			if marked := l.read().Marked == 1; marked != !bytes.Equal(tt.in, tt.want) {
				t.Errorf("counted as marked: %v", marked)
			}
		})
	}
}

// datagramFrame is an Ethernet frame with a UDP datagram that must not be fragmented.
func datagramFrame(id uint16, length int) []byte {
	b := ipFrame(4, 0)
	binary.BigEndian.PutUint16(b[ethernetHeader+4:], id)
	b[ethernetHeader+6], b[ethernetHeader+9] = 0x40, 17
	return append(b, make([]byte, ethernetHeader+length-len(b))...)
}

func TestLineUnfit(t *testing.T) {
	tcp := datagramFrame(7, 100)
	tcp[ethernetHeader+9] = 6
	for _, tt := range []struct {
		name   string
		faults Faults
		in     []byte
		passes bool
	}{
		{"as long as the MTU", Faults{MTU: 1400}, datagramFrame(0, 1400), true},
		{"longer", Faults{MTU: 1400}, datagramFrame(0, 1401), false},
		{"a single datagram", Faults{NoTrains: true}, datagramFrame(0, 1400), true},
		{"one of a train", Faults{NoTrains: true}, datagramFrame(1, 1400), false},
		{"TCP", Faults{NoTrains: true}, tcp, true},
		{"IPv6", Faults{NoTrains: true}, ipFrame(6, 0), true},
		{"one of a train on a good way", Faults{Delay: 1}, datagramFrame(1, 1400), true},
	} {
		l := newLine(tt.faults)
		if got := len(l.pass(tt.in, time.Now(), nil)) == 1; got != tt.passes {
			t.Errorf("%s: passes: %v", tt.name, got)
		}
		if c := l.read(); (c.TooLong+c.OfTrains == 0) != tt.passes {
			t.Errorf("%s: counted %+v", tt.name, c)
		}
	}
}
