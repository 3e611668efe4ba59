package packet

import (
	"encoding/binary"
	"hash/crc32"
	"math/bits"
)

// Translate rewrites addresses and ports of packet b, whose headers are p and whose unfinished parts o describes, so that
// it becomes one of flow to, and keeps its checksums right by what changed (RFC 1624); the payload is not looked at. A
// checksum that is still open, a super-packet's among them, holds the pseudo-header's sum and follows the addresses alone.
// Of a packet without a flow only the addresses change.
//
// Of a later fragment only the addresses change: the transport header is in the first.
//
// SCTP's checksum does not cover the addresses, and is made anew for new ports, from the whole packet (RFC 9260, appendix A).
//
// What cannot be translated is left as it is and not kept: ports of an SCTP packet in fragments, or whose checksum is wrong and
// would become right; an open checksum that is not the transport's. Preconditions: Parse kept b as p, o.Check kept it, to is of the same version and
// protocol, and a fragment has the flow of its packet.
func Translate(b []byte, p *Parsed, o *Offload, to *Flow) DropReason {
	at, covers := checksumOffset(p.Proto)
	later := p.Fragment && p.FragmentOffset > 0
	switch {
	case p.Proto == SCTP && to.ports != p.Flow.ports:
		return translateSCTP(b, p, to)
	case o.NeedsChecksum && (!covers || int(o.ChecksumStart) != p.L4 || int(o.ChecksumOffset) != at):
		return DropOffload
	}
	addrs := setAddrs(b, p.Version, &p.Flow, to)
	if later {
		p.Flow = *to
		return Kept
	}
	l4 := b[p.L4:p.Len]
	var ports uint16
	if p.HasFlow {
		ports = setPorts(l4, &p.Flow, to)
	}
	p.Flow = *to
	switch {
	case p.Proto == ICMP:
		adjust(l4[2:], ports) // no pseudo-header
	case !covers:
	case o.NeedsChecksum:
		binary.BigEndian.PutUint16(l4[at:], addSum(binary.BigEndian.Uint16(l4[at:]), addrs))
	default:
		adjustTransport(l4[at:], p.Proto, addSum(addrs, ports))
	}
	return Kept
}

// sctpChecksum is where the checksum lies in SCTP's common header (RFC 9260, section 3.1).
const sctpChecksum = 8

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	noSum      [4]byte
)

// translateSCTP is Translate where ports change. A checksum of zero that is not right says that there is none (RFC 9653).
func translateSCTP(b []byte, p *Parsed, to *Flow) DropReason {
	if p.Fragment {
		return DropTranslate
	}
	l4 := b[p.L4:p.Len]
	was := binary.LittleEndian.Uint32(l4[sctpChecksum:])
	right := was == sctpSum(l4)
	if !right && was != 0 {
		return DropChecksum
	}
	setAddrs(b, p.Version, &p.Flow, to)
	setPorts(l4, &p.Flow, to)
	p.Flow = *to
	if right {
		binary.LittleEndian.PutUint32(l4[sctpChecksum:], sctpSum(l4))
	}
	return Kept
}

// sctpSum returns the CRC32c of an SCTP packet, its checksum field taken as zero.
func sctpSum(l4 []byte) uint32 {
	sum := crc32.Update(0, castagnoli, l4[:sctpChecksum])
	sum = crc32.Update(sum, castagnoli, noSum[:])
	return crc32.Update(sum, castagnoli, l4[sctpChecksum+4:])
}

// setAddrs writes the addresses of flow to into the IP header at b, which has those of flow from, keeps an IPv4 header's checksum
// right, and returns by how much the sum of the addresses grew. Sums are taken of words as long as there are (RFC 1071, section
// 2): a packet costs a few nanoseconds.
func setAddrs(b []byte, version uint8, from, to *Flow) (change uint16) {
	if version == 4 {
		acc := uint64(^uint32(from.src[1])) + uint64(^uint32(from.dst[1])) + to.src[1]&0xffffffff + to.dst[1]&0xffffffff
		change = fold(acc)
		h := b[:ipv4MinLen]
		binary.BigEndian.PutUint32(h[12:], uint32(to.src[1]))
		binary.BigEndian.PutUint32(h[16:], uint32(to.dst[1]))
		adjust(h[10:], change)
		return change
	}
	h := b[:ipv6Len]
	binary.BigEndian.PutUint64(h[8:], to.src[0])
	binary.BigEndian.PutUint64(h[16:], to.src[1])
	binary.BigEndian.PutUint64(h[24:], to.dst[0])
	binary.BigEndian.PutUint64(h[32:], to.dst[1])
	acc, c := bits.Add64(^from.src[0], ^from.src[1], 0)
	for _, word := range [...]uint64{^from.dst[0], ^from.dst[1], to.src[0], to.src[1], to.dst[0], to.dst[1], 0} {
		acc, c = bits.Add64(acc, word, c)
	}
	return fold(acc)
}

// setPorts writes the ports of flow to into a transport header that has those of flow from, the identifier into that of an echo,
// and returns by how much their sum grew. Protocols without ports are left alone.
func setPorts(l4 []byte, from, to *Flow) (change uint16) {
	src, dst := to.SrcPort(), to.DstPort()
	switch to.Proto() {
	case TCP, UDP, SCTP:
		_ = l4[3]
		binary.BigEndian.PutUint16(l4, src)
		binary.BigEndian.PutUint16(l4[2:], dst)
		return fold(uint64(^from.SrcPort()) + uint64(^from.DstPort()) + uint64(src) + uint64(dst))
	case ICMP, ICMPv6:
		binary.BigEndian.PutUint16(l4[4:], src)
		return addSum(^from.SrcPort(), src)
	}
	return 0
}

// adjust keeps the checksum that starts field right after the sum of what it covers grew by change (RFC 1624, equation 3).
func adjust(field []byte, change uint16) {
	binary.BigEndian.PutUint16(field, ^addSum(^binary.BigEndian.Uint16(field), change))
}

// Adjust keeps the checksum that starts field right after one 16-bit word of what it covers changed.
func Adjust(field []byte, was, now uint16) { adjust(field, addSum(^was, now)) }

// adjustTransport is adjust for a transport checksum: one of UDP that says that there is none stays so, and none becomes so
// (RFC 768).
func adjustTransport(field []byte, proto Proto, change uint16) {
	if proto != UDP {
		adjust(field, change)
		return
	}
	if binary.BigEndian.Uint16(field) == 0 {
		return
	}
	adjust(field, change)
	if binary.BigEndian.Uint16(field) == 0 {
		binary.BigEndian.PutUint16(field, 0xffff)
	}
}
