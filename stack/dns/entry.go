package dns

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// Bounds of how long an upstream's answer is kept, whatever it says.
const (
	maxPositive = time.Hour
	maxNegative = 5 * time.Minute // RFC 2308, section 5, allows hours; a name that appears should not have to wait
	// failureTTL is how long it is known that nobody could answer (RFC 9520, section 3.2: at least a second).
	failureTTL = time.Second
	// staleTTL is what an answer lives that is given since there is no newer one, and how long no newer one is looked for (RFC 8767,
	// section 5).
	staleTTL = 30 * time.Second
)

// entry is an upstream's answer: its records without the additional ones, as it sent them. It is immutable but for its atomics.
type entry struct {
	key      string
	code     RCode
	verified bool   // the upstream says so: the AD bit
	msg      []byte // header, question, answers, authorities
	first    int    // where records begin
	records  []record
	answers  int      // so many of the records are the answer's
	found    bool     // records of the asked type are among them
	pointers []uint16 // places of compressed names' pointers, ascending

	ttl     time.Duration // 0: it is not kept
	stored  time.Duration // when it came, on the server's clock
	expired time.Duration // when its life ends or ended
	recheck time.Duration // stale ones: when a newer one is looked for again; else 0

	refreshing atomic.Bool
	lateHits   atomic.Int32
}

// record is where a record stands in the message.
type record struct{ start, ttl, end uint16 }

// Errors of upstreams' answers.
var (
	errShort    = errors.New("answer is cut short or garbled")
	errQuestion = errors.New("answer to another question")
	errOwner    = errors.New("answer tells of names that were not asked about")
	errChain    = fmt.Errorf("answer has more than %d aliases", maxUpstreamChain)
)

// maxUpstreamChain bounds the aliases of an upstream's answer: resolvers follow 8 to 16.
const maxUpstreamChain = 16

// parseEntry reads an upstream's answer to the question. What follows the authority section is left out.
func parseEntry(msg []byte, nm *name, qtype uint16) (*entry, error) {
	if len(msg) < headerLen || len(msg) > maxTCP || binary.BigEndian.Uint16(msg[4:]) != 1 {
		return nil, errShort
	}
	var asked name
	end, ok := asked.read(msg, headerLen)
	if !ok || end+4 > len(msg) {
		return nil, errShort
	}
	if !bytes.Equal(asked.wire(), nm.wire()) || binary.BigEndian.Uint16(msg[end:]) != qtype || binary.BigEndian.Uint16(msg[end+2:]) != classIN {
		return nil, errQuestion
	}
	flags := binary.BigEndian.Uint16(msg[2:])
	if code := RCode(flags & rcodeMask); code != NoError && code != NXDomain {
		return nil, fmt.Errorf("answer has the response code %v", code)
	}
	e := &entry{code: RCode(flags & rcodeMask), verified: flags&bitAD != 0, msg: msg, first: end + 4}
	return e, e.readRecords(nm, qtype)
}

// readRecords walks the records and finds out how long the answer lives.
func (e *entry) readRecords(nm *name, qtype uint16) error {
	w := walk{msg: e.msg, off: e.first}
	e.answers = int(binary.BigEndian.Uint16(e.msg[6:]))
	total := e.answers + int(binary.BigEndian.Uint16(e.msg[8:]))
	chain := []name{*nm}
	positive, negative := maxPositive, time.Duration(0)
	found := false
	for i := range total {
		rr, ok := w.next()
		if !ok {
			return errShort
		}
		e.records = append(e.records, rr.record)
		ttl := time.Duration(rr.ttl) * time.Second
		if i >= e.answers {
			if rr.rtype == typeSOA {
				negative = min(ttl, time.Duration(rr.minimum)*time.Second, maxNegative)
			}
			continue
		}
		if !belongs(&rr, chain) {
			return errOwner
		}
		if rr.rtype == typeCNAME {
			if chain = append(chain, rr.target); len(chain) > maxUpstreamChain {
				return errChain
			}
		}
		found = found || rr.rtype == qtype || qtype == typeANY
		positive = min(positive, ttl)
	}
	for _, p := range w.pointers { // into the question's name, or behind the question
		if to := int(binary.BigEndian.Uint16(e.msg[p:]) & 0x3FFF); to >= e.first-4 && to < e.first {
			return errShort
		}
	}
	e.pointers, e.msg = w.pointers, slices.Clip(e.msg[:w.off])
	e.ttl, e.found = positive, found
	if !found || e.code != NoError {
		e.ttl = negative
	}
	return nil
}

// belongs reports whether a record of the answer is about a name of the chain of aliases, or a DNAME above one (RFC 6672).
func belongs(rr *walked, chain []name) bool {
	return slices.ContainsFunc(chain, func(nm name) bool {
		if bytes.Equal(nm.wire(), rr.owner.wire()) {
			return true
		}
		return (rr.rtype == typeDNAME || rr.rtype == typeRRSIG) && nm.above(string(rr.owner.wire())) > 0
	})
}

// Types of upstreams' answers that are treated apart.
const (
	typeDNAME = 39
	typeRRSIG = 46
)

// layout says where names stand in a type's data.
type layout struct {
	skip  int // bytes in front of them
	names int
	tail  int // bytes behind them; -1: any number
}

// layouts are of the types whose names some servers compress: those of RFC 1035, which may be, and later ones, which must not (RFC 3597,
// section 4).
var layouts = map[uint16]layout{
	typeNS: {names: 1}, typeCNAME: {names: 1}, typePTR: {names: 1}, typeDNAME: {names: 1},
	7: {names: 1}, 8: {names: 1}, 9: {names: 1}, // MB, MG, MR
	typeSOA: {names: 2, tail: 20},
	14:      {names: 2},                                                                                     // MINFO
	17:      {names: 2},                                                                                     // RP
	15:      {skip: 2, names: 1}, 18: {skip: 2, names: 1}, 21: {skip: 2, names: 1}, 36: {skip: 2, names: 1}, // MX, AFSDB, RT, KX
	26:        {skip: 2, names: 2}, // PX
	typeSRV:   {skip: 6, names: 1},
	typeRRSIG: {skip: 18, names: 1, tail: -1},
	47:        {names: 1, tail: -1},                                             // NSEC
	64:        {skip: 2, names: 1, tail: -1}, 65: {skip: 2, names: 1, tail: -1}, // SVCB, HTTPS
}

// walk goes from record to record of a message.
type walk struct {
	msg      []byte
	off      int
	pointers []uint16
}

// walked is a record as read.
type walked struct {
	record
	owner   name
	rtype   uint16
	ttl     uint32
	target  name   // of a CNAME
	minimum uint32 // of an SOA
}

// next reads a record with all names in it.
func (w *walk) next() (rr walked, ok bool) {
	rr.start = uint16(w.off)
	off, ok := rr.owner.follow(w.msg, w.off, &w.pointers)
	if !ok || off+10 > len(w.msg) {
		return rr, false
	}
	rr.rtype = binary.BigEndian.Uint16(w.msg[off:])
	if binary.BigEndian.Uint16(w.msg[off+2:]) != classIN {
		return rr, false
	}
	rr.record.ttl = uint16(off + 4)
	rr.ttl = binary.BigEndian.Uint32(w.msg[off+4:])
	if rr.ttl > 1<<31-1 {
		rr.ttl = 0 // RFC 2181, section 8
	}
	data := off + 10
	w.off = data + int(binary.BigEndian.Uint16(w.msg[off+8:]))
	if w.off > len(w.msg) {
		return rr, false
	}
	rr.end = uint16(w.off)
	return rr, w.readData(&rr, data)
}

// readData reads the names in a record's data.
func (w *walk) readData(rr *walked, off int) bool {
	l, ok := layouts[rr.rtype]
	if !ok {
		return true
	}
	off += l.skip
	for range l.names {
		if off, ok = rr.target.follow(w.msg[:w.off], off, &w.pointers); !ok {
			return false
		}
	}
	if l.tail >= 0 && off+l.tail != w.off {
		return false
	}
	if rr.rtype == typeSOA {
		rr.minimum = binary.BigEndian.Uint32(w.msg[w.off-4:])
	}
	return true
}

// failure returns an entry that says that nobody could answer.
func failure() *entry { return &entry{code: ServFail, ttl: failureTTL} }

// asStale returns the entry as it is given while there is no newer one.
func (e *entry) asStale(now time.Duration) *entry {
	return &entry{
		key: e.key, code: e.code, verified: e.verified, found: e.found, msg: e.msg, first: e.first, records: e.records, answers: e.answers, pointers: e.pointers,
		ttl: e.ttl, stored: e.stored, expired: e.expired, recheck: now + staleTTL,
	}
}

// outcome returns what the answer says of the name.
func (e *entry) outcome() outcome {
	switch {
	case e.code == NXDomain:
		return absent
	case e.code != NoError:
		return failed
	case e.found:
		return hasData
	}
	return noData
}

// entry writes the records of an upstream's answer about a name that stands at owner, as far as there is room, with the time to live that
// they have left.
func (r *reply) entry(e *entry, owner int, now time.Duration) {
	delta := r.n - e.first
	age := uint32((now - e.stored) / time.Second)
	pointers := e.pointers
	for i, rec := range e.records {
		section := inAnswer
		if i >= e.answers {
			section = inAuthority
		}
		start := r.n
		if start+int(rec.end-rec.start) > len(r.b) {
			r.full = r.full || section == inAnswer
			return
		}
		r.n += copy(r.b[start:], e.msg[rec.start:rec.end])
		if !r.movePointers(&pointers, rec, e.first, owner, delta) {
			r.n, r.full = start, true
			return
		}
		ttl := r.b[start+int(rec.ttl-rec.start):]
		binary.BigEndian.PutUint32(ttl, e.left(binary.BigEndian.Uint32(ttl), age))
		r.counts[section]++
	}
}

// left returns what is left of a record's time to live.
func (e *entry) left(ttl, age uint32) uint32 {
	if e.recheck > 0 {
		return uint32(staleTTL / time.Second)
	}
	if ttl > 1<<31-1 {
		ttl = 0
	}
	ttl = min(ttl, uint32(maxPositive/time.Second))
	return ttl - min(ttl, age)
}

// movePointers makes the pointers of a record, which stands delta bytes behind where it stood, lead to the same names. What led into the
// question leads to the name at owner.
func (r *reply) movePointers(pointers *[]uint16, rec record, first, owner, delta int) bool {
	for len(*pointers) > 0 && (*pointers)[0] < rec.end {
		p := int((*pointers)[0])
		*pointers = (*pointers)[1:]
		at := r.b[p+delta:]
		to := int(binary.BigEndian.Uint16(at) & 0x3FFF)
		if to < first {
			to += owner - headerLen
		} else {
			to += delta
		}
		if to >= 1<<14 {
			return false
		}
		binary.BigEndian.PutUint16(at, 0xC000|uint16(to))
	}
	return true
}
