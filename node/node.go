// Package node builds one node from a Config and runs it: devices of the pods, the stack between them, the tunnel to the
// other nodes, the netstack behind the gateway addresses, and the state that a restarted daemon takes up again.
package node

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/middleway-net/middleway/cni"
	"github.com/middleway-net/middleway/cni/ipam"
	"github.com/middleway-net/middleway/proxy"
	"github.com/middleway-net/middleway/stack"
	"github.com/middleway-net/middleway/stack/flow"
	"github.com/middleway-net/middleway/stack/netstack"
	"github.com/middleway-net/middleway/stack/tun"
	"github.com/middleway-net/middleway/tunnel"
	"github.com/middleway-net/middleway/tunnel/vxlan"
)

// The tunnel and the netstack are handed to the stack as its small interfaces.
var (
	_ stack.Port  = (*tunnel.Port)(nil)
	_ stack.Node  = (*netstack.Netstack)(nil)
	_ stack.Queue = (*tun.Queue)(nil)
	_ stack.Queue = (*tun.Portable)(nil)
)

// spareThreads is how many goroutines beside the workers may run at once: workers poll without telling the scheduler, so
// that the netstack and the status socket need processors of the runtime's own.
const spareThreads = 2

// Node is one node.
type Node struct {
	config    Config
	log       *slog.Logger
	out       wayOut
	mtu       int
	flows     *flow.Table
	tunnel    *tunnel.Tunnel
	netstack  *netstack.Netstack
	stack     *stack.Stack
	devices   []device    // of the configuration's pods
	leases    *ipam.Store // of the pods that the CNI plugin attaches
	cni       *cni.Server
	adds      prometheus.Histogram // seconds
	host      host
	offloads  map[string]Offload
	cluster   cluster
	dns       nodeDNS
	ways      ways
	balancers balancers
	others    atomic.Pointer[[]Peer] // the peers that there are now
	turn      turn                   // among the daemons of this node
	giveWay   context.CancelFunc     // once it runs
	given     atomic.Bool            // it gave way
	granted   atomic.Bool            // another one gave way to it
	overdue   func() bool            // stops the watch over its end, once it has given way
	heritage  []proxy.Left           // of the daemon before this one
	keeper    *keeper                // nil: there is none

	madeRunDir bool
	madeLeases bool
	madeFlows  bool
	notes      []string // for the status
	status     statusServer
	http       *httpServer
	troubles   troubles
	started    time.Time
}

// Run builds a node and runs it until ctx ends or a part of it fails. What it could not build in whole it takes down
// again before it returns; devices of pods stay, so that the next daemon takes them up. In a cluster with an API server that is told why,
// and what may be mended meanwhile is waited for and tried again; there a node gives way to another daemon that asks for its turn, and is built
// again once that one has ended.
func Run(ctx context.Context, c Config, log *slog.Logger) error {
	for t := asks; ; t = gaveWay {
		front := &httpServer{errors: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
		n, err := start(ctx, c, front, t, log)
		if ctx.Err() != nil && n == nil {
			return front.close() // it waited
		}
		if err != nil {
			return errors.Join(err, front.close())
		}
		err = errors.Join(n.Run(ctx), front.close(), n.Close())
		n.closeOutside()
		if n.overdue != nil {
			n.overdue()
		}
		if err != nil || ctx.Err() != nil || !n.given.Load() {
			return err
		}
	}
}

// start builds a node, with further attempts where these make sense.
func start(ctx context.Context, c Config, front *httpServer, t turn, log *slog.Logger) (*Node, error) {
	if c.Kubernetes.hasAPI() && t != gaveWay {
		_ = front.open(c.HTTP) // where another daemon of this node still answers, that is tried again once it has ended
	}
	var former failure
	for {
		n, err := build(ctx, c, front, t, &former, log)
		if err == nil {
			return n, nil
		}
		if ctx.Err() != nil {
			return nil, err
		}
		// Where another daemon can work this one ends: that one takes its turn, and kubelet sees that this one is not ready.
		if _, waits := reasonOf(err); !waits || n.cluster.api == nil || n.relieved() {
			return nil, err
		}
		why := sentence(err)
		if shown := front.waits.Swap(&why); shown == nil || *shown != why {
			n.log.Error(why + "; this is tried again")
		}
		if !wait(ctx, startPause) {
			return nil, err
		}
		if t == asks {
			t = couldNot
		}
	}
}

// startPause is between attempts to start.
const startPause = 3 * time.Second

// build builds a node. Nothing runs before Run, but what answers about health. In a cluster it waits until that tells of the node, and
// until another daemon in its place has ended, or ctx ends. A node that could not be built is closed.
func build(ctx context.Context, c Config, front *httpServer, t turn, former *failure, log *slog.Logger) (*Node, error) {
	n := &Node{config: c, log: log.With("node", c.Name), http: front, turn: t, started: time.Now(), notes: []string{}, adds: newAdds()}
	n.troubles.log = n.log
	n.others.Store(&c.Peers)
	for _, step := range []struct {
		reason string // why it fails
		waits  bool   // it may be mended meanwhile
		do     func() error
	}{
		{reasonConfiguration, false, n.openSource},
		{reasonConfiguration, false, func() error { return n.learn(ctx) }},
		{reasonConfiguration, false, n.leaveOutIPv6},
		{reasonRunDir, false, func() error { return n.openState(ctx) }},
		{reasonRunDir, false, func() error { return n.openKeeper(ctx) }},
		{reasonStart, false, n.listenEarly},
		{reasonAddress, true, n.findUnderlay},
		{reasonStart, false, n.openTunnel},
		{reasonStart, false, n.probeOffloads},
		{reasonConfiguration, false, n.openDNS},
		{reasonStart, false, n.openNetstack},
		{reasonRunDir, false, n.openLeases},
		{reasonStart, false, n.openWays},
		{reasonStart, false, n.buildStack},
		{reasonStart, false, n.openPipeline},
		{reasonStart, false, n.attachPods},
		{reasonHostDevice, true, n.attachHost},
		{reasonRunDir, false, n.listenStatus},
		{reasonStart, true, n.listenHTTP},
		{reasonRunDir, true, n.openCNI},
		{reasonStart, false, n.openListeners},
		{reasonRunDir, false, n.recordPods},
		{reasonRunDir, false, n.recordSelf},
		{reasonStart, false, n.keepDevices},
	} {
		if err := step.do(); err != nil {
			err = failed(step.reason, step.waits, err)
			closed := errors.Join(n.removeState(), n.Close(), n.removeRunDir()) // another daemon that waits begins at once
			n.tellFailure(ctx, err, former)
			n.closeOutside()
			return n, errors.Join(err, closed)
		}
	}
	return n, nil
}

// Run moves packets until ctx ends or a part fails. All parts are told at once and may end in any order: a netstack that
// has ended takes no packet, and what it sends while it ends still finds devices and sockets, which Close closes after all
// parts have returned.
func (n *Node) Run(ctx context.Context) error {
	if want := stack.Workers(n.config.Workers) + spareThreads; runtime.GOMAXPROCS(0) < want {
		runtime.GOMAXPROCS(want)
	}
	n.log.Info("node is up", "address", n.config.Address, "interface", n.out.Interface, "how", n.out.How,
		"podCIDRs", n.config.PodCIDRs, "mtu", n.mtu, "pods", n.stack.Stats().Attachments, "peers", len(n.peers()),
		"restoredFlows", n.flows.Restored())
	ended, giveWay := context.WithCancel(ctx)
	defer giveWay()
	n.giveWay = giveWay
	ctx, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		n.drain(ctx, ended)
		end()
		return nil
	})
	g.Go(func() error { return n.prove(ended) })
	if n.cluster.pipeline != nil {
		n.cluster.pipeline.Recall() // before packets move: nobody who asks for a name shall hear that it is not known yet
	}
	n.runDNS(ctx, g)
	g.Go(func() error { return n.stack.Run(ctx) })
	g.Go(func() error { return n.netstack.Run(ctx) })
	g.Go(func() error { return n.tunnel.Run(ctx) })
	g.Go(func() error { return n.status.run(ctx) })
	g.Go(func() error { return n.http.run(ctx, n) })
	g.Go(func() error { return n.watchUnderlay(ctx) })
	if n.host.device != "" {
		g.Go(func() error { return n.watchHost(ctx) })
		g.Go(func() error { return n.keepHost(ctx) })
	}
	g.Go(func() error { return n.cni.Run(ctx) })
	if n.config.CNI.Conflist != "" {
		g.Go(func() error { return n.keepConflist(ctx) })
	}
	g.Go(func() error { return n.troubles.repeat(ctx) })
	n.runWays(ctx, g)
	if n.keeper != nil {
		g.Go(func() error { return n.keeper.Run(ended) }) // a store beside this daemon may end when it does
	}
	n.runCluster(ctx, g)
	if n.config.EchoPort > 0 {
		g.Go(func() error { return n.netstack.ServeEcho(ctx, uint16(n.config.EchoPort)) })
	}
	n.http.ready.Store(true)
	context.AfterFunc(ended, func() { n.http.ready.Store(false) })
	context.AfterFunc(ctx, func() { n.http.ready.Store(false) })
	err := g.Wait()
	if err != nil {
		n.log.Error("node is down", "err", err)
	} else {
		n.log.Info("node is down")
	}
	return err
}

// Close closes what New opened. Devices that were made persistent stay in the pods' namespaces.
func (n *Node) Close() error {
	var errs []error
	errs = append(errs, n.status.close())
	if n.cni != nil {
		errs = append(errs, n.cni.Close())
	}
	if n.netstack != nil {
		n.netstack.Close() // it may still send into the stack's devices
	}
	if n.stack != nil {
		errs = append(errs, n.stack.Close())
	}
	errs = append(errs, n.ways.close())
	if n.tunnel != nil {
		errs = append(errs, n.tunnel.Close())
	}
	if n.leases != nil {
		errs = append(errs, n.leases.Close())
	}
	for _, l := range n.heritage {
		_ = l.Socket.Close() // where the proxy has not
	}
	if n.keeper != nil {
		errs = append(errs, n.keeper.Close())
	}
	if n.flows != nil {
		errs = append(errs, n.flows.Close())
	}
	return errors.Join(errs...)
}

// closeOutside ends what leads to the API server.
func (n *Node) closeOutside() {
	if n.cluster.outside != nil {
		n.cluster.outside.Close()
	}
}

// gateways are the addresses that the node itself answers.
func (n *Node) gateways() (addrs []netip.Addr) {
	for _, cidr := range n.config.PodCIDRs {
		addrs = append(addrs, Gateway(cidr))
	}
	return addrs
}

func (n *Node) openNetstack() (err error) {
	n.netstack, err = netstack.New(netstack.Config{Addrs: slices.Concat(n.gateways(), n.dns.addrs), MTU: n.mtu, Logger: n.log})
	return err
}

func (n *Node) buildStack() error {
	workers := stack.Workers(n.config.Workers)
	ports := make([]stack.Port, workers+1)
	for i := range ports {
		ports[i] = n.tunnel.Port(i)
	}
	s, err := stack.New(stack.Config{
		Workers: workers, Spin: time.Duration(n.config.Spin), Flows: n.flows, Ports: ports,
		Node: n.netstack, NodeAddrs: n.gateways(), KnownAddrs: n.config.NodeAddresses, DNSAddrs: n.dns.addrs, Answer: n.answerer(), PodCIDRs: n.config.PodCIDRs,
		AwaitRoutes: n.cluster.source != nil && len(n.config.Peers) == 0, ServiceCIDRs: n.config.Services.CIDRs, MTU: n.mtu, Logger: n.log,
		Outside: waysOut{n.ways.proxy}, Vacated: n.ways.forget, TunnelPort: cmp.Or(n.config.VXLAN.Port, vxlan.DefaultPort), ClusterCIDRs: n.config.insideOnly(),
	})
	if err != nil {
		return err
	}
	n.stack = s
	n.netstack.Connect(s.Inject)
	n.ways.proxy.Connect(s.Inject, s.InjectOutside, s.Backend)
	return s.SetRoutes(routesTo(n.peers()))
}
