package dns

import (
	"context"
	"net/netip"
	"time"
)

// answerForeign answers a question about a name that is not the cluster's.
func (s *Server) answerForeign(r *reply) (int, bool) {
	out, e := s.answerUpstream(r, &r.q.name, toQuestion)
	return s.finishUpstream(r, out, e)
}

// answerAlias goes on with the name to which the zone's alias leads.
func (s *Server) answerAlias(r *reply) (int, bool) {
	var target name
	target.read(r.b, r.alias)
	out, e := s.answerUpstream(r, &target, r.alias)
	return s.finishUpstream(r, out, e)
}

// finishUpstream ends an answer whose last part is an upstream's.
func (s *Server) finishUpstream(r *reply, out outcome, e *entry) (int, bool) {
	if out == unknown {
		return 0, false
	}
	flags := uint16(0)
	if e.verified && r.alias == 0 && (r.q.dnssecOK || r.q.flags&bitAD != 0) { // RFC 6840, section 5.8
		flags |= bitAD
	}
	if out == failed {
		r.rewind()
	}
	return s.finish(r, e.code, flags)
}

// answerUpstream writes what an upstream has said about a name, which stands at owner in the answer. If nothing is known the outcome
// is unknown, and the way that waits gets to know what is missing.
func (s *Server) answerUpstream(r *reply, nm *name, owner int) (outcome, *entry) {
	now := s.now()
	e := s.find(r, nm, now)
	if e == nil {
		if r.known != nil {
			r.known.missing = *nm
		}
		return unknown, nil
	}
	r.entry(e, owner, now)
	return e.outcome(), e
}

// find returns what is known of a name: what was just fetched, or what the cache has.
func (s *Server) find(r *reply, nm *name, now time.Duration) *entry {
	var b [maxKey]byte
	key := appendKey(b[:0], nm, r.q)
	if r.known != nil {
		for _, e := range r.known.entries {
			if e.key == string(key) {
				return e
			}
		}
	}
	e := s.cache.get(key)
	if e == nil || !e.fresh(now) {
		return nil
	}
	if r.known == nil {
		s.stats.hits.Add(1)
	}
	if e.late(now) {
		select {
		case s.late <- e:
		default:
			e.refreshing.Store(false) // others are more in a hurry
		}
	}
	return e
}

// Resolve is Answer for who asks by no network: it waits for other servers where their answers are needed. n is 0 for what gets none.
func (s *Server) Resolve(ctx context.Context, out, msg []byte, client netip.Addr) (n int) {
	if n, ok := s.Answer(out, msg, client); ok {
		return n
	}
	var q query
	if q.read(msg) != ask {
		return 0
	}
	return s.resolve(ctx, out, msg, &q, client, false)
}

// resolve writes the answer to a query that Answer could not answer at once into out, and returns its length.
func (s *Server) resolve(ctx context.Context, out, msg []byte, q *query, client netip.Addr, tcp bool) int {
	limit := q.limit(out, tcp)
	if limit < q.end+optLen {
		return 0
	}
	var k known
	for range maxFetches {
		r := newReply(q, out, msg, limit)
		r.known = &k
		if n, ok := s.answerKnown(&r, client); ok {
			return n
		}
		if s.probes.isProbe(&k.missing) {
			break
		}
		s.stats.misses.Add(1)
		e, err := s.fetch(ctx, &k.missing, q)
		if err != nil {
			s.log.Debug("dns question is not asked upstream", "name", &k.missing, "err", err)
			break
		}
		k.entries = append(k.entries, e)
	}
	r := newReply(q, out, msg, limit)
	n, _ := s.finish(&r, ServFail, 0)
	return n
}

// maxFetches bounds the questions that one answer takes: the end of an alias, or each try of a search path.
const maxFetches = 4
