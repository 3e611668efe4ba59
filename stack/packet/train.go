package packet

import (
	"bytes"
	"encoding/binary"
)

// MaxTrain is the most packets that one super-packet is made of. It bounds the parts of one gathered write; the kernel
// takes 1024.
const MaxTrain = 128

// maxUDPTrain is MaxTrain for UDP: a device refuses more (UDP_MAX_SEGMENTS, 64 before Linux 6.9, checked since 6.7).
const maxUDPTrain = 64

// Train merges packets of one flow that follow each other without a gap into one super-packet, whose first packet lends
// its headers and whose further payloads are gathered by the kernel in one writev. Nothing is copied.
//
// A packet joins only if the kernel, splitting the result, would make exactly the packets that came in (the rules of
// tcp_gro_receive and udp_gro_receive), but that a checksum of 0xffff may come back as the equal 0. Packets are borrowed
// until Reset.
type Train struct {
	frame   []byte // first packet, VnetLen bytes in front of it
	more    [][]byte
	p       Parsed
	offload Offload
	size    int // payload of a full segment
	total   int // length of the super-packet
	seq     uint32
	id      uint16
	open    bool // a further packet may join
	// verified: the checksums of the packets in the train are known to be right.
	verified bool
	parts    [MaxTrain - 1][]byte
}

// Empty reports whether the train holds no packet.
func (t *Train) Empty() bool { return t.frame == nil }

// Reset forgets the packets.
func (t *Train) Reset() { t.frame, t.more = nil, nil }

// First returns the first packet and its headers, to be edited before Finish.
func (t *Train) First() ([]byte, *Parsed) { return t.frame[VnetLen:], &t.p }

// Offload returns what is unfinished in the first packet, to be known where it is edited.
func (t *Train) Offload() *Offload { return &t.offload }

// Count returns how many packets the train holds.
func (t *Train) Count() int {
	if t.frame == nil {
		return 0
	}
	return 1 + len(t.more)
}

// Len returns the length of the super-packet in bytes.
func (t *Train) Len() int { return t.total }

// Start makes the packet behind VnetLen bytes of frame the first of the train. Its bytes in front are overwritten by
// Finish.
func (t *Train) Start(frame []byte, p *Parsed, o Offload) {
	t.frame, t.more, t.p, t.offload = frame, t.parts[:0], *p, o
	t.total = p.Len
	t.size = p.Len - p.Payload
	t.verified = o.NeedsChecksum
	t.open = mergeable(frame[VnetLen:], p, o)
	if !t.open {
		return
	}
	b := frame[VnetLen:]
	if p.Version == 4 {
		t.id = binary.BigEndian.Uint16(b[4:])
	}
	if p.Proto == TCP {
		t.seq = binary.BigEndian.Uint32(b[p.L4+4:]) + uint32(t.size)
		t.open = p.Flags&PSH == 0 // a split puts PSH on the last segment only
	}
}

// Close lets no further packet join.
func (t *Train) Close() { t.open = false }

// mergeable reports whether a packet can be part of a super-packet: TCP data with no flag but ACK, PSH or ECE, or a UDP
// datagram with a checksum and no options behind it; no IPv4 options; nothing left open but the transport checksum.
func mergeable(b []byte, p *Parsed, o Offload) bool {
	if !p.HasFlow || p.Payload == 0 || p.Len == p.Payload || p.Payload > MaxSegmentHeader {
		return false
	}
	if p.Version == 4 && p.L4 != ipv4MinLen || p.Version == 6 && p.L4 != ipv6Len {
		return false
	}
	if at, _ := checksumOffset(p.Proto); o.GSO != GSONone ||
		o.NeedsChecksum && (int(o.ChecksumStart) != p.L4 || int(o.ChecksumOffset) != at) {
		return false
	}
	switch p.Proto {
	case TCP:
		return p.Flags&^(PSH|ECE) == ACK
	case UDP:
		u := b[p.L4:]
		return binary.BigEndian.Uint16(u[6:]) != 0 && int(binary.BigEndian.Uint16(u[4:])) == p.Len-p.L4
	}
	return false
}

// Append adds packet b if it may follow the train's packets, and reports whether it did. A super-packet tells its receiver
// not to verify checksums, so they are verified here, unless o says that an outer checksum vouches for them: the first
// packet's when a second one joins. A packet with a wrong checksum does not join; alone it meets its end at the receiver.
func (t *Train) Append(b []byte, p *Parsed, o Offload) bool {
	if !t.joins(b, p, o) {
		return false
	}
	if !t.verified {
		t.verified = TransportChecksumOK(t.frame[VnetLen:], &t.p)
		t.open = t.verified
	}
	if !t.verified || !o.NeedsChecksum && !TransportChecksumOK(b, p) {
		return false
	}
	payload := b[p.Payload:p.Len]
	t.more = append(t.more, payload)
	t.total += len(payload)
	t.seq += uint32(len(payload))
	if p.Proto == TCP && p.Flags&PSH != 0 {
		t.frame[VnetLen+t.p.L4+13] |= PSH
		t.open = false
	}
	if len(payload) < t.size {
		t.open = false
	}
	return true
}

func (t *Train) joins(b []byte, p *Parsed, o Offload) bool {
	n := p.Len - p.Payload
	if !t.open || len(t.more) == cap(t.more) || p.Flow != t.p.Flow || n > t.size ||
		p.Payload != t.p.Payload || t.total+n > MaxSize || !mergeable(b, p, o) {
		return false
	}
	if p.Proto == UDP && t.Count() == maxUDPTrain {
		return false
	}
	return t.sameIP(b) && (p.Proto == UDP || t.sameTCP(b, p))
}

func (t *Train) sameIP(b []byte) bool {
	first := t.frame[VnetLen:]
	if t.p.Version == 6 {
		return bytes.Equal(b[0:4], first[0:4]) && b[7] == first[7] // version, class, flow label; hop limit
	}
	if b[1] != first[1] || b[8] != first[8] || b[6] != first[6] { // TOS, TTL, flags
		return false
	}
	// IDs count up, as a split will make them.
	return binary.BigEndian.Uint16(b[4:]) == t.id+uint16(len(t.more))+1
}

func (t *Train) sameTCP(b []byte, p *Parsed) bool {
	h, first := b[p.L4:p.Payload], t.frame[VnetLen+t.p.L4:VnetLen+t.p.Payload]
	return binary.BigEndian.Uint32(h[4:]) == t.seq &&
		bytes.Equal(h[8:12], first[8:12]) && // acknowledgment
		h[12] == first[12] && (h[13]^first[13])&^PSH == 0 &&
		bytes.Equal(h[14:16], first[14:16]) && // window
		bytes.Equal(h[18:], first[18:]) // urgent pointer, options
}

// Finish writes the vnet header and the lengths of the super-packet and returns the parts to write, in order. They are
// valid until Reset. The caller may edit the first part's IP header before or after.
func (t *Train) Finish() (frame []byte, more [][]byte) {
	b := t.frame[VnetLen:]
	if len(t.more) == 0 {
		t.offload.Encode(t.frame)
		return t.frame[:VnetLen+t.p.Len], nil
	}
	if t.p.Version == 4 {
		old := binary.BigEndian.Uint16(b[2:])
		binary.BigEndian.PutUint16(b[2:], uint16(t.total))
		sum := addSum(addSum(^binary.BigEndian.Uint16(b[10:]), ^old), uint16(t.total)) // RFC 1624
		binary.BigEndian.PutUint16(b[10:], ^sum)
	} else {
		binary.BigEndian.PutUint16(b[4:], uint16(t.total-ipv6Len))
	}
	length := t.total - t.p.L4
	if t.p.Proto == UDP {
		binary.BigEndian.PutUint16(b[t.p.L4+4:], uint16(length))
	}
	o := PartialOffload(&t.p).Segmented(&t.p, t.size)
	at := int(o.ChecksumStart + o.ChecksumOffset)
	binary.BigEndian.PutUint16(b[at:], PseudoSum(b, &t.p, length))
	o.Encode(t.frame)
	return t.frame[:VnetLen+t.p.Len], t.more
}
