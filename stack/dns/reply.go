package dns

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
)

// Sections of a message in which records are counted, as indices.
const (
	inAnswer = iota
	inAuthority
	inAdditional
)

// optLen is the length of an OPT record without options.
const optLen = 11

// toQuestion is the compressed form of the question's name: a pointer to the byte behind the header.
const toQuestion = headerLen

// fixedLen is what a record has in front of its data: pointer, type, class, time to live, length (RFC 1035, section 4.1.3).
const fixedLen = 12

// reply writes an answer to a query into a caller's buffer, record by record, as far as there is room. A record is written in whole or
// not at all.
type reply struct {
	q      *query
	b      []byte // what may be written, room for the OPT record left out
	all    []byte // b and the OPT record's room
	n      int
	counts [3]uint16
	full   bool // a record of the answer did not fit
	ttl    uint32
	alias  int    // where the name stands that an alias leads to, out of the zone
	known  *known // what was asked upstream; nil on the way that does not wait
}

// known is what the questions that an answer needs have brought so far.
type known struct {
	entries []*entry
	missing name // what is to be asked next
}

// newReply begins an answer: the header, to be finished, and the question as it was asked, its case kept.
func newReply(q *query, out, msg []byte, limit int) reply {
	r := reply{q: q, all: out[:limit], b: out[:limit]}
	if q.edns {
		r.b = out[:limit-optLen]
	}
	r.n = copy(r.b, msg[:q.end])
	return r
}

// rewind takes all records back.
func (r *reply) rewind() { r.n, r.counts, r.full, r.alias = r.q.end, [3]uint16{}, false, 0 }

// finish writes header and OPT record and returns the length of the message.
func (r *reply) finish(code RCode, flags uint16) int {
	flags |= bitQR | bitRA | r.q.flags&(bitRD|bitCD) | uint16(code&rcodeMask)
	if r.full {
		flags |= bitTC
	}
	h := r.all[:headerLen]
	binary.BigEndian.PutUint16(h[2:], flags)
	for i, n := range r.counts {
		binary.BigEndian.PutUint16(h[6+2*i:], n)
	}
	if r.q.edns {
		r.writeOPT(code)
		binary.BigEndian.PutUint16(h[10:], r.counts[inAdditional]+1)
	}
	return r.n
}

// writeOPT writes the OPT record, whose room was left (RFC 6891, section 6.1.2).
func (r *reply) writeOPT(code RCode) {
	o := r.all[r.n : r.n+optLen]
	clear(o)
	binary.BigEndian.PutUint16(o[1:], typeOPT)
	binary.BigEndian.PutUint16(o[3:], MaxUDP)
	o[5] = byte(code >> 4)
	if r.q.dnssecOK {
		o[7] = 0x80
	}
	r.n += optLen
}

// bare writes an answer without a question, for messages in which none was found. out has room for a header.
func bare(out, msg []byte, code RCode) int {
	h := out[:headerLen]
	copy(h, msg[:2])
	flags := binary.BigEndian.Uint16(msg[2:])&(opcodeMask|bitRD) | bitQR | uint16(code)
	binary.BigEndian.PutUint16(h[2:], flags)
	clear(h[4:])
	return headerLen
}

// room makes a record of the given owner (an offset in the message), type and length of data, and returns its data to be written; nil
// if it does not fit.
func (r *reply) room(section int, owner int, rtype uint16, size int) []byte {
	if r.n+fixedLen+size > len(r.b) || owner >= 1<<14 {
		r.full = r.full || section == inAnswer
		return nil
	}
	h := r.b[r.n : r.n+fixedLen]
	binary.BigEndian.PutUint16(h, 0xC000|uint16(owner))
	binary.BigEndian.PutUint16(h[2:], rtype)
	binary.BigEndian.PutUint16(h[4:], classIN)
	binary.BigEndian.PutUint32(h[6:], r.ttl)
	binary.BigEndian.PutUint16(h[10:], uint16(size))
	data := r.b[r.n+fixedLen : r.n+fixedLen+size]
	r.n += fixedLen + size
	r.counts[section]++
	return data
}

// address writes an A or AAAA record.
func (r *reply) address(section, owner int, a netip.Addr) {
	if a.Is4() {
		b := a.As4()
		copy(r.room(section, owner, typeA, len(b)), b[:])
		return
	}
	b := a.As16()
	copy(r.room(section, owner, typeAAAA, len(b)), b[:])
}

// hasAddr reports whether the answer has the record of an address.
func (r *reply) hasAddr(a netip.Addr) bool {
	if a.Is4() {
		b := a.As4()
		return r.has(typeA, b[:])
	}
	b := a.As16()
	return r.has(typeAAAA, b[:])
}

// has reports whether the answer has a record of the type and data. Owners do not matter: a type has one in all that is compared.
func (r *reply) has(rtype uint16, data []byte) bool {
	for off := r.q.end; off < r.n; {
		h := r.b[off : off+fixedLen]
		next := off + fixedLen + int(binary.BigEndian.Uint16(h[10:]))
		if binary.BigEndian.Uint16(h[2:]) == rtype && bytes.Equal(r.b[off+fixedLen:next], data) {
			return true
		}
		off = next
	}
	return false
}

// addresses writes A or AAAA records in random order. If not all of them fit, those are written that stand behind a random one, so that
// all have their turn.
func addresses[T [4]byte | [16]byte](r *reply, section, owner int, rtype uint16, addrs []T) {
	if len(addrs) == 0 {
		return
	}
	at := 0
	if len(addrs) > 1 {
		at = rand.IntN(len(addrs))
	}
	begin, written := r.n, 0
	for range addrs {
		a := addrs[at]
		data := r.room(section, owner, rtype, len(a))
		if data == nil {
			break
		}
		for i := range data {
			data[i] = a[i]
		}
		written++
		if at++; at == len(addrs) {
			at = 0
		}
	}
	shuffle(r.b[begin:r.n], written)
}

// shuffle puts n records of equal length into random order.
func shuffle(b []byte, n int) {
	if n < 3 {
		return // the first one was random already
	}
	size := len(b) / n
	var spare [32]byte
	for i := n - 1; i > 0; i-- {
		j := rand.IntN(i + 1)
		x, y := b[i*size:(i+1)*size], b[j*size:(j+1)*size]
		copy(spare[:], x)
		copy(x, y)
		copy(y, spare[:size])
	}
}
