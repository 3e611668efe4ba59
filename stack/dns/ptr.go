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
			return z.writePTR(r, q, nil, s)
		}
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
			if set.addr(k) != a || s.addrBefore(i, k) {
				continue
			}
			var scratch [maxName]byte
			out = max(out, z.writePTR(r, q, set.appendLabel(scratch[:0], k), s))
		}
	}
	return out
}

// addrBefore reports whether an endpoint in front of endpoint i of s.sets[nth] has the same address and name.
func (s *service) addrBefore(nth, i int) bool {
	set := &s.sets[nth]
	a, host := set.addr(i), set.host(i)
	for k := range nth + 1 {
		before := &s.sets[k]
		for j := range before.len() {
			if k == nth && j == i {
				return false
			}
			if before.addr(j) == a && before.host(j) == host {
				return true
			}
		}
	}
	return false
}

// writePTR writes a record that leads to the label in front of the Service's name, in wire format or empty.
func (z *Zone) writePTR(r *reply, q question, label []byte, s *service) outcome {
	if q.qtype == typeANY {
		if r.counts[inAnswer] == 0 {
			answerANY(r, q)
		}
		return hasData
	}
	if q.qtype != typePTR {
		return noData
	}
	size := len(label) + len(s.key) + len(z.suffix)
	if size > maxName {
		return noData
	}
	if data := r.room(inAnswer, q.owner, typePTR, size); data != nil {
		copy(data[copy(data, label):], s.key)
		copy(data[len(label)+len(s.key):], z.suffix)
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
