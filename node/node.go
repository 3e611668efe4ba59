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

	"golang.org/x/sync/errgroup"

	"github.com/middleway-net/middleway/cni"
	"github.com/middleway-net/middleway/cni/ipam"
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
	host      host
	offloads  map[string]Offload
	cluster   cluster
	dns       nodeDNS
	ways      ways
	balancers balancers
	others    atomic.Pointer[[]Peer] // the peers that there are now

	madeRunDir bool
	madeLeases bool
	notes      []string // for the status
	status     statusServer
	http       httpServer
	started    time.Time
}

// Run builds a node and runs it until ctx ends or a part of it fails. What it could not build in whole it takes down
// again before it returns; devices of pods stay, so that the next daemon takes them up.
func Run(ctx context.Context, c Config, log *slog.Logger) error {
	n, err := New(ctx, c, log)
	if ctx.Err() != nil && n == nil {
		return nil // it waited for the cluster
	}
	if err != nil {
		return err
	}
	return errors.Join(n.Run(ctx), n.Close())
}

// New builds a node. Nothing runs before Run. In a cluster it waits until that tells of the node, or ctx ends.
func New(ctx context.Context, c Config, log *slog.Logger) (*Node, error) {
	n := &Node{config: c, log: log.With("node", c.Name), started: time.Now(), notes: []string{}}
	n.others.Store(&c.Peers)
	for _, step := range []func() error{
		n.openSource, func() error { return n.learn(ctx) }, n.leaveOutIPv6, n.openState, n.findUnderlay, n.openTunnel, n.probeOffloads, n.openDNS, n.openNetstack, n.openLeases, n.openWays, n.buildStack, n.openPipeline, n.attachPods,
		n.attachHost, n.listenStatus, n.listenHTTP, n.openCNI, n.openListeners, n.recordPods, n.recordSelf, n.keepDevices,
	} {
		if err := step(); err != nil {
			return nil, errors.Join(err, n.Close(), n.removeState())
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
	g, ctx := errgroup.WithContext(ctx)
	n.runDNS(ctx, g)
	g.Go(func() error { return n.stack.Run(ctx) })
	g.Go(func() error { return n.netstack.Run(ctx) })
	g.Go(func() error { return n.tunnel.Run(ctx) })
	g.Go(func() error { return n.status.run(ctx) })
	g.Go(func() error { return n.http.run(ctx) })
	g.Go(func() error { return n.watchUnderlay(ctx) })
	if n.host.device != "" {
		g.Go(func() error { return n.watchHost(ctx) })
		g.Go(func() error { return n.keepHost(ctx) })
	}
	g.Go(func() error { return n.cni.Run(ctx) })
	n.runWays(ctx, g)
	n.runCluster(ctx, g)
	if n.config.EchoPort > 0 {
		g.Go(func() error { return n.netstack.ServeEcho(ctx, uint16(n.config.EchoPort)) })
	}
	n.http.ready.Store(true)
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
	errs = append(errs, n.status.close(), n.http.close())
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
	if n.cluster.outside != nil {
		n.cluster.outside.Close()
	}
	if n.tunnel != nil {
		errs = append(errs, n.tunnel.Close())
	}
	if n.leases != nil {
		errs = append(errs, n.leases.Close())
	}
	if n.flows != nil {
		errs = append(errs, n.flows.Close())
	}
	return errors.Join(errs...)
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
		Node: n.netstack, NodeAddrs: n.gateways(), DNSAddrs: n.dns.addrs, Answer: n.answerer(), PodCIDRs: n.config.PodCIDRs,
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
