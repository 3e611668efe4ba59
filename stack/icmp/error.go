// Package icmp makes the errors by which a router tells a packet's source why the packet did not get further:
// pure functions over bytes, for ICMP (RFC 792, RFC 1191, RFC 1812) and ICMPv6 (RFC 4443) alike.
//
// The stack asks MayAnswer and a Limit before it builds an error, and sends it like any packet of the node's own.
package icmp

import (
	"encoding/binary"
	"net/netip"

	"github.com/middleway-net/middleway/stack/packet"
)

// Kind is what an error says.
type Kind uint8

// Kinds of errors.
const (
	TimeExceeded    Kind = iota + 1 // time to live used up
	NetUnreachable                  // no route
	HostUnreachable                 // the destination's network is here, the destination is not
	Prohibited                      // forbidden by a rule
	TooBig                          // larger than the way takes
	PortUnreachable                 // the address is there, and nothing at that port
)

var kindNames = [...]string{
	TimeExceeded: "time exceeded", NetUnreachable: "net unreachable", HostUnreachable: "host unreachable", Prohibited: "prohibited", TooBig: "too big",
	PortUnreachable: "port unreachable",
}

// String returns what the error says.
func (k Kind) String() string {
	if k == 0 || int(k) >= len(kindNames) {
		return "unknown"
	}
	return kindNames[k]
}

// Error is what a packet's source is told.
type Error struct {
	Kind Kind
	// MTU is the largest packet that the way takes, in bytes, IP header included. Valid iff Kind is TooBig.
	MTU int
}

// messages are the types and codes of both families.
var messages = [...]struct{ type4, code4, type6, code6 uint8 }{
	TimeExceeded:    {11, 0, 3, 0},
	NetUnreachable:  {3, 0, 1, 0},
	HostUnreachable: {3, 1, 1, 3},
	Prohibited:      {3, 13, 1, 1},
	TooBig:          {3, 4, 2, 0},
	PortUnreachable: {3, 3, 1, 4},
}

// MaxLen is the most bytes that an error takes.
const MaxLen = maxLen6

// Lengths in bytes. An error is never larger than what every host takes without fragmentation, and quotes as much of the
// packet as fits (RFC 1812, section 4.3.2.3; RFC 4443, section 2.4(c)).
const (
	maxLen4   = 576
	maxLen6   = 1280
	header4   = 20
	header6   = 40
	headerLen = 8 // of the message, before what it quotes
)

// Fields of the error's own IP header: the default time to live, and the precedence that routers give to errors (RFC 1812,
// section 4.3.2.5: internetwork control).
const (
	hopLimit   = 64
	precedence = 0xc0
)

// Build writes the error about a packet into dst, which has at least MaxLen bytes, and returns its length. The packet, whose
// headers are p, is given as it lay on the wire, in two parts, the first of which holds the headers; from is the router's
// address, of the packet's family. Precondition: MayAnswer.
func (e Error) Build(dst []byte, from netip.Addr, p *packet.Parsed, head, rest []byte) int {
	to := p.Flow.Src()
	if p.Version == 4 {
		return e.build4(dst[:maxLen4], from.As4(), to.As4(), head, rest)
	}
	return e.build6(dst[:maxLen6], from.As16(), to.As16(), head, rest)
}

// build4 writes
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+---------------+---------------+-------------------------------+
//	|     Type      |     Code      |           Checksum            |
//	+---------------+---------------+-------------------------------+
//	|            unused             |   next-hop MTU (RFC 1191)     |
//	+-------------------------------+-------------------------------+
//	|      IP header and as much of its payload as fits             |
//
// behind an IPv4 header that may not be fragmented and so needs no ID (RFC 6864).
func (e Error) build4(dst []byte, from, to [4]byte, head, rest []byte) int {
	message := dst[header4:]
	n := headerLen + quote(message[headerLen:], head, rest)
	m := &messages[e.Kind]
	message[0], message[1] = m.type4, m.code4
	binary.BigEndian.PutUint16(message[2:], 0)
	binary.BigEndian.PutUint32(message[4:], 0)
	if e.Kind == TooBig {
		binary.BigEndian.PutUint16(message[6:], uint16(min(e.MTU, packet.MaxSize)))
	}
	binary.BigEndian.PutUint16(message[2:], ^packet.Checksum(message[:n], 0))

	clear(dst[:header4])
	dst[0], dst[1] = 4<<4|header4/4, precedence
	binary.BigEndian.PutUint16(dst[2:], uint16(header4+n))
	dst[6], dst[8], dst[9] = 0x40, hopLimit, byte(packet.ICMP)
	copy(dst[12:], from[:])
	copy(dst[16:], to[:])
	binary.BigEndian.PutUint16(dst[10:], ^packet.Checksum(dst[:header4], 0))
	return header4 + n
}

// build6 writes the message of RFC 4443, section 3, whose second word is the MTU, or 0.
func (e Error) build6(dst []byte, from, to [16]byte, head, rest []byte) int {
	message := dst[header6:]
	n := headerLen + quote(message[headerLen:], head, rest)
	m := &messages[e.Kind]
	message[0], message[1] = m.type6, m.code6
	binary.BigEndian.PutUint16(message[2:], 0)
	binary.BigEndian.PutUint32(message[4:], 0)
	if e.Kind == TooBig {
		binary.BigEndian.PutUint32(message[4:], uint32(e.MTU))
	}

	clear(dst[:8])
	dst[0], dst[6], dst[7] = 6<<4, byte(packet.ICMPv6), hopLimit
	binary.BigEndian.PutUint16(dst[4:], uint16(n))
	copy(dst[8:], from[:])
	copy(dst[24:], to[:])
	answer := packet.Parsed{Version: 6, Proto: packet.ICMPv6}
	binary.BigEndian.PutUint16(message[2:], ^packet.Checksum(message[:n], packet.PseudoSum(dst, &answer, n)))
	return header6 + n
}

// quote copies as much of a packet as dst takes.
func quote(dst, head, rest []byte) int {
	n := copy(dst, head)
	return n + copy(dst[n:], rest)
}

// MayAnswer reports whether the source of packet b may be told an error: never about an ICMP error, nor to or about an
// address that does not name one host, nor, over IPv4, about a later fragment (RFC 1122, section 3.2.2; RFC 1812, section
// 4.3.2.7; RFC 4443, section 2.4(e), which allows only packet too big about multicasts).
func MayAnswer(b []byte, p *packet.Parsed, kind Kind) bool {
	if !p.RoutableSource() {
		return false
	}
	if !p.Routable() && (p.Version == 4 || kind != TooBig || !p.Flow.Dst().IsMulticast()) {
		return false
	}
	later := p.Fragment && p.FragmentOffset > 0
	switch p.Proto {
	case packet.ICMP:
		return !later && asks4(b[p.L4])
	case packet.ICMPv6:
		return !later && b[p.L4] >= 128 && b[p.L4] != redirect6 // below: errors
	}
	return !later || p.Version == 6
}

// redirect6 is the type of an ICMPv6 message that RFC 4443 counts with the errors.
const redirect6 = 137

// asks4 reports whether an ICMP type is a query or its reply; whatever else is taken for an error.
func asks4(kind uint8) bool {
	switch kind {
	case 0, 8, 9, 10, 13, 14, 15, 16, 17, 18: // echo, router, timestamp, information, address mask
		return true
	}
	return false
}
