package dns

import (
	"encoding/binary"
	"net/netip"
)

// outcome is what came of a question about a name of the zone.
type outcome uint8

const (
	absent    outcome = iota // the name does not exist
	noData                   // it exists, and has no such record
	hasData                  // records were written
	elsewhere                // an alias was written that leads out of the zone
	endless                  // aliases lead to each other
	unknown                  // it is to be asked upstream
	failed                   // nobody upstream could answer
)

// maxChain bounds how many aliases are followed in one answer.
const maxChain = 8

// question is what is asked about a name that is in the zone. Its first question is the client's; further ones come from aliases.
type question struct {
	name  *name
	owner int // where the name stands in the answer
	qtype uint16
	chain int // aliases followed so far
}

// answer writes the records that answer a question about the name that consists of n labels and the zone's domain.
//
//	n  name below the zone
//	0  (the zone itself)                   SOA, NS
//	1  dns-version                         TXT
//	2  ns.dns                              A, AAAA of the name server
//	2  <namespace>.svc
//	3  <service>.<namespace>.svc           A, AAAA, CNAME; SRV of all ports
//	4  <endpoint>.<service>.<namespace>.svc    A, AAAA
//	5  _<port>._<proto>.<service>.<namespace>.svc  SRV
//	2  <namespace>.pod
//	3  <address>.<namespace>.pod           A, AAAA
func (z *Zone) answer(r *reply, q question, n int) outcome {
	if n == 0 {
		return z.answerApex(r, q)
	}
	switch string(q.name.label(n - 1)) {
	case "svc":
		return z.answerService(r, q, n)
	case "pod":
		return z.answerPod(r, q, n)
	case "dns-version":
		if n == 1 {
			return z.answerVersion(r, q)
		}
	case "dns":
		return z.answerNameServer(r, q, n)
	}
	return absent
}

func (z *Zone) answerService(r *reply, q question, n int) outcome {
	if n == 1 {
		return noData
	}
	namespace := q.name.labels(n-2, n-1)
	if n == 2 {
		return exists(z.hasNamespace(namespace))
	}
	if n > 5 {
		return absent
	}
	s := z.service(q.name.labels(n-3, n-1))
	switch {
	case s == nil:
		return absent
	case n == 3 && s.external != "":
		return z.follow(r, q, s.external)
	case n == 3 && q.qtype == typeSRV:
		return z.answerSRV(r, q, s, nil)
	case n == 3:
		return answerAddrs(r, q, s.v4, s.v6)
	case n == 4:
		return answerEndpoint(r, q, s)
	default:
		return z.answerPort(r, q, s)
	}
}

// exists returns the outcome for a name that has no records of its own.
func exists(yes bool) outcome {
	if yes {
		return noData
	}
	return absent
}

// answerAddrs answers a question about a name that means addresses.
func answerAddrs(r *reply, q question, v4 [][4]byte, v6 [][16]byte) outcome {
	switch {
	case q.qtype == typeA && len(v4) > 0:
		addresses(r, inAnswer, q.owner, typeA, v4)
	case q.qtype == typeAAAA && len(v6) > 0:
		addresses(r, inAnswer, q.owner, typeAAAA, v6)
	case q.qtype == typeANY:
		answerANY(r, q)
	default:
		return noData
	}
	return hasData
}

// answerANY says that such a question gets no more than this (RFC 8482, section 4.2).
func answerANY(r *reply, q question) {
	const data = "\x07RFC8482\x00"
	copy(r.room(inAnswer, q.owner, typeHINFO, len(data)), data)
}

// answerEndpoint answers a question about an endpoint, or about a protocol, which is no name of a record but has some below it.
func answerEndpoint(r *reply, q question, s *service) outcome {
	label := q.name.label(0)
	if label[0] == '_' {
		return exists(s.hasProto(q.name.labels(0, 1)))
	}
	out := absent
	for a := range s.named(label) {
		out = max(out, noData)
		if q.qtype == typeA && a.Is4() || q.qtype == typeAAAA && a.Is6() {
			out = hasData
			if !r.hasAddr(a) {
				r.address(inAnswer, q.owner, a)
			}
		}
	}
	if out == noData && q.qtype == typeANY {
		answerANY(r, q)
		return hasData
	}
	return out
}

// answerAddr answers a question about a name that means one address.
func answerAddr(r *reply, q question, a netip.Addr) outcome {
	if a.Is4() {
		b := [1][4]byte{a.As4()}
		return answerAddrs(r, q, b[:], nil)
	}
	b := [1][16]byte{a.As16()}
	return answerAddrs(r, q, nil, b[:])
}

func (z *Zone) answerPort(r *reply, q question, s *service) outcome {
	labels := q.name.labels(0, 2)
	if !s.hasPort(labels) {
		return absent
	}
	if q.qtype != typeSRV {
		return noData
	}
	return z.answerSRV(r, q, s, labels)
}

func (z *Zone) answerPod(r *reply, q question, n int) outcome {
	if z.podNames == PodsDisabled || n > 3 {
		return absent
	}
	if n == 1 {
		return noData
	}
	namespace := q.name.labels(n-2, n-1)
	if !z.hasNamespace(namespace) {
		return absent
	}
	if n == 2 {
		return noData
	}
	a, ok := parseDashed(q.name.label(0))
	if !ok || z.podNames == PodsVerified && !z.hasPod(namespace, a) {
		return absent
	}
	return answerAddr(r, q, a)
}

func (z *Zone) answerApex(r *reply, q question) outcome {
	switch q.qtype {
	case typeSOA:
		z.writeSOA(r, inAnswer, q.owner, q.owner)
	case typeNS:
		z.writeNS(r, q.owner)
	case typeANY:
		answerANY(r, q)
	default:
		return noData
	}
	return hasData
}

func (z *Zone) answerVersion(r *reply, q question) outcome {
	switch q.qtype {
	case typeTXT:
		data := r.room(inAnswer, q.owner, typeTXT, 1+len(schemaVersion))
		if data != nil {
			data[0] = byte(len(schemaVersion))
			copy(data[1:], schemaVersion)
		}
	case typeANY:
		answerANY(r, q)
	default:
		return noData
	}
	return hasData
}

func (z *Zone) answerNameServer(r *reply, q question, n int) outcome {
	if n == 1 {
		return noData
	}
	if n == 2 && string(q.name.label(0)) == "ns" {
		return answerAddrs(r, q, z.v4, z.v6)
	}
	return absent
}

// follow writes the alias that a Service of type ExternalName is, and goes on with what it leads to.
func (z *Zone) follow(r *reply, q question, target string) outcome {
	data := r.room(inAnswer, q.owner, typeCNAME, len(target))
	if data == nil {
		return hasData
	}
	copy(data, target)
	if q.qtype == typeCNAME || q.qtype == typeANY {
		return hasData
	}
	if q.chain == maxChain {
		return endless
	}
	var next name
	next.read(data, 0)
	n := next.above(z.domain)
	if n < 0 {
		r.alias = r.n - len(target)
		return elsewhere
	}
	return z.answer(r, question{&next, r.n - len(target), q.qtype, q.chain + 1}, n)
}

// writeSOA writes an SOA record of the owner. apex is where the domain stands in the answer, 0 if nowhere.
func (z *Zone) writeSOA(r *reply, section, owner, apex int) {
	var scratch [2*maxName + 64]byte
	data := z.soa(scratch[:0], apex)
	copy(r.room(section, owner, typeSOA, len(data)), data)
}

// writeNS writes the zone's NS record, and the addresses of the name server.
func (z *Zone) writeNS(r *reply, apex int) {
	size := len(z.nameServer) + 2
	data := r.room(inAnswer, apex, typeNS, size)
	if data == nil {
		return
	}
	copy(data, z.nameServer)
	binary.BigEndian.PutUint16(data[len(z.nameServer):], 0xC000|uint16(apex))
	at := r.n - size
	addresses(r, inAdditional, at, typeA, z.v4)
	addresses(r, inAdditional, at, typeAAAA, z.v6)
}
