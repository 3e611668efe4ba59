package dns

import "encoding/binary"

// The header of a message (RFC 1035, section 4.1.1):
//
//	 0  1  2  3  4  5  6  7  8  9 10 11 12 13 14 15
//	+--+--+--+--+--+--+--+--+--+--+--+--+--+--+--+--+
//	|                      ID                       |
//	|QR|   Opcode  |AA|TC|RD|RA| Z|AD|CD|   RCODE   |
//	|         QDCOUNT, ANCOUNT, NSCOUNT, ARCOUNT    |
//	+--+--+--+--+--+--+--+--+--+--+--+--+--+--+--+--+
const headerLen = 12

// Bits of the header's second 16.
const (
	bitQR = 1 << 15
	bitAA = 1 << 10
	bitTC = 1 << 9
	bitRD = 1 << 8
	bitRA = 1 << 7
	bitAD = 1 << 5
	bitCD = 1 << 4

	opcodeMask = 15 << 11
	rcodeMask  = 15
)

// RCode is a message's response code (RFC 6895, section 2.3).
type RCode uint8

// Response codes. BadVersion needs an OPT record for its upper bits (RFC 6891, section 6.1.3).
const (
	NoError    RCode = 0
	FormErr    RCode = 1
	ServFail   RCode = 2
	NXDomain   RCode = 3
	NotImp     RCode = 4
	Refused    RCode = 5
	BadVersion RCode = 16
)

// Types that are treated apart (IANA, "Domain Name System (DNS) Parameters").
const (
	typeA     = 1
	typeNS    = 2
	typeCNAME = 5
	typeSOA   = 6
	typePTR   = 12
	typeHINFO = 13
	typeTXT   = 16
	typeAAAA  = 28
	typeSRV   = 33
	typeOPT   = 41
	typeIXFR  = 251
	typeAXFR  = 252
	typeANY   = 255

	classIN = 1
)

// Sizes of messages over UDP, in bytes.
const (
	// plainUDP is what a client without EDNS takes (RFC 1035, section 4.2.1).
	plainUDP = 512
	// MaxUDP is the largest answer over UDP: it fits into one packet of IPv6's least MTU, as resolvers agreed on in 2020 (DNS flag day).
	MaxUDP = 1232
	// maxTCP is what the length in front of a message over TCP can say.
	maxTCP = 65535
)

// query is a query as read. Its name's spelling is in the message itself.
type query struct {
	name  name
	qtype uint16
	end   int // where the question ends in the message
	flags uint16

	edns     bool
	version  uint8
	size     int // bytes that the client takes over UDP
	dnssecOK bool
}

// verdict says what to do with a message.
type verdict uint8

const (
	ask       verdict = iota // a query to be answered
	silence                  // no query: an answer to it could begin a loop
	malformed                // FormErr
	foreign                  // NotImp: another opcode
	refuse                   // Refused
	tooNew                   // BadVersion
)

// read reads a query. If the verdict is malformed or foreign, its question is not there.
func (q *query) read(msg []byte) verdict {
	if len(msg) < headerLen {
		return silence
	}
	q.flags = binary.BigEndian.Uint16(msg[2:])
	if q.flags&bitQR != 0 {
		return silence
	}
	if q.flags&opcodeMask != 0 {
		return foreign
	}
	if binary.BigEndian.Uint16(msg[4:]) != 1 { // RFC 9619
		return malformed
	}
	end, ok := q.name.read(msg, headerLen)
	if !ok || end+4 > len(msg) {
		return malformed
	}
	q.qtype = binary.BigEndian.Uint16(msg[end:])
	q.end = end + 4
	q.size = plainUDP
	if !q.readRecords(msg) || q.qtype == typeOPT {
		return malformed
	}
	switch class := binary.BigEndian.Uint16(msg[end+2:]); {
	case q.version != 0:
		return tooNew
	case class != classIN, q.qtype == typeAXFR, q.qtype == typeIXFR:
		return refuse
	}
	return ask
}

// readRecords walks what follows the question, to find the OPT record (RFC 6891, section 6.1.2).
func (q *query) readRecords(msg []byte) bool {
	n := 0
	for i := 6; i < headerLen; i += 2 {
		n += int(binary.BigEndian.Uint16(msg[i:]))
	}
	off := q.end
	for range n {
		start := off
		off = skipName(msg, off)
		if off < 0 || off+10 > len(msg) {
			return false
		}
		rdata := off + 10
		next := rdata + int(binary.BigEndian.Uint16(msg[off+8:]))
		if next > len(msg) {
			return false
		}
		if binary.BigEndian.Uint16(msg[off:]) == typeOPT {
			if q.edns || msg[start] != 0 {
				return false
			}
			q.edns = true
			q.size = max(plainUDP, int(binary.BigEndian.Uint16(msg[off+2:])))
			q.version = msg[off+5]
			q.dnssecOK = msg[off+6]&0x80 != 0
		}
		off = next
	}
	return true
}

// skipName returns where the name at off ends, or -1.
func skipName(msg []byte, off int) int {
	for off < len(msg) {
		switch l := int(msg[off]); {
		case l == 0:
			return off + 1
		case l >= 0xC0:
			return off + 2
		case l > maxLabel:
			return -1
		default:
			off += 1 + l
		}
	}
	return -1
}

// limit returns the size that an answer may have.
func (q *query) limit(out []byte, tcp bool) int {
	if tcp {
		return min(len(out), maxTCP)
	}
	return min(len(out), q.size, MaxUDP)
}
