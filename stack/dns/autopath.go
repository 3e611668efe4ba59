package dns

import "net/netip"

// answerPath answers a question about a name below the first domain of a pod's search path, <namespace>.svc.<domain>, that does not exist: as the
// resolver's further tries of its search path would be, with an alias from the name asked for. done is false if these lead nowhere either;
// then the resolver finds out by itself. A name without the data that was asked for is an answer, as long as it exists: resolvers that ask
// for IPv4 and IPv6 at once give both up if one of them is told that there is no such name.
func (s *Server) answerPath(r *reply, z *Zone, n int, client netip.Addr) (size int, ok, done bool) {
	if s.config.Autopath == nil || n < 3 || string(r.q.name.label(n-1)) != "svc" {
		return 0, false, false
	}
	namespace, ok := s.config.Autopath(client)
	if !ok || string(r.q.name.label(n-2)) != namespace {
		return 0, false, false
	}
	apex := headerLen + r.q.name.start(n)
	base := r.q.name.labels(0, n-2)
	for _, suffix := range [...]string{z.suffix, z.domain, "\x00"} {
		var next name
		if !r.alternative(&next, base, suffix) {
			continue
		}
		switch out, e := s.answerName(r, z, &next); out {
		case unknown:
			return 0, false, true
		case hasData, noData:
			if e != nil {
				size, ok = s.finishUpstream(r, out, e)
				return size, ok, true
			}
			if out == noData {
				z.writeSOA(r, inAuthority, apex, apex)
			}
			size, ok = s.finish(r, NoError, 0)
			return size, ok, true
		}
		r.rewind()
	}
	return 0, false, false
}

// alternative writes an alias from the question's name to labels and suffix, and reads that name.
func (r *reply) alternative(next *name, labels []byte, suffix string) bool {
	size := len(labels) + len(suffix)
	data := r.room(inAnswer, toQuestion, typeCNAME, size)
	if data == nil {
		r.rewind()
		return false
	}
	copy(data[copy(data, labels):], suffix)
	r.alias = r.n - size
	next.read(data, 0)
	return true
}

// answerName answers a question about any name, to which an alias has led.
func (s *Server) answerName(r *reply, z *Zone, nm *name) (outcome, *entry) {
	n := nm.above(z.domain)
	if n < 0 {
		return s.answerUpstream(r, nm, r.alias)
	}
	out := z.answer(r, question{name: nm, owner: r.alias, qtype: r.q.qtype, chain: 1}, n)
	if out != elsewhere {
		return out, nil
	}
	var target name
	target.read(r.b, r.alias)
	return s.answerUpstream(r, &target, r.alias)
}
