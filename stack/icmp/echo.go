package icmp

import "github.com/middleway-net/middleway/stack/packet"

// Types of echo messages (RFC 792; RFC 4443, section 4).
const (
	request4, reply4 = 8, 0
	request6, reply6 = 128, 129
)

// IsRequest reports whether packet b, whose headers are p, is an echo request, or a later fragment of an echo, in which no
// type can be seen.
func IsRequest(b []byte, p *packet.Parsed) bool {
	switch {
	case !p.HasFlow:
		return false
	case p.Fragment && p.FragmentOffset > 0:
		return p.Proto == packet.ICMP || p.Proto == packet.ICMPv6
	case p.Proto == packet.ICMP:
		return b[p.L4] == request4
	case p.Proto == packet.ICMPv6:
		return b[p.L4] == request6
	}
	return false
}

// Reply makes echo request b, or a fragment of one, the reply to it, and p its headers. Checksums are kept right by what
// changed. Precondition: IsRequest.
func Reply(b []byte, p *packet.Parsed) {
	back := p.Flow.Reverse() // an echo's ports are both its identifier
	if p.FragmentOffset == 0 {
		from, to := byte(request4), byte(reply4)
		if p.Version == 6 {
			from, to = request6, reply6
		}
		b[p.L4] = to
		packet.Adjust(b[p.L4+2:], uint16(from)<<8, uint16(to)<<8)
	}
	none := packet.Offload{}
	_ = packet.Translate(b, p, &none, &back) // nothing of an echo is open, and its flow can always be turned
	packet.SetTTL(b, p, hopLimit)
}
