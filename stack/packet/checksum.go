package packet

import (
	"encoding/binary"
	"math/bits"
)

// Checksum returns the Internet checksum of b before its inversion (RFC 1071), continuing from initial: the one's
// complement sum of its 16-bit big-endian words, an odd last byte padded with zero. To sum data in parts, each part but
// the last must have an even length.
func Checksum(b []byte, initial uint16) uint16 {
	// The sum is the same in any byte order but for a final swap (RFC 1071, section 2B), so words are added eight bytes at a
	// time in little-endian order.
	acc := uint64(bits.ReverseBytes16(initial))
	var c uint64
	for len(b) >= 64 {
		p := b[:64]
		acc, c = bits.Add64(acc, binary.LittleEndian.Uint64(p[0:]), 0)
		acc, c = bits.Add64(acc, binary.LittleEndian.Uint64(p[8:]), c)
		acc, c = bits.Add64(acc, binary.LittleEndian.Uint64(p[16:]), c)
		acc, c = bits.Add64(acc, binary.LittleEndian.Uint64(p[24:]), c)
		acc, c = bits.Add64(acc, binary.LittleEndian.Uint64(p[32:]), c)
		acc, c = bits.Add64(acc, binary.LittleEndian.Uint64(p[40:]), c)
		acc, c = bits.Add64(acc, binary.LittleEndian.Uint64(p[48:]), c)
		acc, c = bits.Add64(acc, binary.LittleEndian.Uint64(p[56:]), c)
		acc, _ = bits.Add64(acc, 0, c)
		b = b[64:]
	}
	c = 0
	for len(b) >= 8 {
		acc, c = bits.Add64(acc, binary.LittleEndian.Uint64(b), c)
		b = b[8:]
	}
	if len(b) > 0 {
		acc, c = bits.Add64(acc, lastWord(b), c)
	}
	acc, c = bits.Add64(acc, 0, c)
	return bits.ReverseBytes16(fold(acc + c))
}

// lastWord returns up to seven bytes as one little-endian word. The header of an IPv4 packet ends with four.
func lastWord(b []byte) (w uint64) {
	if n := len(b); n&1 != 0 {
		w = uint64(b[n-1])
		b = b[:n-1]
	}
	if n := len(b); n&2 != 0 {
		w = w<<16 | uint64(binary.LittleEndian.Uint16(b[n-2:]))
		b = b[:n-2]
	}
	if len(b) >= 4 {
		w = w<<32 | uint64(binary.LittleEndian.Uint32(b))
	}
	return w
}

// fold reduces a one's complement sum of 64 bits to 16.
func fold(acc uint64) uint16 {
	acc = acc>>32 + acc&0xffffffff
	acc = acc>>32 + acc&0xffffffff
	acc = acc>>16 + acc&0xffff
	acc = acc>>16 + acc&0xffff
	return uint16(acc)
}

// addSum adds two one's complement sums.
func addSum(a, b uint16) uint16 {
	s := uint32(a) + uint32(b)
	return uint16(s + s>>16)
}

// PseudoSum returns the sum of the pseudo-header (RFC 9293, section 3.1; RFC 8200, section 8.1) of a transport segment of
// length bytes in packet b. It is what a device that offloads the checksum leaves in the checksum field.
func PseudoSum(b []byte, p *Parsed, length int) uint16 {
	var addrs []byte
	if p.Version == 4 {
		addrs = b[12:20]
	} else {
		addrs = b[8:40]
	}
	sum := addSum(uint16(p.Proto), uint16(length))
	if length > 0xffff {
		sum = addSum(sum, uint16(length>>16))
	}
	return Checksum(addrs, sum)
}

// checksumOffset returns where the transport header's checksum lies, in bytes from its start, and whether proto has one
// that covers the pseudo-header.
func checksumOffset(proto Proto) (int, bool) {
	switch proto {
	case TCP:
		return 16, true
	case UDP:
		return 6, true
	case ICMPv6:
		return 2, true
	}
	return 0, false
}

// TransportChecksumOK reports whether the transport checksum of packet b is right. A UDP checksum of zero over IPv4 means
// that there is none, and is right (RFC 768); over IPv6 it is not (RFC 8200, section 8.1). Protocols whose checksum is not
// known here, and fragments, are taken as right.
func TransportChecksumOK(b []byte, p *Parsed) bool {
	if p.Fragment {
		return true
	}
	seg := b[p.L4:p.Len]
	if p.Proto == ICMP {
		return Checksum(seg, 0) == 0xffff
	}
	at, ok := checksumOffset(p.Proto)
	if !ok || len(seg) < at+2 {
		return true
	}
	if p.Proto == UDP {
		if binary.BigEndian.Uint16(seg[at:]) == 0 {
			return p.Version == 4
		}
		seg = seg[:binary.BigEndian.Uint16(seg[4:])] // options behind the datagram have a sum of their own (RFC 9868)
	}
	return Checksum(seg, PseudoSum(b, p, len(seg))) == 0xffff
}

// ChecksumIsPartial reports whether the checksum field of TCP or UDP packet b holds only the pseudo-header's sum: the
// packet was handed over by a kernel on this machine that left the rest to a device which was not there.
func ChecksumIsPartial(b []byte, p *Parsed) bool {
	if p.Fragment || (p.Proto != TCP && p.Proto != UDP) {
		return false
	}
	at, _ := checksumOffset(p.Proto)
	seg := b[p.L4:p.Len]
	if p.Proto == UDP && int(binary.BigEndian.Uint16(seg[4:])) != len(seg) {
		return false // who finishes it sums to the packet's end
	}
	return binary.BigEndian.Uint16(seg[at:]) == PseudoSum(b, p, len(seg))
}

// FinishChecksum completes the checksum that o leaves open in packet b, and clears it in o. Preconditions: o.Check kept b,
// o.GSO is GSONone, and b ends with the packet (p.Len): all of it is summed.
func FinishChecksum(b []byte, o *Offload) {
	if !o.NeedsChecksum {
		return
	}
	at := int(o.ChecksumStart) + int(o.ChecksumOffset)
	sum := ^Checksum(b[o.ChecksumStart:], 0)
	if sum == 0 && o.ChecksumOffset == 6 {
		sum = 0xffff // a UDP checksum of zero would mean "none" (RFC 768)
	}
	binary.BigEndian.PutUint16(b[at:], sum)
	o.NeedsChecksum = false
}
