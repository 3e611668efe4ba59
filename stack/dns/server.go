package dns

import (
	"errors"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
)

// Server answers queries. Its methods may be called by any goroutine.
type Server struct {
	log   *slog.Logger
	empty *Zone
	zone  atomic.Pointer[Zone] // nil until SetZone
	stats stats

	started time.Time
	groups  atomic.Pointer[[]*group]
	cache   *cache
	flights singleflight.Group
	waiting *share      // questions that wait for upstreams
	late    chan *entry // to be asked anew
	config  Config
	probes  probes
}

// now returns the time on the server's clock.
func (s *Server) now() time.Duration { return time.Since(s.started) }

// New builds a server. Nothing runs before Run and the Serve methods.
func New(c Config) (*Server, error) {
	if c.Zone == nil {
		return nil, errors.New("dns server: a zone is needed")
	}
	c.setDefaults()
	groups, err := newGroups(&c)
	if err != nil {
		return nil, err
	}
	s := &Server{
		log: c.Logger, empty: c.Zone, started: time.Now(), config: c, cache: newCache(c.CacheEntries, c.ServeStale),
		waiting: newShare(c.MaxConcurrent, max(1, c.MaxConcurrent/clientPart)), late: make(chan *entry, maxLate),
	}
	s.groups.Store(&groups)
	return s, nil
}

// SetZone answers from z from now on. It must descend from the Zone of the Config.
func (s *Server) SetZone(z *Zone) { s.zone.Store(z) }

// Answer writes the answer to a query that client sent over UDP into out, which has at least MaxUDP bytes, and returns its length. It
// does not wait: if ok is false the query has no answer that is at hand, or none at all; ServeUDP is to get it. Both slices are
// borrowed, and query is not changed.
func (s *Server) Answer(out, query []byte, client netip.Addr) (n int, ok bool) {
	return s.answer(out, query, client, false)
}

func (s *Server) answer(out, msg []byte, client netip.Addr, tcp bool) (n int, ok bool) {
	var q query
	v := q.read(msg)
	switch v {
	case silence:
		return 0, false
	case malformed:
		return s.answerBare(out, msg, FormErr)
	case foreign:
		return s.answerBare(out, msg, NotImp)
	}
	limit := q.limit(out, tcp)
	if limit < q.end+optLen {
		return 0, false
	}
	r := newReply(&q, out, msg, limit)
	switch v {
	case refuse:
		return s.finish(&r, Refused, 0)
	case tooNew:
		return s.finish(&r, BadVersion, 0)
	}
	return s.answerKnown(&r, client)
}

// answerBare answers what could not be read.
func (s *Server) answerBare(out, msg []byte, code RCode) (int, bool) {
	if len(out) < headerLen {
		return 0, false
	}
	s.stats.count(0, code)
	return bare(out, msg, code), true
}

func (s *Server) finish(r *reply, code RCode, flags uint16) (int, bool) {
	s.stats.count(r.q.qtype, code)
	return r.finish(code, flags), true
}

// answerKnown answers what needs no other server.
func (s *Server) answerKnown(r *reply, client netip.Addr) (int, bool) {
	z := s.zone.Load()
	r.ttl = s.empty.ttl
	if n := r.q.name.above(s.empty.domain); n >= 0 {
		if z == nil {
			return s.finish(r, ServFail, 0)
		}
		return s.answerZone(r, z, n, client)
	}
	if a, n, ok := parseReverse(&r.q.name); ok {
		return s.answerReverse(r, z, a, n)
	}
	return s.answerForeign(r)
}

// answerZone answers a question about a name that consists of n labels and the domain.
func (s *Server) answerZone(r *reply, z *Zone, n int, client netip.Addr) (int, bool) {
	apex := headerLen + r.q.name.start(n)
	switch z.answer(r, question{name: &r.q.name, owner: toQuestion, qtype: r.q.qtype}, n) {
	case hasData:
		return s.finish(r, NoError, bitAA)
	case noData:
		z.writeSOA(r, inAuthority, apex, apex)
		return s.finish(r, NoError, bitAA)
	case absent:
		if n, ok, done := s.answerPath(r, z, n, client); done {
			return n, ok
		}
		z.writeSOA(r, inAuthority, apex, apex)
		return s.finish(r, NXDomain, bitAA)
	case elsewhere:
		return s.answerAlias(r)
	}
	r.rewind() // endless
	return s.finish(r, ServFail, 0)
}

// answerReverse answers a question about the name of an address, which has n labels in front of in-addr.arpa or ip6.arpa.
func (s *Server) answerReverse(r *reply, z *Zone, a netip.Addr, n int) (int, bool) {
	within, ours := s.empty.ours(a)
	if z == nil {
		if ours {
			return s.finish(r, ServFail, 0)
		}
		return s.answerForeign(r)
	}
	out := z.answerPTR(r, question{name: &r.q.name, owner: toQuestion, qtype: r.q.qtype}, a)
	if out == hasData {
		return s.finish(r, NoError, bitAA)
	}
	if !ours && out == absent {
		return s.answerForeign(r)
	}
	owner := toQuestion
	if ours {
		owner = headerLen + r.q.name.start(apexOf(within, n))
	}
	z.writeSOA(r, inAuthority, owner, 0)
	if out == noData {
		return s.finish(r, NoError, bitAA)
	}
	return s.finish(r, NXDomain, bitAA)
}
