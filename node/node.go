// Package node builds one node from a Config and runs it: devices of the pods, the stack between them, the tunnel to the
// other nodes, the netstack behind the gateway addresses, and the state that a restarted daemon takes up again.
package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/middleway-net/middleway/cni/link"
	"github.com/middleway-net/middleway/stack"
	"github.com/middleway-net/middleway/stack/fib"
	"github.com/middleway-net/middleway/stack/flow"
	"github.com/middleway-net/middleway/stack/netstack"
	"github.com/middleway-net/middleway/stack/tun"
	"github.com/middleway-net/middleway/tunnel"
	"github.com/middleway-net/middleway/tunnel/udp"
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
	config   Config
	log      *slog.Logger
	mtu      int
	flows    *flow.Table
	tunnel   *tunnel.Tunnel
	netstack *netstack.Netstack
	stack    *stack.Stack
	devices  []device

	madeRunDir bool
	status     statusServer
	started    time.Time
}

// Run builds a node and runs it until ctx ends or a part of it fails. What it could not build in whole it takes down
// again before it returns; devices of pods stay, so that the next daemon takes them up.
func Run(ctx context.Context, c Config, log *slog.Logger) error {
	n, err := New(c, log)
	if err != nil {
		return err
	}
	return errors.Join(n.Run(ctx), n.Close())
}

// New builds a node. Nothing runs before Run.
func New(c Config, log *slog.Logger) (*Node, error) {
	n := &Node{config: c, log: log.With("node", c.Name), started: time.Now()}
	for _, step := range []func() error{
		n.openState, n.openTunnel, n.openNetstack, n.buildStack, n.attachPods, n.listenStatus, n.keepDevices,
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
	n.log.Info("node is up", "address", n.config.Address, "podCIDRs", n.config.PodCIDRs, "mtu", n.mtu,
		"pods", len(n.config.Pods), "peers", len(n.config.Peers), "restoredFlows", n.flows.Restored())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.stack.Run(ctx) })
	g.Go(func() error { return n.netstack.Run(ctx) })
	g.Go(func() error { return n.status.run(ctx) })
	if n.config.EchoPort > 0 {
		g.Go(func() error { return n.netstack.ServeEcho(ctx, uint16(n.config.EchoPort)) })
	}
	err := g.Wait()
	n.log.Info("node is down", "err", err)
	return err
}

// Close closes what New opened. Devices that were made persistent stay in the pods' namespaces.
func (n *Node) Close() error {
	var errs []error
	errs = append(errs, n.status.close())
	if n.netstack != nil {
		n.netstack.Close() // it may still send into the stack's devices
	}
	if n.stack != nil {
		errs = append(errs, n.stack.Close())
	}
	if n.tunnel != nil {
		errs = append(errs, n.tunnel.Close())
	}
	if n.flows != nil {
		errs = append(errs, n.flows.Close())
	}
	return errors.Join(errs...)
}

// openState makes the run directory and opens the flow table there; its lock keeps a second daemon out.
func (n *Node) openState() error {
	_, missing := os.Stat(n.config.RunDir)
	if err := os.MkdirAll(n.config.RunDir, 0o700); err != nil {
		return fmt.Errorf("make run directory: %w; choose another one by runDir", err)
	}
	n.madeRunDir = errors.Is(missing, fs.ErrNotExist)
	flows, err := flow.Open(n.flowFile(), n.config.FlowEntries)
	switch {
	case errors.Is(err, flow.ErrInUse):
		return fmt.Errorf("another middleway node runs on %s; end it, or choose another runDir", n.config.RunDir)
	case err != nil:
		return fmt.Errorf("%w; make its directory writable, or choose another runDir", err)
	}
	n.flows = flows
	return nil
}

func (n *Node) flowFile() string { return filepath.Join(n.config.RunDir, "flows") }

// removeState takes away what a failed start made, but never what a former daemon left.
func (n *Node) removeState() error {
	var errs []error
	if n.flows != nil && !n.flows.Reopened() {
		errs = append(errs, os.Remove(n.flowFile()))
	}
	if n.madeRunDir {
		errs = append(errs, os.Remove(n.config.RunDir))
	}
	return errors.Join(errs...)
}

// setMTU finds the pods' MTU, or checks the one that was configured: a packet that the underlay does not take would be
// dropped.
func (n *Node) setMTU() error {
	underlay, err := underlayMTU(n.config.Address)
	if err != nil {
		return err
	}
	overhead := tunnel.Overhead(n.config.Address)
	n.mtu = min(underlay-overhead, maxMTU)
	if least := n.leastMTU(); n.mtu < least {
		return fmt.Errorf("mtu: the interface with %v has %d bytes, which leaves pods %d of at least %d; raise it to %d",
			n.config.Address, underlay, n.mtu, least, least+underlay-n.mtu)
	}
	if n.config.MTU > n.mtu {
		return fmt.Errorf("mtu: %d needs %d bytes on the interface with %v, which has %d; lower mtu to %d, or raise the interface's",
			n.config.MTU, n.config.MTU+overhead, n.config.Address, underlay, n.mtu)
	}
	if n.config.MTU != 0 {
		n.mtu = n.config.MTU
	}
	return nil
}

func (n *Node) openTunnel() error {
	if err := n.setMTU(); err != nil {
		return err
	}
	mac, err := vxlan.ParseMAC(n.config.VXLAN.MAC)
	if err != nil {
		return err
	}
	t, err := tunnel.New(tunnel.Config{
		Local: n.config.Address, Port: n.config.VXLAN.Port, VNI: n.config.VXLAN.VNI, MAC: mac,
		MTU: n.mtu, Workers: stack.Workers(n.config.Workers),
	})
	if err != nil {
		return err
	}
	n.tunnel = t
	return n.setPeers()
}

// leastMTU returns what every interface of the pods' families has to take.
func (n *Node) leastMTU() int {
	if slices.ContainsFunc(n.config.PodCIDRs, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
		return minMTU
	}
	return minMTU4
}

func (n *Node) setPeers() error {
	peers := make([]tunnel.Peer, len(n.config.Peers))
	for i, p := range n.config.Peers {
		mac, err := vxlan.ParseMAC(p.MAC)
		if err != nil {
			return err
		}
		peers[i] = tunnel.Peer{
			Addr: p.Address, MAC: mac, Sources: append([]netip.Prefix{netip.PrefixFrom(p.Address, p.Address.BitLen())}, p.PodCIDRs...),
			Trains: !p.Kernel || p.Trains, RemoteChecksum: !p.Kernel, Unfinished: p.Kernel,
		}
	}
	return n.tunnel.SetPeers(peers)
}

// gateways are the addresses that the node itself answers.
func (n *Node) gateways() (addrs []netip.Addr) {
	for _, cidr := range n.config.PodCIDRs {
		addrs = append(addrs, Gateway(cidr))
	}
	return addrs
}

func (n *Node) openNetstack() (err error) {
	n.netstack, err = netstack.New(netstack.Config{Addrs: n.gateways(), MTU: n.mtu, Logger: n.log})
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
		Node: n.netstack, NodeAddrs: n.gateways(), Logger: n.log,
	})
	if err != nil {
		return err
	}
	n.stack = s
	n.netstack.Connect(s.Inject)
	var routes []fib.Route
	for _, p := range n.config.Peers {
		for _, cidr := range p.PodCIDRs {
			routes = append(routes, fib.Route{Prefix: cidr, Destination: fib.Destination{Kind: fib.Peer, Peer: p.Address}})
		}
	}
	return s.SetRoutes(routes)
}

func (n *Node) attachPods() error {
	for _, p := range n.config.Pods {
		err := n.attach(p)
		if errors.Is(err, fs.ErrNotExist) && n.flows.Reopened() {
			n.log.Warn("pod has ended while no daemon ran; it is left out", "pod", p.Name, "err", err)
			continue
		}
		if err != nil {
			return fmt.Errorf("attach pod %s: %w", p.Name, err)
		}
	}
	return nil
}

func (n *Node) attach(p Pod) error {
	dev, queues, err := n.openDevice(link.Config{
		Netns: p.Netns, Addrs: p.Addresses, Gateways: n.gatewaysOf(p.Addresses), MTU: n.mtu,
		Queues: stack.Workers(n.config.Workers), MaxSegments: maxSegments(n.mtu),
	})
	if err != nil {
		return err
	}
	if _, err := n.stack.Attach(stack.Attachment{Name: p.Name, Addrs: p.Addresses, Queues: queues, Device: dev}); err != nil {
		return errors.Join(err, dev.Close())
	}
	n.devices = append(n.devices, dev)
	return nil
}

// device is a pod's device of either kind.
type device interface {
	SetPersist(on bool) error
	Close() error
}

func (n *Node) openDevice(c link.Config) (device, []stack.Queue, error) {
	if n.config.PortableDevices {
		dev, err := link.OpenPortable(c)
		return dev, []stack.Queue{dev}, err
	}
	dev, err := link.Open(c)
	if err != nil {
		return nil, nil, err
	}
	queues := make([]stack.Queue, 0, len(dev.Queues()))
	for _, q := range dev.Queues() {
		queues = append(queues, q)
	}
	return dev, queues, nil
}

// gatewaysOf returns the gateways of the families that a pod has.
func (n *Node) gatewaysOf(addrs []netip.Addr) (gateways []netip.Addr) {
	for _, g := range n.gateways() {
		for _, a := range addrs {
			if a.Is4() == g.Is4() {
				gateways = append(gateways, g)
			}
		}
	}
	return gateways
}

// maxSegments is how many segments of a super-packet fit one train.
func maxSegments(mtu int) int { return max(1, min(udp.MaxTrain, udp.MaxTrainLen/(mtu+vxlan.Overhead))) }

// keepDevices makes the pods' devices outlive the daemon. It is the last step of New: a start that failed before leaves no
// device behind that was not there.
func (n *Node) keepDevices() error {
	for _, dev := range n.devices {
		if err := dev.SetPersist(true); err != nil {
			return err
		}
	}
	return nil
}
