package dns

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Policy is the order in which the upstreams that are up are asked.
type Policy uint8

// Policies.
const (
	Random Policy = iota
	RoundRobin
	Sequential
)

// DefaultMaxConcurrent is how many questions may wait for upstreams.
const DefaultMaxConcurrent = 1000

// errNoUpstream leads to ServFail.
var errNoUpstream = errors.New("no upstream to ask")

// group is who is asked about the names below a domain.
type group struct {
	domain  string // in wire format; the root's is for all others
	servers []*upstream
	policy  Policy
	turn    atomic.Uint32
}

// newGroups makes the groups of a Config, those of longer domains first.
func newGroups(c *Config) (groups []*group, err error) {
	add := func(domain string, addrs []netip.AddrPort) error {
		wire, err := toWire(domain)
		if err != nil {
			return err
		}
		g := &group{domain: wire, policy: c.Policy}
		for _, a := range addrs {
			if !a.IsValid() || a.Port() == 0 || a.Addr().IsUnspecified() || a.Addr().IsMulticast() {
				return fmt.Errorf("upstream %v: not the address and port of a server", a)
			}
			if c.Zone.servedAt(a.Addr()) {
				return fmt.Errorf("upstream %v: this is the address of the cluster's DNS itself, and would lead back to it", a)
			}
			g.servers = append(g.servers, &upstream{addr: a, dial: c.Dialer})
		}
		groups = append(groups, g)
		return nil
	}
	for domain, addrs := range c.Stubs {
		if len(addrs) == 0 {
			return nil, fmt.Errorf("stub domain %s: at least one server is needed", domain)
		}
		if err := add(domain, addrs); err != nil {
			return nil, fmt.Errorf("stub domain %s: %w", domain, err)
		}
	}
	if len(c.Upstreams) > 0 {
		if err := add(".", c.Upstreams); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(groups, func(a, b *group) int { return len(b.domain) - len(a.domain) })
	return groups, nil
}

// groupOf returns who is asked about a name; nil if nobody is.
func (s *Server) groupOf(nm *name) *group {
	for _, g := range *s.groups.Load() {
		if nm.above(g.domain) >= 0 {
			return g
		}
	}
	return nil
}

// order returns the servers in the order in which they are asked: those that are down last, those that lead back here not at all.
func (g *group) order() []*upstream {
	all := slices.Clone(g.servers)
	switch g.policy {
	case Random:
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	case RoundRobin:
		if k := len(all); k > 0 {
			n := int(g.turn.Add(1) % uint32(k))
			all = slices.Concat(all[n:], all[:n])
		}
	}
	all = slices.DeleteFunc(all, func(u *upstream) bool { return u.looping.Load() })
	slices.SortStableFunc(all, func(a, b *upstream) int {
		switch {
		case a.healthy() == b.healthy():
			return 0
		case a.healthy():
			return -1
		}
		return 1
	})
	return all
}

// ask asks the servers one after the other until one says whether the name exists. A lost datagram has its question asked once more.
func (g *group) ask(ctx context.Context, nm *name, q *query) (*entry, error) {
	servers := g.order()
	if len(servers) == 0 {
		return nil, errNoUpstream
	}
	if len(servers) < 3 {
		servers = slices.Concat(servers, servers, servers)[:3]
	}
	question := newQuestion(nm, q.qtype, q.flags, q.dnssecOK)
	var errs []error
	for _, u := range servers {
		answer, err := u.ask(ctx, question)
		if err == nil {
			var e *entry
			if e, err = parseEntry(answer, nm, q.qtype); err == nil {
				return e, nil
			}
			u.errors.Add(1)
			err = fmt.Errorf("ask %v: %w", u.addr, err)
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// fetch asks upstream about a name, and keeps the answer. Clients who ask the same at the same time share it.
func (s *Server) fetch(ctx context.Context, nm *name, q *query) (*entry, error) {
	key := string(appendKey(nil, nm, q))
	for {
		v, err, _ := s.flights.Do(key, func() (any, error) {
			ctx, cancel := context.WithTimeout(ctx, askTimeout)
			defer cancel()
			return s.fetchOnce(ctx, key, nm, q)
		})
		switch {
		case err == nil:
			return v.(*entry), nil
		case !errors.Is(err, context.Canceled) || ctx.Err() != nil:
			return nil, err
		}
		// Who began to ask has given up, and takes the answer from nobody else.
	}
}

func (s *Server) fetchOnce(ctx context.Context, key string, nm *name, q *query) (*entry, error) {
	old := s.cache.get([]byte(key))
	if old != nil && old.fresh(s.now()) && !old.refreshing.Load() {
		return old, nil // another flight has just landed
	}
	g := s.groupOf(nm)
	if g == nil {
		return nil, errNoUpstream
	}
	usable := s.cache.usable(old, s.now())
	if usable {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, staleAfter)
		defer cancel()
	}
	e, err := g.ask(ctx, nm, q)
	switch {
	case err == nil:
		e.keep(key, s.now())
	case old != nil && old.fresh(s.now()):
		old.refreshing.Store(false)
		return old, nil
	case errors.Is(ctx.Err(), context.Canceled):
		return nil, ctx.Err() // which says nothing of the upstreams
	case usable:
		s.stats.stale.Add(1)
		e = old.asStale(s.now())
	default:
		s.log.Debug("dns question has got no answer", "name", nm, "err", err)
		e = failure().keep(key, s.now())
	}
	s.cache.put(e, s.now())
	return e, nil
}

// staleAfter is how long a newer answer is waited for where an older one is there (RFC 8767, section 5).
const staleAfter = 1800 * time.Millisecond

// String returns the name as in zone files.
func (nm *name) String() string {
	if nm.n == 0 {
		return "."
	}
	var b strings.Builder
	for i := range nm.n {
		for _, c := range nm.label(i) {
			if c <= ' ' || c >= 0x7F || c == '.' || c == '\\' {
				fmt.Fprintf(&b, "\\%03d", c)
				continue
			}
			b.WriteByte(c)
		}
		b.WriteByte('.')
	}
	return b.String()
}
