package dns

import (
	"bytes"
	"encoding/binary"
)

// Priority and weight of SRV records: all endpoints are alike (RFC 2782).
const (
	srvPriority = 0
	srvWeight   = 100
)

// allPorts returns the ports of the Service, or of one of its sets if it is headless.
func (s *service) allPorts(yield func(port) bool) {
	if !s.headless {
		for _, p := range s.ports {
			if !yield(p) {
				return
			}
		}
		return
	}
	for i := range s.sets {
		for _, p := range s.sets[i].ports {
			if !yield(p) {
				return
			}
		}
	}
}

// hasPort reports whether a port has the labels _port._proto.
func (s *service) hasPort(labels []byte) bool {
	for p := range s.allPorts {
		if p.labels == string(labels) {
			return true
		}
	}
	return false
}

// hasProto reports whether a named port has the protocol, given as a label.
func (s *service) hasProto(label []byte) bool {
	for p := range s.allPorts {
		if p.labels != "" && p.proto() == string(label) {
			return true
		}
	}
	return false
}

// answerSRV answers with the ports that have the labels, or with all ports if labels is nil: an SRV record leads to the Service's
// name, or, if it is headless, one for each endpoint to that one's (specification, sections 2.3.2 and 2.4.2).
func (z *Zone) answerSRV(r *reply, q question, s *service, labels []byte) outcome {
	before := r.counts[inAnswer]
	begin := r.n
	if s.headless {
		for i := range s.sets {
			z.srvOfSet(r, q, s, &s.sets[i], labels)
		}
	} else {
		z.srvOfService(r, q, s, labels)
	}
	if r.full {
		return hasData
	}
	if r.counts[inAnswer] == before {
		return noData
	}
	writeTargets(r, s, begin, int(r.counts[inAnswer]-before))
	return hasData
}

func (z *Zone) srvOfService(r *reply, q question, s *service, labels []byte) {
	var scratch [2 * maxName]byte
	target := append(append(scratch[:0], s.key...), z.suffix...)
	for _, p := range s.ports {
		if labels == nil || p.labels == string(labels) {
			writeSRV(r, q.owner, p.number, target)
		}
	}
}

func (z *Zone) srvOfSet(r *reply, q question, s *service, set *set, labels []byte) {
	for _, p := range set.ports {
		if labels != nil && p.labels != string(labels) {
			continue
		}
		for i := range set.len() {
			var scratch [2 * maxName]byte
			target := append(append(set.appendLabel(scratch[:0], i), s.key...), z.suffix...)
			if writeSRV(r, q.owner, p.number, target); r.full {
				return
			}
		}
	}
}

// writeSRV writes an SRV record; its target is not compressed (RFC 2782). One that is there already is not written again: endpoints may share
// a host name, and be in several slices.
func writeSRV(r *reply, owner int, number uint16, target []byte) {
	var scratch [6 + 2*maxName]byte
	binary.BigEndian.PutUint16(scratch[:], srvPriority)
	binary.BigEndian.PutUint16(scratch[2:], srvWeight)
	binary.BigEndian.PutUint16(scratch[4:], number)
	record := scratch[:6+copy(scratch[6:], target)]
	if len(target) <= maxName && !r.has(typeSRV, record) {
		copy(r.room(inAnswer, owner, typeSRV, len(record)), record)
	}
}

// writeTargets writes the addresses of the targets of n SRV records that begin at off as additional records, as far as there is room.
// Targets that follow each other get them once.
func writeTargets(r *reply, s *service, off, n int) {
	var last []byte
	for range n {
		at := off + fixedLen + 6
		off += fixedLen + int(binary.BigEndian.Uint16(r.b[off+fixedLen-2:]))
		target := r.b[at:off]
		if bytes.Equal(target, last) {
			continue
		}
		last = target
		if s.headless {
			writeEndpoint(r, s, at, target[1:1+target[0]])
			continue
		}
		addresses(r, inAdditional, at, typeA, s.v4)
		addresses(r, inAdditional, at, typeAAAA, s.v6)
	}
}

// writeEndpoint writes the addresses of the endpoint with the given name as additional records.
func writeEndpoint(r *reply, s *service, owner int, label []byte) {
	for a := range s.named(label) {
		if !r.hasAddr(a) {
			r.address(inAdditional, owner, a)
		}
	}
}
