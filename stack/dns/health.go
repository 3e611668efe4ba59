package dns

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// maxLate is how many answers wait to be asked for anew before their life ends, and maxRefreshes how many are asked for at once.
const (
	maxLate      = 256
	maxRefreshes = 16
)

// Run asks for popular answers anew before their life ends, probes upstreams that are down, and looks for upstreams that lead back here. It
// returns when ctx ends, after all its goroutines have ended.
func (s *Server) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.refresh(ctx) })
	g.Go(func() error { return s.probeAll(ctx) })
	return g.Wait()
}

// refresh asks for entries anew.
func (s *Server) refresh(ctx context.Context) error {
	var g errgroup.Group
	defer func() { _ = g.Wait() }()
	g.SetLimit(maxRefreshes)
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-s.late:
			g.Go(func() error {
				s.stats.prefetches.Add(1)
				nm, q := e.question()
				_, _ = s.fetch(ctx, &nm, &q) // the old answer is kept if there is none
				e.refreshing.Store(false)
				return nil
			})
		}
	}
}

// question returns what the entry's key asks.
func (e *entry) question() (nm name, q query) {
	nm.read([]byte(e.key), 0)
	rest := e.key[nm.size:]
	q.qtype = uint16(rest[0])<<8 | uint16(rest[1])
	q.dnssecOK = rest[2]&keyDNSSECOK != 0
	if rest[2]&keyUnchecked != 0 {
		q.flags = bitCD
	}
	return nm, q
}

// probes are questions of our own by which upstreams show that they are there, or that they ask us in turn. Their names are random, so
// that who sees one has been asked by us.
type probes struct {
	mu   sync.Mutex
	seen map[string]bool // by name in wire format, while the question is under way: whether it has come back
}

// add makes up a name. Its two labels of random digits are of no domain: resolvers that know better about reserved names ask others about it.
func (p *probes) add() (nm name) {
	labels, _ := labelsOf(fmt.Sprintf("%016x", rand.Uint64()), fmt.Sprintf("%016x", rand.Uint64()))
	nm.read([]byte(labels+"\x00"), 0)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seen == nil {
		p.seen = map[string]bool{}
	}
	p.seen[labels+"\x00"] = false
	return nm
}

// remove forgets a name, and reports whether it has come back.
func (p *probes) remove(nm *name) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := p.seen[string(nm.wire())]
	delete(p.seen, string(nm.wire()))
	return seen
}

// isProbe reports whether a question is one of ours, which has come back, and takes note.
func (p *probes) isProbe(nm *name) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.seen[string(nm.wire())]
	if ok {
		p.seen[string(nm.wire())] = true
	}
	return ok
}

// probeAll probes upstreams when they are new, down, or led back here.
func (s *Server) probeAll(ctx context.Context) error {
	var g errgroup.Group
	defer func() { _ = g.Wait() }()
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	for {
		for _, u := range s.upstreams() {
			if u.due(time.Now()) {
				g.Go(func() error { s.probe(ctx, u); return nil })
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// upstreams returns all of them, of all groups.
func (s *Server) upstreams() (all []*upstream) {
	for _, g := range *s.groups.Load() {
		all = append(all, g.servers...)
	}
	return all
}

// due reports whether it is time for a probe, and takes note that there is one.
func (u *upstream) due(now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	wait := loopInterval
	if u.failures.Load() > 0 {
		wait = probeInterval
	}
	if u.probing || !u.probed.IsZero() && now.Sub(u.probed) < wait {
		return false
	}
	u.probing, u.probed = true, now
	return true
}

// probe asks an upstream for a name that nobody has. Whatever it answers, it is there; if the question comes to ourselves meanwhile, it leads
// here.
func (s *Server) probe(ctx context.Context, u *upstream) {
	before := u.state()
	nm := s.probes.add()
	_, err := u.ask(ctx, newQuestion(&nm, typeTXT, 0, false))
	if back := s.probes.remove(&nm); back || err == nil {
		u.looping.Store(back)
	}
	u.mu.Lock()
	u.probing = false
	u.mu.Unlock()
	if now := u.state(); now != before && ctx.Err() == nil {
		s.tell(u, now, err)
	}
}

// tell logs what has become of an upstream.
func (s *Server) tell(u *upstream, state string, err error) {
	switch state {
	case UpstreamLoop:
		s.log.Error("dns upstream leads back to this node and is not asked; name another one", "addr", u.addr)
	case UpstreamDown:
		s.log.Warn("dns upstream does not answer", "addr", u.addr, "err", err)
	default:
		s.log.Info("dns upstream answers", "addr", u.addr)
	}
}

// States of an UpstreamStatus.
const (
	UpstreamUp   = "up"
	UpstreamDown = "down"
	UpstreamLoop = "loop"
)

// problems say what is wrong with an upstream.
var problems = map[string]string{
	UpstreamDown: "does not answer",
	UpstreamLoop: "leads back to this node, and is not asked",
}

func (u *upstream) state() string {
	switch {
	case u.looping.Load():
		return UpstreamLoop
	case u.failures.Load() >= maxFailures:
		return UpstreamDown
	}
	return UpstreamUp
}

// SetUpstreams asks others from now on, for example since the node's resolv.conf has changed. Those that stay keep their state.
func (s *Server) SetUpstreams(addrs []netip.AddrPort) error {
	c := s.config
	c.Upstreams = addrs
	groups, err := newGroups(&c)
	if err != nil {
		return err
	}
	known := map[netip.AddrPort]*upstream{}
	for _, u := range s.upstreams() {
		known[u.addr] = u
	}
	for _, g := range groups {
		for i, u := range g.servers {
			if old := known[u.addr]; old != nil {
				g.servers[i] = old
			}
		}
	}
	s.groups.Store(&groups)
	return nil
}
