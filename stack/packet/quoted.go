package packet

import "encoding/binary"

// ParseQuoted reads the headers of the packet that starts b as an ICMP error quotes it: cut off after any number of bytes
// behind the IP header (RFC 792: at least eight), its header checksum possibly no longer true, since routers before the one
// that quotes it have edited it. HasFlow is true only if what names the flow was quoted. Len is at most len(b); Payload and
// Flags are not read. It never allocates and fails closed.
func ParseQuoted(b []byte, p *Parsed) DropReason {
	*p = Parsed{}
	if len(b) < ipv4MinLen || b[0]>>4 == 6 && len(b) < ipv6Len {
		return DropMalformed
	}
	switch b[0] >> 4 {
	case 4:
		if !quoted4(b, p) {
			return DropMalformed
		}
	case 6:
		if !quoted6(b, p) {
			return DropMalformed
		}
	default:
		return DropMalformed
	}
	p.Flow.ports = uint64(p.Proto)
	if !p.Fragment || p.FragmentOffset == 0 {
		quotedPorts(b[p.L4:p.Len], p)
	}
	return Kept
}

func quoted4(b []byte, p *Parsed) bool {
	head, total := int(b[0]&0xf)*4, int(binary.BigEndian.Uint16(b[2:]))
	if head < ipv4MinLen || total < head || head > len(b) {
		return false
	}
	p.Version, p.TTL, p.Proto = 4, b[8], Proto(b[9])
	p.L4, p.Len = head, min(total, len(b))
	p.Flow.src = [2]uint64{mappedHi, mappedLo | uint64(binary.BigEndian.Uint32(b[12:]))}
	p.Flow.dst = [2]uint64{mappedHi, mappedLo | uint64(binary.BigEndian.Uint32(b[16:]))}
	p.setFragment4(b, head)
	return true
}

func quoted6(b []byte, p *Parsed) bool {
	p.Version, p.TTL = 6, b[7]
	p.Len = min(ipv6Len+int(binary.BigEndian.Uint16(b[4:])), len(b))
	p.Flow.src = [2]uint64{binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:])}
	p.Flow.dst = [2]uint64{binary.BigEndian.Uint64(b[24:]), binary.BigEndian.Uint64(b[32:])}
	return !mapped(p.Flow.src) && !mapped(p.Flow.dst) && walkExtensions(b, p)
}

// quotedPorts reads what there is of a transport header.
func quotedPorts(seg []byte, p *Parsed) {
	switch p.Proto {
	case TCP, UDP, SCTP:
		if len(seg) < 4 {
			return
		}
		p.Flow.ports |= uint64(binary.BigEndian.Uint16(seg))<<32 | uint64(binary.BigEndian.Uint16(seg[2:]))<<16
	case ICMP, ICMPv6:
		if len(seg) >= icmpLen {
			_ = parseICMP(seg, p) // of the other family: no flow
		}
		return
	}
	p.HasFlow = true
}
