package k8s

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/middleway-net/middleway/k8s/object"
	"github.com/middleway-net/middleway/k8s/services"
	"github.com/middleway-net/middleway/stack/dns"
	"github.com/middleway-net/middleway/stack/service"
)

// apply compiles what changed, and hands it on. The first time everything is handed on, if it is nothing, and the Services again
// when the source has told all.
func (p *Pipeline) apply(c Changes) {
	first, known := p.last.IsZero(), p.known
	p.known = p.store.AllSynced()
	compile := c.Services
	if first || len(c.Objects[object.Nodes]) > 0 {
		if p.applyNodes() {
			compile = p.allServices(c.Services)
		}
	}
	if first || p.known != known || len(compile) > 0 {
		p.applyServices(compile)
	}
	if p.zone != nil && (first || len(c.Services) > 0 || len(c.Objects[object.Namespaces]) > 0) {
		p.applyZone(c)
	}
	p.last = time.Now()
}

// applyNodes hands on all nodes. It reports whether this node is in another zone now, by which hints mean others.
func (p *Pipeline) applyNodes() (moved bool) {
	nodes := p.store.Nodes()
	for _, n := range nodes {
		if n.Name == p.on.Name && n.Zone != p.on.Zone {
			p.on.Zone, moved = n.Zone, true
		}
	}
	if p.config.SetNodes != nil {
		p.config.SetNodes(nodes)
	}
	return moved
}

// allServices returns the names of all Services there are, and of those that changed: some of them are gone.
func (p *Pipeline) allServices(changed map[object.Key]bool) map[object.Key]bool {
	all := maps.Clone(changed)
	if all == nil {
		all = map[object.Key]bool{}
	}
	for _, name := range p.store.Names(object.Services) {
		all[name] = true
	}
	return all
}

func (p *Pipeline) applyServices(names map[object.Key]bool) {
	compiled := make(map[string]*service.Service, len(names))
	asked := false // differently than before
	for name := range names {
		s, of := p.store.Service(name)
		compiled[name.String()] = p.compile(s, of)
		asked = p.compileHealth(name, s, of) || asked
	}
	p.table = p.table.With(compiled)
	p.handServices()
	if asked {
		p.handHealth()
	}
	p.countCompiled(len(names))
}

func (p *Pipeline) compile(o *object.Service, of []*object.EndpointSlice) *service.Service {
	s := services.Compile(o, of, p.on)
	if s != nil && p.config.ClusterIPsOnly {
		s.External = nil
	}
	return s
}

// compileHealth reports whether load balancers are to hear something else about a Service.
func (p *Pipeline) compileHealth(name object.Key, s *object.Service, of []*object.EndpointSlice) (changed bool) {
	if p.config.SetHealthChecks == nil || p.config.ClusterIPsOnly {
		return false
	}
	checks := services.HealthChecks(s, of, p.on)
	if slices.Equal(checks, p.health[name]) {
		return false
	}
	if p.health[name] = checks; len(checks) == 0 {
		delete(p.health, name)
	}
	return true
}

// handHealth hands on what load balancers are told. Of two Services at one port the one whose name comes first has it.
func (p *Pipeline) handHealth() {
	all := slices.Concat(slices.Collect(maps.Values(p.health))...)
	slices.SortFunc(all, func(a, b services.HealthCheck) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Service.String(), b.Service.String()))
	})
	p.config.SetHealthChecks(slices.CompactFunc(all, func(a, b services.HealthCheck) bool { return a.At == b.At }))
}

// handServices hands on the Services.
func (p *Pipeline) handServices() {
	switch {
	case p.config.SetServices == nil:
	case p.known:
		p.config.SetServices(p.table)
	default:
		p.config.RecallServices(p.table)
	}
}

func (p *Pipeline) applyZone(c Changes) {
	changes := dns.Changes{Services: make(map[string]*dns.Service, len(c.Services)), Namespaces: map[string]bool{}}
	for name := range c.Services {
		changes.Services[name.String()] = nil
		if s, of := p.store.Service(name); s != nil {
			changes.Services[name.String()] = services.Records(s, of)
		}
	}
	for name := range c.Objects[object.Namespaces] {
		changes.Namespaces[name.Name] = p.store.Get(object.Namespaces, name) != nil
	}
	zone, err := p.zone.With(changes)
	if err != nil {
		p.config.Log.Warn("what cannot be in the cluster's zone is left out of it", "err", err)
	}
	p.zone = zone
	if p.config.SetZone != nil {
		p.config.SetZone(zone)
	}
}
