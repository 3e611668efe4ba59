package packet

import (
	"encoding/binary"
	"net/netip"
)

// ResetLen is how many bytes BuildReset writes at most.
const ResetLen = ipv6Len + tcpMinLen

// buildTTL is the time to live (hop limit) of what is built here.
const buildTTL = 64

// BuildReset writes into dst, which has at least ResetLen bytes, the segment by which TCP packet b, whose headers are p, is
// refused by its destination as a closed port does (RFC 9293, section 3.10.7.1), and returns its length. It is 0 for a reset,
// which is never answered, and for a fragment.
//
//	an acknowledged segment:   <SEQ=SEG.ACK><CTL=RST>
//	any other:                 <SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>
func BuildReset(dst, b []byte, p *Parsed) int {
	if p.Proto != TCP || p.Fragment || p.Flags&RST != 0 {
		return 0
	}
	back := p.Flow.Reverse()
	at := putHeader(dst, back.Src(), back.Dst(), TCP, tcpMinLen)
	l4 := dst[at : at+tcpMinLen]
	clear(l4)
	binary.BigEndian.PutUint16(l4, back.SrcPort())
	binary.BigEndian.PutUint16(l4[2:], back.DstPort())
	seg := b[p.L4:]
	if p.Flags&ACK != 0 {
		copy(l4[4:8], seg[8:12])
		l4[13] = RST
	} else {
		binary.BigEndian.PutUint32(l4[8:], binary.BigEndian.Uint32(seg[4:])+segmentLen(p))
		l4[13] = RST | ACK
	}
	l4[12] = tcpMinLen / 4 << 4
	sumTransport(dst, &Parsed{Version: p.Version, Proto: TCP, L4: at, Len: at + tcpMinLen})
	return at + tcpMinLen
}

// segmentLen returns how far a TCP segment, or a super-packet of segments, moves the sequence number.
func segmentLen(p *Parsed) uint32 {
	n := uint32(p.Len - p.Payload)
	if p.Flags&SYN != 0 {
		n++
	}
	if p.Flags&FIN != 0 {
		n++
	}
	return n
}

// UDPPayload returns the payload of UDP packet b, whose headers are p, which is no fragment.
func UDPPayload(b []byte, p *Parsed) []byte {
	return b[p.Payload : p.L4+int(binary.BigEndian.Uint16(b[p.L4+4:]))]
}

// UDPHeaderLen is how many bytes BuildUDP writes in front of the payload, for IPv4 and IPv6.
func UDPHeaderLen(is4 bool) int {
	if is4 {
		return ipv4MinLen + udpLen
	}
	return ipv6Len + udpLen
}

// BuildUDP makes dst, in which the payload lies behind UDPHeaderLen free bytes, a packet of flow f with complete checksums.
func BuildUDP(dst []byte, f *Flow) {
	n := len(dst) - UDPHeaderLen(f.Is4()) + udpLen
	at := putHeader(dst, f.Src(), f.Dst(), UDP, n)
	l4 := dst[at:]
	binary.BigEndian.PutUint16(l4, f.SrcPort())
	binary.BigEndian.PutUint16(l4[2:], f.DstPort())
	binary.BigEndian.PutUint16(l4[4:], uint16(n))
	binary.BigEndian.PutUint16(l4[6:], 0)
	sumTransport(dst, &Parsed{Version: dst[0] >> 4, Proto: UDP, L4: at, Len: len(dst)})
}

// putHeader writes the IP header of a packet that may not be fragmented, with n bytes behind it, and returns its length.
func putHeader(dst []byte, from, to netip.Addr, proto Proto, n int) int {
	if from.Is4() {
		h := dst[:ipv4MinLen]
		clear(h)
		h[0] = 4<<4 | ipv4MinLen/4
		binary.BigEndian.PutUint16(h[2:], uint16(ipv4MinLen+n))
		h[6], h[8], h[9] = 0x40, buildTTL, byte(proto)
		src, dst := from.As4(), to.As4()
		copy(h[12:], src[:])
		copy(h[16:], dst[:])
		binary.BigEndian.PutUint16(h[10:], ^Checksum(h, 0))
		return ipv4MinLen
	}
	h := dst[:ipv6Len]
	clear(h[:8])
	h[0], h[6], h[7] = 6<<4, byte(proto), buildTTL
	binary.BigEndian.PutUint16(h[4:], uint16(n))
	src, to16 := from.As16(), to.As16()
	copy(h[8:], src[:])
	copy(h[24:], to16[:])
	return ipv6Len
}

// Probe describes a packet that is made to be looked at.
type Probe struct {
	Proto    Proto
	Src, Dst netip.AddrPort // an ICMP echo has the source's port as its identifier
	Flags    uint8          // of TCP
	TTL      uint8
	// Payload is how many bytes of zero it carries.
	Payload int
	// MayFragment: an IPv4 packet may be cut.
	MayFragment bool
}

// ProbeHeaders is the most that a probe's headers take, in bytes.
const ProbeHeaders = ipv6Len + tcpMinLen

// BuildProbe writes the packet into dst, which has room for it, with complete checksums, and returns its length.
func BuildProbe(dst []byte, probe *Probe) int {
	n := transportLen(probe.Proto) + probe.Payload
	at := putHeader(dst, probe.Src.Addr(), probe.Dst.Addr(), probe.Proto, n)
	b := dst[:at+n]
	l4 := b[at:]
	clear(l4)
	switch probe.Proto {
	case ICMP:
		l4[0] = 8
		binary.BigEndian.PutUint16(l4[4:], probe.Src.Port())
	case ICMPv6:
		l4[0] = 128
		binary.BigEndian.PutUint16(l4[4:], probe.Src.Port())
	case TCP, UDP, SCTP:
		binary.BigEndian.PutUint16(l4, probe.Src.Port())
		binary.BigEndian.PutUint16(l4[2:], probe.Dst.Port())
	}
	switch probe.Proto {
	case TCP:
		l4[12], l4[13] = tcpMinLen/4<<4, probe.Flags
	case UDP:
		binary.BigEndian.PutUint16(l4[4:], uint16(n))
	case SCTP:
		binary.LittleEndian.PutUint32(l4[sctpChecksum:], sctpSum(l4))
	}
	p := Parsed{Version: b[0] >> 4, Proto: probe.Proto, Len: len(b), L4: at}
	if probe.MayFragment && p.Version == 4 {
		b[6] = 0
		Adjust(b[10:], 0x4000, 0)
	}
	SetTTL(b, &p, probe.TTL)
	sumTransport(b, &p)
	return len(b)
}

// sumTransport completes the checksum of packet b, whose field holds 0.
func sumTransport(b []byte, p *Parsed) {
	l4 := b[p.L4:p.Len]
	if p.Proto == ICMP {
		binary.BigEndian.PutUint16(l4[2:], ^Checksum(l4, 0))
		return
	}
	at, ok := checksumOffset(p.Proto)
	if !ok {
		return
	}
	sum := ^Checksum(l4, PseudoSum(b, p, len(l4)))
	if sum == 0 && p.Proto == UDP {
		sum = 0xffff // zero would mean "none" (RFC 768)
	}
	binary.BigEndian.PutUint16(l4[at:], sum)
}
