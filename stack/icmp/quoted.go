package icmp

import (
	"encoding/binary"

	"github.com/middleway-net/middleway/stack/packet"
)

// Quoted is an ICMP error that was received, and the packet that it is about.
type Quoted struct {
	// Type and Code are the message's, of its family.
	Type, Code uint8
	// MTU is the largest packet that the way takes, in bytes; 0 unless the error is fragmentation needed or packet too big,
	// and where a router from before RFC 1191 did not tell.
	MTU int
	// At is where the quoted packet starts in the error, in bytes.
	At int
	// Parsed are the quoted packet's headers, as packet.ParseQuoted reads them: offsets count from At, Len is how much was
	// quoted.
	packet.Parsed
}

// Types of errors that quote a packet.
const (
	unreachable4 = 3
	quench4      = 4 // deprecated (RFC 6633)
	redirect4    = 5
	exceeded4    = 11
	parameter4   = 12

	unreachable6 = 1
	tooBig6      = 2
	exceeded6    = 3
	parameter6   = 4
)

// fragmentationNeeded is the code of unreachable4 that tells an MTU.
const fragmentationNeeded = 4

// Decode reads the ICMP error b, whose headers are p, and what it quotes. It fails closed: for other packets, a wrong checksum,
// a quote without a whole IP header, and one of a packet that did not come from where the error goes.
func (q *Quoted) Decode(b []byte, p *packet.Parsed) bool {
	*q = Quoted{}
	if p.Fragment || p.Proto != packet.ICMP && p.Proto != packet.ICMPv6 || p.L4+headerLen > p.Len {
		return false
	}
	message := b[p.L4:p.Len]
	length, ok := q.header(message, p.Version)
	if !ok || !packet.TransportChecksumOK(b, p) {
		return false
	}
	q.At = p.L4 + headerLen
	quoted := b[q.At:p.Len]
	if length > 0 && length < len(quoted) {
		quoted = quoted[:length] // the rest is extensions (RFC 4884)
	}
	if packet.ParseQuoted(quoted, &q.Parsed) != packet.Kept || q.Version != p.Version {
		return false
	}
	return q.Flow.From(packet.KeyOf(p.Flow.Dst()))
}

// header reads the first words of a message and returns the length of the quote, if it tells one (RFC 4884, section 4).
func (q *Quoted) header(message []byte, version uint8) (length int, ok bool) {
	q.Type, q.Code = message[0], message[1]
	if version == 4 {
		switch q.Type {
		case unreachable4:
			if q.Code == fragmentationNeeded {
				q.MTU = int(binary.BigEndian.Uint16(message[6:]))
			}
			return int(message[5]) * 4, true
		case exceeded4, parameter4:
			return int(message[5]) * 4, true
		case quench4, redirect4:
			return 0, true
		}
		return 0, false
	}
	switch q.Type {
	case tooBig6:
		q.MTU = int(binary.BigEndian.Uint32(message[4:]))
		return 0, true
	case unreachable6, exceeded6:
		return int(message[4]) * 8, true
	case parameter6:
		return 0, true
	}
	return 0, false
}
