package k8s

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/middleway-net/middleway/k8s/kept"
	"github.com/middleway-net/middleway/k8s/object"
	"github.com/middleway-net/middleway/k8s/services"
	"github.com/middleway-net/middleway/stack/dns"
	"github.com/middleway-net/middleway/stack/service"
)

// A change that comes alone is in force at once. Those that follow it are gathered until nothing has changed for quiet, but no
// longer than most.
const (
	quiet = 5 * time.Millisecond
	most  = 20 * time.Millisecond
)

// Config configures a Pipeline.
type Config struct {
	// Source fills the store. Required.
	Source Source
	// Kept is the file of the last known objects, in a directory that outlives the daemon; "" for none.
	Kept string
	// Node is this node's name.
	Node string
	// Ranges are where the cluster's Services have their addresses.
	Ranges []netip.Prefix
	// ClusterIPsOnly: NodePorts and externalIPs are another program's.
	ClusterIPsOnly bool
	// Zone is the cluster's zone without Services; nil where this node answers no DNS.
	Zone *dns.Zone

	// SetServices, SetNodes and SetZone take what is in force from then on, each time one of theirs has changed. They are called
	// by one goroutine, in the order nodes, Services, zone: what a name leads to is there before the name. Those that are nil are
	// left out.
	SetServices func(*service.Table)
	// RecallServices takes the Services that a former daemon kept, in the place of SetServices, which follows when the source has told
	// all. What was kept may be a second older than the daemon's end. Required with Kept, where there is SetServices.
	RecallServices func(*service.Table)
	SetNodes       func([]*object.Node) // all, in the order of their names
	SetZone        func(*dns.Zone)
	// SetHealthChecks takes all that load balancers are told, in the order of the addresses, each time some of it has changed and the
	// Services are in force. It is called by the same goroutine.
	SetHealthChecks func([]services.HealthCheck)

	// Log takes state changes. Required.
	Log *slog.Logger
}

// Pipeline makes tables of a source's objects, as they change. Nothing is in force before the source has told all kinds, but what
// a former daemon kept; a source that falls silent changes nothing.
type Pipeline struct {
	config Config
	store  *Store

	// What is in force. Run alone uses it.
	on    services.Node
	table *service.Table
	zone  *dns.Zone
	last  time.Time // when something came into force; zero if nothing has
	known bool      // it is of all that the source has told, not of what was kept

	health   map[object.Key][]services.HealthCheck // of the Services that have some
	applying atomic.Pointer[time.Time]             // since when what is being applied has waited; nil while nothing is

	further further

	recall sync.Once
	keeper *keeper // of recall; nil: nothing is kept

	mu    sync.Mutex // guards stats
	stats Stats
}

// New makes a pipeline. It reads and starts nothing.
func New(c Config) *Pipeline {
	return &Pipeline{
		config: c,
		store:  NewStore(),
		on:     services.Node{Name: c.Node},
		table:  service.New(c.Ranges),
		zone:   c.Zone,
		health: map[object.Key][]services.HealthCheck{},

		further: further{changed: make(chan struct{}, 1)},
	}
}

// Store returns the objects.
func (p *Pipeline) Store() *Store { return p.store }

// Recall brings into force what a former daemon kept. It is called before Run, by who wants that at once: until then names of the cluster are
// not known.
func (p *Pipeline) Recall() {
	p.recall.Do(func() { p.keeper = p.openKept() })
}

// Run follows the source until ctx ends, or the source ends with an error.
func (p *Pipeline) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	p.Recall()
	k := p.keeper
	g.Go(func() error { return p.config.Source.Run(ctx, p.store) })
	g.Go(func() error { p.follow(ctx, k); return nil })
	if k != nil {
		g.Go(func() error { k.run(ctx); return nil })
	}
	return g.Wait()
}

func (p *Pipeline) openKept() *keeper {
	if p.config.Kept == "" {
		return nil
	}
	file, all, err := kept.Open(p.config.Kept, p.config.Log)
	if err != nil {
		p.config.Log.Error("a daemon that starts again will serve only when its source answers", "err", err)
		return nil
	}
	for _, o := range all {
		p.store.keep(o)
	}
	if len(all) > 0 {
		p.apply(p.store.Take())
		p.config.Log.Info("what was last known of the cluster is in force", "objects", len(all))
	}
	return newKeeper(file, p.store, p.config.Log)
}

// follow applies changes, once all kinds have synced.
func (p *Pipeline) follow(ctx context.Context, k *keeper) {
	for synced := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-p.further.changed:
			p.applyFurther()
			continue
		case <-p.store.Changed():
		}
		if !p.store.AllSynced() {
			continue
		}
		p.gather(ctx)
		c := p.store.Take()
		p.applying.Store(&c.Since)
		if k != nil {
			k.add(c) // before it is in force: that may end this daemon, and the next one has to know why
		}
		p.apply(c)
		p.applying.Store(nil)
		if synced {
			p.measure(c)
		} else {
			p.config.Log.Info("the cluster is known", "nodes", p.store.Len(object.Nodes), "services", p.store.Len(object.Services),
				"slices", p.store.Len(object.EndpointSlices))
		}
		synced = true
	}
}

// Waiting returns since when a change of the cluster has waited to come into force; zero if none does. Any goroutine may call it.
func (p *Pipeline) Waiting() time.Time {
	if since := p.applying.Load(); since != nil {
		return *since
	}
	if !p.store.AllSynced() {
		return time.Time{} // the source has not told all yet
	}
	return p.store.since()
}

// gather waits for changes that belong together.
func (p *Pipeline) gather(ctx context.Context) {
	if time.Since(p.last) > quiet {
		return
	}
	end := time.After(most)
	for {
		select {
		case <-ctx.Done():
			return
		case <-end:
			return
		case <-time.After(quiet):
			return
		case <-p.store.Changed():
		}
	}
}
