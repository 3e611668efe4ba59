package dns

import "net/netip"

// answerPTR answers a question about an address: the Service that has it as ClusterIP, else the names of all endpoints that have it
// (specification, sections 2.3.3 and 2.4.3).
func (z *Zone) answerPTR(r *reply, q question, a netip.Addr) outcome {
	b := a.As16()
	hash := hashOf(b[:])
	out := absent
	for _, slot := range z.addrs.under(hash) {
		if s := slot.value; slot.hash == hash && !s.headless && s.hasAddr(a) {
			out = max(out, z.writePTR(r, q, nil, s))
		}
	}
	if out != absent {
		return out
	}
	for _, slot := range z.addrs.under(hash) {
		if slot.hash == hash {
			out = max(out, z.ptrOfEndpoints(r, q, a, slot.value))
		}
	}
	return out
}

// ptrOfEndpoints writes a record for each name that endpoints of a Service with the address have.
func (z *Zone) ptrOfEndpoints(r *reply, q question, a netip.Addr, s *service) outcome {
	out := absent
	for i := range s.sets {
		set := &s.sets[i]
		for k := range set.len() {
			if set.addr(k) == a {
				var scratch [maxName]byte
				out = max(out, z.writePTR(r, q, set.appendLabel(scratch[:0], k), s))
			}
		}
	}
	return out
}

// writePTR writes a record that leads to the label in front of the Service's name, in wire format or empty, unless it is there already.
func (z *Zone) writePTR(r *reply, q question, label []byte, s *service) outcome {
	switch q.qtype {
	case typePTR:
	case typeANY:
		if r.counts[inAnswer] == 0 {
			answerANY(r, q)
		}
		return hasData
	default:
		return noData
	}
	var scratch [3 * maxName]byte
	target := append(append(append(scratch[:0], label...), s.key...), z.suffix...)
	if len(target) <= maxName && !r.has(typePTR, target) {
		copy(r.room(inAnswer, q.owner, typePTR, len(target)), target)
	}
	return hasData
}

// ours reports whether names of the address are the cluster's, whether or not there is one.
func (z *Zone) ours(a netip.Addr) (netip.Prefix, bool) {
	for _, p := range z.reverse {
		if p.Contains(a) {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// apexOf returns how many labels are in front of the part of a reverse name that a range of addresses has as its own.
func apexOf(p netip.Prefix, n int) int {
	if p.Addr().Is4() {
		return n - p.Bits()/8
	}
	return n - p.Bits()/4
}
