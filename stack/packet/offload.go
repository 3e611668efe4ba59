package packet

import (
	"encoding/binary"
	"io"
)

// GSO says how a super-packet is to be segmented.
type GSO uint8

// The kinds of super-packets, by the values of virtio_net_hdr.gso_type.
const (
	GSONone GSO = 0
	GSOTCP4 GSO = 1
	GSOTCP6 GSO = 4
	GSOUDP  GSO = 5 // UDP over either family (VIRTIO_NET_HDR_GSO_UDP_L4, Linux 6.2 for TUN)
)

// VnetLen is the length of the header that a TUN device with IFF_VNET_HDR puts in front of each packet, in bytes.
const VnetLen = 10

// virtio_net_hdr.flags and the bit in gso_type that marks a TCP super-packet with ECN's CWR.
const (
	vnetNeedsCsum = 1
	vnetGSOECN    = 0x80
)

// Offload says what is unfinished in a packet: its transport checksum, its segmentation. It is virtio_net_hdr (virtio
// specification 1.2, section 5.1.6; include/uapi/linux/virtio_net.h), whose fields are in the machine's byte order:
//
//	0      1         2         4          6            8             10
//	| flags | gso_type | hdr_len | gso_size | csum_start | csum_offset |
type Offload struct {
	// NeedsChecksum: the transport checksum field holds the pseudo-header's sum, not inverted; whoever takes the packet
	// off this machine has to sum the rest from ChecksumStart on and put it at ChecksumStart+ChecksumOffset.
	NeedsChecksum bool
	// GSO is the kind of super-packet, GSONone for an ordinary packet.
	GSO GSO
	// ECN: the super-packet's first segment has TCP's CWR flag, the others must not.
	ECN bool
	// HeaderLen is the length of all headers in bytes. It is a hint: on reading it is not trusted.
	HeaderLen uint16
	// Size is the payload of one segment in bytes; valid iff GSO is not GSONone.
	Size uint16
	// ChecksumStart and ChecksumOffset are in bytes; valid iff NeedsChecksum.
	ChecksumStart, ChecksumOffset uint16
}

// DecodeOffload reads the header in front of a packet.
func DecodeOffload(frame []byte) (Offload, error) {
	if len(frame) < VnetLen {
		return Offload{}, io.ErrShortBuffer
	}
	ne := binary.NativeEndian
	o := Offload{
		NeedsChecksum:  frame[0]&vnetNeedsCsum != 0,
		GSO:            GSO(frame[1] &^ vnetGSOECN),
		ECN:            frame[1]&vnetGSOECN != 0,
		HeaderLen:      ne.Uint16(frame[2:]),
		Size:           ne.Uint16(frame[4:]),
		ChecksumStart:  ne.Uint16(frame[6:]),
		ChecksumOffset: ne.Uint16(frame[8:]),
	}
	return o, nil
}

// Encode writes the header into the first VnetLen bytes of frame.
func (o Offload) Encode(frame []byte) {
	ne := binary.NativeEndian
	_ = frame[VnetLen-1]
	frame[0], frame[1] = 0, byte(o.GSO)
	if o.NeedsChecksum {
		frame[0] = vnetNeedsCsum
	}
	if o.ECN {
		frame[1] |= vnetGSOECN
	}
	ne.PutUint16(frame[2:], o.HeaderLen)
	ne.PutUint16(frame[4:], o.Size)
	ne.PutUint16(frame[6:], o.ChecksumStart)
	ne.PutUint16(frame[8:], o.ChecksumOffset)
}

// maxSegments bounds what one super-packet stands for: Linux's TCP never sends segments of less than 48 bytes
// (TCP_MIN_SND_MSS). Without it a pod could have one read answered by 65,535 datagrams.
const maxSegments = MaxSize/48 + 1

// Check reports DropOffload if o contradicts packet b, whose headers are p. A pod can set these fields through a packet
// socket (PACKET_VNET_HDR), so they are input like any other; what Check keeps may be finished, segmented and written to
// another pod.
func (o *Offload) Check(b []byte, p *Parsed) DropReason {
	if o.NeedsChecksum {
		start, offset := int(o.ChecksumStart), int(o.ChecksumOffset)
		if start < p.L4 || start+offset+2 > p.Len {
			return DropOffload
		}
	}
	if o.GSO == GSONone {
		return Kept
	}
	at, _ := checksumOffset(p.Proto)
	switch {
	case p.Fragment, !o.NeedsChecksum, o.Size == 0, p.Len-p.Payload > maxSegments*int(o.Size),
		int(o.ChecksumStart) != p.L4, int(o.ChecksumOffset) != at,
		o.GSO == GSOTCP4 && (p.Version != 4 || p.Proto != TCP),
		o.GSO == GSOTCP6 && (p.Version != 6 || p.Proto != TCP),
		o.GSO == GSOUDP && (p.Proto != UDP || int(binary.BigEndian.Uint16(b[p.L4+4:])) != p.Len-p.L4),
		o.GSO != GSOTCP4 && o.GSO != GSOTCP6 && o.GSO != GSOUDP:
		return DropOffload
	}
	return Kept
}

// PartialOffload returns the offload of a TCP or UDP packet whose checksum field holds the pseudo-header's sum.
func PartialOffload(p *Parsed) Offload {
	at, _ := checksumOffset(p.Proto)
	return Offload{
		NeedsChecksum: true, HeaderLen: uint16(p.Payload),
		ChecksumStart: uint16(p.L4), ChecksumOffset: uint16(at),
	}
}

// Segmented returns o with the kind and size of a super-packet of protocol p.Proto.
func (o Offload) Segmented(p *Parsed, size int) Offload {
	switch {
	case p.Proto == UDP:
		o.GSO = GSOUDP
	case p.Version == 4:
		o.GSO = GSOTCP4
	default:
		o.GSO = GSOTCP6
	}
	o.Size = uint16(size)
	return o
}
