package node

import (
	"context"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/middleway-net/middleway/cni/ipam"
	"github.com/middleway-net/middleway/node/hostport"
	"github.com/middleway-net/middleway/node/parent"
	"github.com/middleway-net/middleway/node/underlay"
	"github.com/middleway-net/middleway/proxy"
	"github.com/middleway-net/middleway/stack"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/service"
)

var (
	_ stack.Exits   = waysOut{}
	_ proxy.Sockets = (*parent.Pool)(nil)
)

// waysOut gives the stack's workers their parts of the proxy.
type waysOut struct{ *proxy.Proxy }

func (w waysOut) Exit(inject func(packet.Offload, ...[]byte)) (stack.Exit, error) {
	e, err := w.Proxy.Exit(inject)
	if err != nil {
		return nil, err
	}
	return e, nil
}

// ways are the ways into the cluster and out of it.
type ways struct {
	proxy   *proxy.Proxy
	parent  *parent.Client // nil: sockets are the daemon's own
	pool    *parent.Pool   // of parent
	table   atomic.Pointer[service.Table]
	changed chan struct{}        // has one when a listener, or an address, may have come or gone
	machine []underlay.Interface // of the parent's side, as it told last; keepListeners alone uses them, once it runs

	problems problems

	mu        sync.Mutex // guards the following
	fronts    []netip.Addr
	hostPorts []ipam.Lease   // as the table has them
	lone      *service.Table // where there is no cluster
}

// openWays makes what leads in and out. It opens no listener.
func (n *Node) openWays() (err error) {
	w := &n.ways
	w.changed = make(chan struct{}, 1)
	w.lone = service.New(n.config.Services.CIDRs)
	w.problems.tell = n.tellProblem
	if n.balancers.health, err = ownAddresses(healthField, n.config.Services.HealthAddress); err != nil {
		return err
	}
	if n.balancers.mode, err = ownAddresses(modeField, n.config.Services.ModeAddress); err != nil {
		return err
	}
	c := proxy.Config{Netstack: n.netstack, MTU: n.mtu, Problem: w.problems.note, Serve: n.serveBalancers, Left: n.heritage, Leave: n.leave, Logger: n.log}
	if n.keeper != nil {
		c.Keeper = n.keeper
	}
	if path := n.config.OutsideSockets; path != "" {
		if w.parent, err = parent.Dial(path); err != nil {
			return err
		}
		w.pool = w.parent.NewPool()
		c.Sockets = w.pool
	}
	w.proxy, err = proxy.New(c)
	return err
}

// openListeners says where NodePorts are, and takes host ports up that former daemons leased. Nothing listens before Run.
func (n *Node) openListeners() error {
	n.setHostPorts()
	n.ways.renew()
	sides, err := n.sides()
	if err == nil {
		n.setFronts(sides)
	}
	return err
}

// Socket makes a socket on the side of OutsideSockets, once openWays was called.
func (w *ways) Socket(domain, typ, proto int) (fd int, err error) {
	return w.pool.Socket(domain, typ, proto)
}

func (w *ways) close() error {
	if w.pool == nil {
		return nil
	}
	return w.pool.Close()
}

// everywhere is where pods do not reach what is outside of the cluster if egress is off.
var everywhere = []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}

// insideOnly returns the ranges to which nothing leads outside.
func (c *Config) insideOnly() []netip.Prefix {
	if c.Egress.Off {
		return everywhere
	}
	return c.ClusterCIDRs
}

// runWays moves what comes in and goes out until ctx ends.
func (n *Node) runWays(ctx context.Context, g *errgroup.Group) {
	g.Go(func() error { return n.ways.proxy.Run(ctx) })
	g.Go(func() error { return n.keepListeners(ctx) })
	g.Go(func() error { return n.watchFronts(ctx, underlay.Watch) })
	if n.ways.parent != nil {
		g.Go(func() error { return n.watchFronts(ctx, n.ways.parent.Watch) })
		g.Go(func() error { // nobody waits for a parent that hangs
			<-ctx.Done()
			n.ways.parent.Close()
			return nil
		})
	}
	if n.cluster.api != nil {
		g.Go(func() error { return n.cluster.api.RunEvents(ctx) })
	}
}

// forget ends what pods had to do with the outside whose addresses are nobody's any more.
func (w *ways) forget(pods []netip.Addr) {
	for _, a := range pods {
		w.proxy.Forget(a)
	}
}

// setServices and recallServices bring the Services into force, and their listeners.
func (n *Node) setServices(t *service.Table) {
	n.stack.SetServices(t)
	now := time.Now()
	n.balancers.updated.Store(&now)
	n.ways.setTable(t)
	n.checkServiceRanges()
}

func (n *Node) recallServices(t *service.Table) {
	n.stack.RecallServices(t)
	n.ways.setTable(t)
}

func (w *ways) setTable(t *service.Table) {
	w.table.Store(t)
	w.renew()
	w.proxy.Recheck()
}

// renew has addresses and listeners looked at.
func (w *ways) renew() {
	select {
	case w.changed <- struct{}{}:
	default: // they are about to be
	}
}

// setHostPorts makes the host ports those of the leases. It does not block, and any goroutine may call it.
func (n *Node) setHostPorts() {
	w := &n.ways
	w.mu.Lock()
	defer w.mu.Unlock()
	leases := slices.DeleteFunc(n.leases.All(), func(l ipam.Lease) bool { return len(l.PortMappings) == 0 })
	if reflect.DeepEqual(leases, w.hostPorts) || len(leases)+len(w.hostPorts) == 0 {
		return
	}
	former := w.hostPorts
	w.hostPorts = leases
	all := hostport.Services(leases)
	if n.cluster.pipeline != nil {
		n.cluster.pipeline.SetFurther(all)
		return
	}
	for name := range hostport.Services(former) {
		if all[name] == nil {
			all[name] = nil // it is gone
		}
	}
	w.lone = w.lone.With(all)
	n.setServices(w.lone)
}

// listenersPause is how long listeners stay as they are at least: a change of Services is one of many where a cluster starts.
const listenersPause = 50 * time.Millisecond

// keepListeners keeps the node's addresses and its listeners those that there have to be, until ctx ends.
func (n *Node) keepListeners(ctx context.Context) error {
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.ways.changed:
		case <-again:
		}
		again = nil
		if err := n.setListeners(); err != nil {
			n.log.Warn("the addresses of listeners are looked at again in a moment", "err", err)
			again = time.After(watchRetry)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(listenersPause):
		}
	}
}

// setListeners looks which addresses the node has, and opens and closes listeners there. While there is no parent, its side stays as it
// was known.
func (n *Node) setListeners() error {
	sides, err := n.sides()
	if err != nil {
		return err
	}
	n.setFronts(sides)
	if t := n.ways.table.Load(); t != nil {
		wanted := listeners(t, sides)
		maps.Copy(wanted, n.balancers.ownListeners(sides))
		n.ways.proxy.SetListeners(wanted)
	}
	return nil
}

// setFronts tells the stack where NodePorts are.
func (n *Node) setFronts(sides []side) {
	var fronts []netip.Addr
	for _, s := range sides {
		fronts = append(fronts, s.fronts...)
	}
	slices.SortFunc(fronts, netip.Addr.Compare)
	fronts = slices.Compact(fronts)
	n.ways.mu.Lock()
	n.ways.fronts = fronts
	n.ways.mu.Unlock()
	n.stack.SetFrontAddrs(fronts)
}

// sides returns where this node listens: in its own network namespace, and in that of the sockets outside.
func (n *Node) sides() ([]side, error) {
	primaries, pods := append(slices.Clone(n.config.NodeAddresses), n.config.Address), n.now().podRanges()
	own, err := underlay.Interfaces()
	if err != nil {
		return nil, err
	}
	here := side{here: n.ways.parent != nil, interfaces: own, fronts: fronts(n.config.NodePorts.Addresses, own, primaries, pods)}
	if n.ways.parent == nil {
		return []side{here}, nil
	}
	theirs, err := n.ways.parent.Interfaces()
	switch {
	case err == nil:
		n.ways.machine = theirs
	case n.ways.machine == nil:
		return nil, err
	default: // they are looked at again when there is a parent
		theirs = n.ways.machine
	}
	ranges := n.config.NodePorts.OutsideAddresses
	if len(ranges) == 0 {
		ranges = n.config.NodePorts.Addresses
	}
	return []side{here, {interfaces: theirs, fronts: fronts(ranges, theirs, primaries, pods)}}, nil
}

// watchFronts has addresses and listeners looked at when the interfaces of a network namespace change, until ctx ends.
func (n *Node) watchFronts(ctx context.Context, watch func(context.Context, func()) error) error {
	for ctx.Err() == nil {
		_ = watch(ctx, n.ways.renew) // the parent's end is told by watchUnderlay, or where a socket is missing
		select {
		case <-ctx.Done():
		case <-time.After(watchRetry):
		}
	}
	return nil
}
