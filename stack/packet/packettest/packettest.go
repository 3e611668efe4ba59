// Package packettest makes packets for tests, from a description that reads like a rule.
package packettest

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"

	"github.com/middleway-net/middleway/stack/packet"
)

// Packet describes an IP packet. What is left out has the default told here.
type Packet struct {
	Src, Dst         netip.Addr
	Proto            packet.Proto // default UDP
	SrcPort, DstPort uint16       // for ICMP the identifier and nothing
	Flags            byte         // TCP
	TTL              byte         // default 64
	TOS              byte         // type of service, traffic class: DSCP and ECN
	ID               uint16       // IPv4
	Seq              uint32       // TCP; of SCTP the verification tag
	Payload          []byte
}

// Frame returns the packet behind an empty vnet header, with complete checksums.
func (d Packet) Frame() []byte {
	if d.Proto == 0 {
		d.Proto = packet.UDP
	}
	if d.TTL == 0 {
		d.TTL = 64
	}
	l4 := d.transport()
	b := make([]byte, packet.VnetLen, packet.VnetLen+60+len(l4))
	if d.Src.Is4() {
		b = append(b, 0x45, d.TOS)
		b = binary.BigEndian.AppendUint16(b, uint16(20+len(l4)))
		b = binary.BigEndian.AppendUint16(b, d.ID)
		b = append(b, 0x40, 0, d.TTL, byte(d.Proto), 0, 0)
	} else {
		b = binary.BigEndian.AppendUint32(b, 6<<28|uint32(d.TOS)<<20)
		b = binary.BigEndian.AppendUint16(b, uint16(len(l4)))
		b = append(b, byte(d.Proto), d.TTL)
	}
	b = append(append(append(b, d.Src.AsSlice()...), d.Dst.AsSlice()...), l4...)
	ip := b[packet.VnetLen:]
	if d.Src.Is4() {
		binary.BigEndian.PutUint16(ip[10:], ^packet.Checksum(ip[:20], 0))
	}
	var p packet.Parsed
	if packet.Parse(ip, &p) != packet.Kept {
		panic("packettest: what was described is no packet")
	}
	if p.Proto == packet.UDP || p.Proto == packet.TCP {
		o := packet.PartialOffload(&p)
		binary.BigEndian.PutUint16(ip[o.ChecksumStart+o.ChecksumOffset:], packet.PseudoSum(ip, &p, len(l4)))
		packet.FinishChecksum(ip, &o)
	}
	return b
}

func (d Packet) transport() []byte {
	b := binary.BigEndian.AppendUint16(nil, d.SrcPort)
	b = binary.BigEndian.AppendUint16(b, d.DstPort)
	switch d.Proto {
	case packet.TCP:
		b = binary.BigEndian.AppendUint32(b, d.Seq)
		b = append(b, 0, 0, 0, 1, 5<<4, d.Flags, 1, 0, 0, 0, 0, 0)
	case packet.UDP:
		b = binary.BigEndian.AppendUint16(b, uint16(8+len(d.Payload)))
		b = append(b, 0, 0)
	case packet.SCTP:
		b = binary.BigEndian.AppendUint32(b, d.Seq)
		b = append(append(b, 0, 0, 0, 0), d.Payload...)
		binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
		return b
	case packet.ICMP: // echo request, id sport
		b = []byte{8, 0, 0, 0, byte(d.SrcPort >> 8), byte(d.SrcPort), 0, 1}
		binary.BigEndian.PutUint16(b[2:], ^packet.Checksum(b, packet.Checksum(d.Payload, 0)))
	}
	return append(b, d.Payload...)
}

// Super returns a TCP or UDP packet as a pod's kernel hands it over when it is to be cut into segments of size bytes of
// payload: its checksum field holds the pseudo-header's sum, and the vnet header says the rest.
func (d Packet) Super(size int) []byte {
	frame := d.Frame()
	b := frame[packet.VnetLen:]
	var p packet.Parsed
	packet.Parse(b, &p)
	o := packet.PartialOffload(&p).Segmented(&p, size)
	binary.BigEndian.PutUint16(b[o.ChecksumStart+o.ChecksumOffset:], packet.PseudoSum(b, &p, p.Len-p.L4))
	o.Encode(frame)
	return frame
}

// Split returns the packets that a frame stands for, complete each.
func Split(frame []byte) (packets [][]byte) {
	o, err := packet.DecodeOffload(frame)
	b := frame[packet.VnetLen:]
	var p packet.Parsed
	if err != nil || packet.Parse(b, &p) != packet.Kept {
		panic("packettest: no frame")
	}
	b = append([]byte(nil), b[:p.Len]...)
	if o.GSO == packet.GSONone {
		packet.FinishChecksum(b, &o)
		return [][]byte{b}
	}
	s, ok := packet.Split(b, &p, o, false)
	if !ok {
		panic("packettest: super-packet does not split")
	}
	for s.Left() {
		head := make([]byte, packet.MaxSegmentHeader)
		payload, _ := s.Next(head)
		packets = append(packets, append(head[:s.HeaderLen()], payload...))
	}
	return packets
}
