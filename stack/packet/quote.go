package packet

import "encoding/binary"

// Quote is the packet that an ICMP error quotes, as far as it names a conversation.
type Quote struct {
	// Flow is that of the quoted packet, as it travelled.
	Flow    Flow
	version uint8
	at, l4  int // where its headers start, in bytes from the start of the packet that quotes
}

// quotes reports whether an ICMP message of a kind quotes the packet that it is about (RFC 792; RFC 4443, section 2.1).
// Redirects do too, but concern a link and are not routed.
func quotes(p *Parsed, kind byte) bool {
	if p.Proto == ICMPv6 {
		return kind >= 1 && kind <= 4
	}
	return p.Proto == ICMP && (kind == 3 || kind == 4 || kind == 11 || kind == 12)
}

// ParseQuote reads into q what ICMP error b, whose headers are p, quotes. It is false for other packets, and where the
// quoted one is cut off before its ports, is a piece that has none, does not parse, or did not come from where the error
// goes. It never allocates.
func ParseQuote(b []byte, p *Parsed, q *Quote) bool {
	if p.Fragment || p.HasFlow || p.Proto != ICMP && p.Proto != ICMPv6 || p.Len < p.L4+icmpLen || !quotes(p, b[p.L4]) {
		return false
	}
	*q = Quote{version: p.Version, at: p.L4 + icmpLen}
	var inner Parsed
	if ParseQuoted(b[q.at:p.Len], &inner) != Kept || inner.Version != p.Version || !inner.HasFlow || inner.Flow.src != p.Flow.dst {
		return false
	}
	q.Flow, q.l4 = inner.Flow, q.at+inner.L4
	return true
}

// TranslateQuote makes ICMP error b, which quotes a packet of flow q.Flow, one that quotes the same packet as it was before
// (or after) translation, of flow to: in the quoted headers, with their checksums, and in its own addresses where they are
// an end of the flow. A router in the middle keeps its own address. An error whose checksum is wrong is not kept.
// Preconditions: ParseQuote filled q from b and p, and nothing of the packet is unfinished.
func TranslateQuote(b []byte, p *Parsed, q *Quote, to *Flow) DropReason {
	if !TransportChecksumOK(b, p) {
		return DropChecksum // a new one would make it right
	}
	addrs := setAddrs(b[q.at:], q.version, &q.Flow, to)
	l4 := b[q.l4:p.Len]
	ports := setPorts(l4, &q.Flow, to)
	at, covers := checksumOffset(to.Proto())
	switch {
	case to.Proto() == ICMP:
		adjust(l4[2:], ports)
	case covers && len(l4) >= at+2:
		adjustTransport(l4[at:], to.Proto(), addSum(addrs, ports))
	}
	outer := p.Flow
	if outer.src == q.Flow.dst {
		outer.src = to.dst
	}
	if outer.dst == q.Flow.src {
		outer.dst = to.src
	}
	setAddrs(b, p.Version, &p.Flow, &outer)
	p.Flow = outer
	message := b[p.L4:p.Len]
	binary.BigEndian.PutUint16(message[2:], 0)
	var sum uint16
	if p.Version == 6 {
		sum = PseudoSum(b, p, len(message))
	}
	binary.BigEndian.PutUint16(message[2:], ^Checksum(message, sum))
	return Kept
}
