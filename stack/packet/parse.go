package packet

import "encoding/binary"

// Parsed is what the node's decisions need of a packet's headers. It is filled by Parse and holds no reference to the
// packet; it stays true while only TTL and checksums are edited.
type Parsed struct {
	// Version is 4 or 6.
	Version uint8
	// Proto is the transport protocol, after any IPv6 extension headers.
	Proto Proto
	// TTL is the time to live or hop limit.
	TTL uint8
	// Flags are the TCP flags; valid iff Proto is TCP, and 0 in a fragment that is not the first.
	Flags uint8
	// Fragment is true for every piece of a fragmented packet, the first included.
	Fragment bool
	// MoreFragments says that the fragment is not the packet's last. Valid iff Fragment.
	MoreFragments bool
	// HasFlow is true iff Flow names a conversation: not for ICMP other than echo, nor for a fragment that is not the first,
	// until somebody tells what the first one said (package stack/fragment).
	HasFlow bool
	// FragmentOffset is where a fragment's bytes belong in its packet, behind the headers that every fragment has, in bytes;
	// 0 in the first. Valid iff Fragment.
	FragmentOffset uint16
	// FragmentID is what the fragments of a packet have in common, see PacketID. Valid iff Fragment.
	FragmentID uint32
	// L4 is where the transport header starts, in bytes from the start of the packet; the bytes of a fragment that is not the
	// first.
	L4 int
	// Piece is where a fragment's bytes start. Valid iff Fragment.
	Piece int
	// Payload is where the transport payload starts. Valid iff Proto is TCP or UDP and Fragment is false.
	Payload int
	// Len is the length of the packet by its IP header, in bytes; bytes after it are padding.
	Len int
	// Flow holds addresses and protocol of every packet; its ports are 0 unless HasFlow.
	Flow Flow
}

// Header lengths in bytes.
const (
	ipv4MinLen = 20
	ipv6Len    = 40
	tcpMinLen  = 20
	udpLen     = 8
	icmpLen    = 8
	sctpLen    = 12
)

// maxExtensions bounds the IPv6 extension headers of a packet: more than a handful is an attack (RFC 9098).
const maxExtensions = 8

// Parse reads the headers of the IP packet that starts b into p. It never allocates and fails closed: whatever is cut
// off, contradicts itself, or cannot be walked to its transport header is not kept. Sources: RFC 791, RFC 8200, RFC 9293,
// RFC 768, RFC 792, RFC 4443, RFC 9260.
func Parse(b []byte, p *Parsed) DropReason {
	*p = Parsed{}
	if len(b) == 0 {
		return DropMalformed
	}
	switch b[0] >> 4 {
	case 4:
		return parse4(b, p)
	case 6:
		return parse6(b, p)
	}
	return DropMalformed
}

// mappedHi and mappedLo are the constant bits of an IPv4-mapped IPv6 address, ::ffff:0:0/96.
const (
	mappedHi = 0
	mappedLo = 0xffff << 32
)

func parse4(b []byte, p *Parsed) DropReason {
	if len(b) < ipv4MinLen {
		return DropMalformed
	}
	head, total := int(b[0]&0xf)*4, int(binary.BigEndian.Uint16(b[2:]))
	if head < ipv4MinLen || total < head || total > len(b) {
		return DropMalformed
	}
	if Checksum(b[:head], 0) != 0xffff {
		return DropChecksum // RFC 1812, section 5.2.2
	}
	if head > ipv4MinLen && sourceRouted(b[ipv4MinLen:head]) {
		return DropSourceRoute
	}
	p.Version, p.TTL, p.Proto = 4, b[8], Proto(b[9])
	p.L4, p.Len = head, total
	p.Flow.src = [2]uint64{mappedHi, mappedLo | uint64(binary.BigEndian.Uint32(b[12:]))}
	p.Flow.dst = [2]uint64{mappedHi, mappedLo | uint64(binary.BigEndian.Uint32(b[16:]))}
	p.Flow.ports = uint64(p.Proto)
	if p.setFragment4(b, head) {
		return parseFragment(b, p)
	}
	return parseTransport(b, p)
}

// Types of IPv4 options.
const (
	optionEnd    = 0
	optionNone   = 1
	optionLoose  = 131 // source route
	optionStrict = 137
	optionCopied = 0x80 // in every fragment
)

// sourceRouted reports whether an option says by which hosts a packet shall go, past what the node decides about its addresses.
func sourceRouted(options []byte) bool {
	for len(options) > 0 {
		n := optionLen(options)
		if n == 0 {
			return false
		}
		if options[0] == optionLoose || options[0] == optionStrict {
			return true
		}
		options = options[n:]
	}
	return false
}

// optionLen returns the length of the first of the options, in bytes, or 0 where they end or cannot be read.
func optionLen(options []byte) int {
	switch {
	case options[0] == optionEnd:
		return 0
	case options[0] == optionNone:
		return 1
	case len(options) < 2 || options[1] < 2 || int(options[1]) > len(options):
		return 0
	}
	return int(options[1])
}

func parse6(b []byte, p *Parsed) DropReason {
	if len(b) < ipv6Len {
		return DropMalformed
	}
	total := ipv6Len + int(binary.BigEndian.Uint16(b[4:]))
	if total > len(b) {
		return DropMalformed // also a jumbogram (RFC 2675), whose payload length is zero
	}
	p.Version, p.TTL, p.Len = 6, b[7], total
	p.Flow.src = [2]uint64{binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:])}
	p.Flow.dst = [2]uint64{binary.BigEndian.Uint64(b[24:]), binary.BigEndian.Uint64(b[32:])}
	if mapped(p.Flow.src) || mapped(p.Flow.dst) {
		return DropMalformed // would name an IPv4 flow (RFC 4942, section 2.2)
	}
	if !walkExtensions(b, p) {
		return DropMalformed
	}
	p.Flow.ports = uint64(p.Proto)
	if p.Fragment {
		return parseFragment(b, p)
	}
	return parseTransport(b, p)
}

func mapped(a [2]uint64) bool { return a[0] == mappedHi && a[1]&^0xffffffff == mappedLo }

// walkExtensions finds the transport header of an IPv6 packet (RFC 8200, section 4). A packet's first fragment has to hold
// all of its headers (RFC 7112); in a later one it stops behind the fragment header, and Proto is the header named there.
func walkExtensions(b []byte, p *Parsed) bool {
	next, at := Proto(b[6]), ipv6Len
	for range maxExtensions + 1 { // the last time for what follows them
		switch next {
		case HopByHop, Routing, DestOptions:
			if at+8 > p.Len {
				return false
			}
			next, at = Proto(b[at]), at+8+int(b[at+1])*8
		case AH:
			if at+8 > p.Len {
				return false
			}
			next, at = Proto(b[at]), at+8+int(b[at+1])*4 // RFC 4302: in 4-byte units, minus 2
		case FragmentHdr:
			if at+8 > p.Len {
				return false
			}
			if p.Fragment {
				return false // a fragment of a fragment
			}
			field := binary.BigEndian.Uint16(b[at+2:])
			p.Fragment, p.MoreFragments, p.FragmentOffset = true, field&1 != 0, field&^7
			p.FragmentID, p.Piece = binary.BigEndian.Uint32(b[at+4:]), at+8
			next, at = Proto(b[at]), at+8
			if p.FragmentOffset > 0 {
				p.Proto, p.L4 = next, at
				return true
			}
		default:
			p.Proto, p.L4 = next, at
			return at <= p.Len
		}
	}
	return false
}

// parseTransport reads ports and flags of a whole packet or of a first fragment. Preconditions: p.L4 and p.Len are set,
// p.L4 ≤ p.Len.
func parseTransport(b []byte, p *Parsed) DropReason {
	seg := b[p.L4:p.Len]
	if n := transportLen(p.Proto); len(seg) < n {
		if p.Fragment {
			return DropFragment // it hides ports or flags in the next (RFC 1858, section 3)
		}
		return DropMalformed
	}
	switch p.Proto {
	case TCP:
		head := int(seg[12]>>4) * 4
		if head < tcpMinLen || head > len(seg) && !p.Fragment {
			return DropMalformed
		}
		p.Flags, p.Payload = seg[13], p.L4+head
	case UDP:
		// The length may be below the IP payload's (RFC 9868, UDP options), never above it.
		if n := int(binary.BigEndian.Uint16(seg[4:])); n < udpLen || n > len(seg) && !p.Fragment {
			return DropMalformed
		}
		p.Payload = p.L4 + udpLen
	case SCTP:
	case ICMP, ICMPv6:
		return parseICMP(seg, p)
	default:
		p.HasFlow = true
		return Kept
	}
	if p.Fragment {
		p.Payload = 0
	}
	p.HasFlow = true
	p.Flow.ports |= uint64(binary.BigEndian.Uint16(seg))<<32 | uint64(binary.BigEndian.Uint16(seg[2:]))<<16
	return Kept
}

// transportLen returns the length of the part of a transport header that is always there, in bytes.
func transportLen(proto Proto) int {
	switch proto {
	case TCP:
		return tcpMinLen
	case UDP:
		return udpLen
	case SCTP:
		return sctpLen
	case ICMP, ICMPv6:
		return icmpLen
	}
	return 0
}

func parseICMP(seg []byte, p *Parsed) DropReason {
	if (p.Proto == ICMP) != (p.Version == 4) {
		return DropMalformed
	}
	echo4 := p.Proto == ICMP && (seg[0] == 8 || seg[0] == 0)
	echo6 := p.Proto == ICMPv6 && (seg[0] == 128 || seg[0] == 129)
	if echo4 || echo6 {
		id := uint64(binary.BigEndian.Uint16(seg[4:]))
		p.HasFlow = true
		p.Flow.ports |= id<<32 | id<<16
	}
	return Kept
}

// Scope of an address that is not forwarded between pods.
func (p *Parsed) unroutable(a [2]uint64) bool {
	if p.Version == 4 {
		ip := uint32(a[1])
		return ip>>28 >= 0xe || ip>>24 == 127 || ip>>24 == 0 || ip>>16 == 0xa9fe // 224/4, 240/4, 127/8, 0/8, 169.254/16
	}
	return a[0]>>56 == 0xff || a[0]>>54 == 0xfe80>>6 || (a[0] == 0 && a[1] <= 1) // ff00::/8, fe80::/10, ::, ::1
}

// Routable reports whether both addresses may be forwarded: neither is multicast, broadcast, link-local, loopback or
// unspecified (RFC 1812, section 5.3.7; RFC 4291, section 2.5).
func (p *Parsed) Routable() bool { return !p.unroutable(p.Flow.src) && !p.unroutable(p.Flow.dst) }

// RoutableSource reports whether the source names one host that may be answered.
func (p *Parsed) RoutableSource() bool { return !p.unroutable(p.Flow.src) }

// DecrementTTL takes one from the packet's time to live and keeps the IPv4 header checksum right, bit for bit as if it were
// summed anew (RFC 1141, but never 0xffff: RFC 1624, section 3). It reports false, and leaves the packet as it is, if none
// would be left.
func DecrementTTL(b []byte, p *Parsed) bool {
	if p.TTL <= 1 {
		return false
	}
	p.TTL--
	if p.Version == 6 {
		b[7] = p.TTL
		return true
	}
	b[8] = p.TTL
	sum := uint32(binary.BigEndian.Uint16(b[10:])) + 0x100
	binary.BigEndian.PutUint16(b[10:], uint16(sum+(sum+1)>>16))
	return true
}

// SetTTL gives the packet a time to live and keeps the IPv4 header checksum right.
func SetTTL(b []byte, p *Parsed, ttl uint8) {
	p.TTL = ttl
	if p.Version == 6 {
		b[7] = ttl
		return
	}
	was := uint16(b[8]) << 8
	b[8] = ttl
	Adjust(b[10:], was, uint16(ttl)<<8)
}
