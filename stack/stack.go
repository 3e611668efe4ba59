package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/middleway-net/middleway/stack/fib"
	"github.com/middleway-net/middleway/stack/flow"
	"github.com/middleway-net/middleway/stack/fragment"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/service"
	"github.com/middleway-net/middleway/stack/tap"
)

// Queue is one worker's end of a pod's device. A frame is a virtio_net_hdr of packet.VnetLen bytes and an IP packet.
type Queue interface {
	// FD returns the descriptor to wait on.
	FD() int
	// Read reads one frame without blocking and returns its length, or unix.EAGAIN; unix.EBADFD says that the device is gone. One
	// worker calls it.
	Read(frame []byte) (int, error)
	// Takes reports whether the device takes super-packets of a kind whole; else Write would cut what was merged for it.
	Takes(kind packet.GSO) bool
	// Write writes one frame, whose packet may go on in more. The bytes are borrowed until it returns. Any worker may call
	// it.
	Write(frame []byte, more [][]byte) error
}

// Port is one worker's end of the tunnel to other nodes. A peer is its underlay address.
type Port interface {
	// FD returns the descriptor to wait on, or -1 if the port only sends.
	FD() int
	// Receive receives one batch without blocking and hands over each packet in it, parsed, with its frame's first
	// packet.VnetLen bytes free to be overwritten. All of them are borrowed until the next call. It returns how many
	// datagrams it received; those it refused are counted in Drops.
	Receive(deliver func(frame []byte, p *packet.Parsed, o packet.Offload)) int
	// Send sends the packet in b to a peer, at the latest with the next Flush. It takes ownership of b.
	Send(b *packet.Buffer, p *packet.Parsed, o packet.Offload, peer netip.Addr)
	// Flush sends what is pending and releases its buffers.
	Flush()
	// MTU returns the largest packet that the way to a peer takes, in bytes.
	MTU(peer netip.Addr) int
	// Describe says for people how packets travel to a peer. Any goroutine may call it.
	Describe(peer netip.Addr) string
	// Drops returns the counters of what the port dropped.
	Drops() *packet.Drops
	// Tap lets the goroutine's taps see what is received and sent from now on; nil ends that. It is called between two batches.
	// What Receive hands over has been entered there, and gets its verdict by deliver.
	Tap(tap.Writers)
}

// Node is where packets addressed to the node itself end.
type Node interface {
	// Deliver takes a packet; it is borrowed until Deliver returns. Any worker may call it.
	Deliver(b []byte, p *packet.Parsed, o packet.Offload)
}

// Answerer answers DNS queries.
type Answerer interface {
	// Answer writes the answer to the query of a client into out, which has at least 1,232 bytes, and returns its length. ok is
	// false if it cannot say at once or needs more room: then the packet goes to the Node. Both are borrowed. Any worker may call
	// it; it must not block.
	Answer(out, query []byte, client netip.Addr) (n int, ok bool)
}

// Config configures a Stack.
type Config struct {
	// Workers is how many workers move packets. Default: the number of processors, at most 8.
	Workers int
	// Spin is how long a worker looks for further packets before it sleeps. Default 50 µs; negative: not at all.
	Spin time.Duration
	// Flows is the node's flow table. Default: one in memory. The caller closes it after Run has returned.
	Flows *flow.Table
	// Ports are the tunnel's ends, one a worker and one more for the node's own packets. None: no tunnel.
	Ports []Port
	// Node ends packets to NodeAddrs. None: they are dropped.
	Node Node
	// Outside takes packets out of the cluster. None: where no route leads, packets are dropped.
	Outside Outside
	// TunnelPort is the UDP port of the tunnel, which no pod reaches at any address outside: it could send what peers take for the
	// node's own. 0: none.
	TunnelPort uint16
	// ClusterCIDRs are ranges of the cluster, to which no packet leaves through Outside, whoever has the address. Nor does one to
	// PodCIDRs, ServiceCIDRs, and ranges to which a peer had a route.
	ClusterCIDRs []netip.Prefix
	// NodeAddrs are the addresses that the node itself answers. The first of each family is its pods' gateway, from which ICMP
	// errors are sent.
	NodeAddrs []netip.Addr
	// KnownAddrs are the host's addresses that peers know as this node's, and to which they send through the tunnel.
	KnownAddrs []netip.Addr
	// DNSAddrs are the addresses of Services that the node itself serves at port 53, over UDP and TCP: packets there end in Node,
	// which has these addresses too. Whatever endpoints such a Service has, no packet goes to them.
	DNSAddrs []netip.Addr
	// Answer answers what comes to DNSAddrs over UDP. Default: Node does.
	Answer Answerer
	// AwaitRoutes: until RoutesKnown is called, packets to where no route leads are dropped without a word, so that senders try again: a
	// peer may have a route there, and what is a pod's must not leave the cluster.
	AwaitRoutes bool
	// ServiceCIDRs are where the cluster's Services have their addresses. Until SetServices is called packets there are dropped
	// without a word, so that clients try again.
	ServiceCIDRs []netip.Prefix
	// PodCIDRs are the ranges of the node's own pods: sources are told when no pod has an address in them.
	PodCIDRs []netip.Prefix
	// MTU is the largest packet that the pods' devices take, in bytes. Default packet.MaxSize.
	MTU int
	// Vacated is told the addresses of a pod whose attachment is gone, once no worker sends there any more. It may call the Stack, but
	// not to attach or detach, and is to return soon. Default: nobody is told.
	Vacated func(addrs []netip.Addr)
	// Logger takes state changes. Default: none.
	Logger *slog.Logger
}

// DefaultSpin is how long a worker polls before it sleeps: it halved the round trip and cost no throughput on two cores;
// 10 µs gained nothing, 200 µs cost throughput between nodes.
const DefaultSpin = 50 * time.Microsecond

// maxWorkers bounds the default: beyond it queues and descriptors (pods × workers) cost more than they bring.
const maxWorkers = 8

// Workers returns the number of workers that a Config with n asks for.
func Workers(n int) int {
	if n > 0 {
		return n
	}
	return min(runtime.NumCPU(), maxWorkers)
}

// Stack moves packets. Its methods but Close may be called by any goroutine, before and while Run runs.
type Stack struct {
	log     *slog.Logger
	flows   *flow.Table
	node    Node
	outside Outside
	workers []*worker
	local   localWorker
	tracer  tracer
	tables  atomic.Pointer[tables]

	services atomic.Pointer[frontends]
	dns      []packet.AddrKey // Config.DNSAddrs
	answer   Answerer
	vacated  func([]netip.Addr) // Config.Vacated

	fragments  *fragment.Table
	mtu        int
	gateways   [2]netip.Addr // of IPv4 and IPv6; not valid where there is none
	known      []netip.Addr  // Config.KnownAddrs
	podCIDRs   []netip.Prefix
	tunnelPort uint16
	clock      func() time.Duration // since the stack was made
	told       chan []byte          // ICMP errors for the netstack
	gone       gone
	taps       atomic.Pointer[taps] // nil if nobody looks on

	fragmentsMu sync.Mutex // guards the taps' writers for fragments

	mu        sync.Mutex     // guards the making of tables
	inside    []netip.Prefix // Config.ClusterCIDRs, and ranges that were peers'
	routes    []fib.Route
	hostAddrs []netip.Addr
	awaited   bool // RoutesKnown was not called
	recalled  bool // services is what a former daemon wrote down
	served    bool // SetServices was called
}

// New builds a stack. Nothing runs before Run.
func New(c Config) (*Stack, error) {
	n := Workers(c.Workers)
	if c.Ports != nil && len(c.Ports) != n+1 {
		return nil, fmt.Errorf("stack of %d workers needs %d tunnel ports, got %d", n, n+1, len(c.Ports))
	}
	if c.Spin == 0 {
		c.Spin = DefaultSpin
	}
	if c.Flows == nil {
		c.Flows = flow.New(0)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.MTU == 0 {
		c.MTU = packet.MaxSize
	}
	if c.Vacated == nil {
		c.Vacated = func([]netip.Addr) {}
	}
	started := time.Now()
	s := &Stack{
		clock: func() time.Duration { return time.Since(started) },
		log:   c.Logger, flows: c.Flows, node: c.Node, outside: c.Outside, fragments: fragment.New(),
		mtu: c.MTU, gateways: gatewaysAmong(c.NodeAddrs), known: slices.Clone(c.KnownAddrs), podCIDRs: c.PodCIDRs, inside: slices.Clone(c.ClusterCIDRs), awaited: c.AwaitRoutes, tunnelPort: c.TunnelPort,
		told: make(chan []byte, maxTold), gone: gone{news: make(chan struct{}, 1)},
	}
	s.dns, s.answer, s.vacated = keysOf(c.DNSAddrs), c.Answer, c.Vacated
	s.services.Store(&frontends{Table: service.New(c.ServiceCIDRs)})
	nodeAddrs := slices.Concat(c.NodeAddrs, c.DNSAddrs)
	s.tables.Store(&tables{generation: c.Flows.NextGeneration(), fib: &fib.Table{}, nodeAddrs: nodeAddrs})
	if err := s.publish(nil); err != nil {
		return nil, err
	}
	for i := range n {
		w, err := newWorker(s, i, c)
		if err != nil {
			s.closeWorkers()
			return nil, err
		}
		s.workers = append(s.workers, w)
	}
	s.local.init(s, c)
	s.fragments.Lost = s.noteLostFragment
	return s, nil
}

// gatewaysAmong returns the first address of each family.
func gatewaysAmong(addrs []netip.Addr) (gateways [2]netip.Addr) {
	for _, a := range slices.Backward(addrs) {
		if a.Is4() {
			gateways[0] = a
		} else {
			gateways[1] = a
		}
	}
	return gateways
}

// Run moves packets until ctx ends or a worker fails, and returns after all workers have stopped. The devices stay open;
// Close closes them.
func (s *Stack) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, w := range s.workers {
		g.Go(w.run)
	}
	g.Go(func() error { return s.flows.Run(ctx) })
	g.Go(func() error { return s.fragments.Run(ctx, s.clock) })
	g.Go(func() error { return s.tellNode(ctx) })
	g.Go(func() error { return s.release(ctx) })
	g.Go(func() error { return s.recount(ctx) })
	g.Go(func() error {
		<-ctx.Done()
		for _, w := range s.workers {
			w.stop()
		}
		return nil
	})
	return g.Wait()
}

// Healthy returns nil when every worker has come round to its next batch, or an error that names those that have not when ctx
// ends.
func (s *Stack) Healthy(ctx context.Context) error {
	var errs []error
	for _, w := range s.workers {
		errs = append(errs, w.answer(ctx))
	}
	return errors.Join(errs...)
}

// Close closes the attachments' devices and the workers' descriptors. Run must have returned, or never been called.
func (s *Stack) Close() error {
	var errs []error
	for _, a := range s.tables.Load().attachments {
		if a != nil {
			errs = append(errs, a.device.Close())
		}
	}
	s.closeWorkers()
	return errors.Join(errs...)
}

func (s *Stack) closeWorkers() {
	for _, w := range s.workers {
		w.close()
	}
}

// Attachment describes a pod's interface on this node, or the host's.
type Attachment struct {
	// Name is for logs and statistics, for example "default/web-0".
	Name string
	// Addrs are the addresses that the pod has: packets to them go to its device, and it may send from no other.
	Addrs []netip.Addr
	// Host: it is not a pod's, but the way to the node's own kernel; one at most. It has the addresses of SetHostAddrs too. Of
	// Addrs, at most one of each family, are those from which it sends to peers; from another one it is translated.
	Host bool
	// Queues are the ends of its device. With fewer queues than workers some workers read none.
	Queues []Queue
	// Device closes the queues.
	Device io.Closer
}

// Attach adds an attachment and returns its number, which Detach takes. It takes ownership of the device. An address that
// another attachment or the node has is an error, and the device stays the caller's.
func (s *Stack) Attach(a Attachment) (uint32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	att, err := s.addLocked(a)
	if err != nil {
		return 0, err
	}
	for _, w := range s.workers {
		if err := w.call(func() error { return w.watch(att) }); err != nil {
			s.removeLocked(att, nil)
			return 0, fmt.Errorf("watch device of %s: %w", a.Name, err)
		}
	}
	s.log.Info("attached", att.kind(), a.Name, "addrs", a.Addrs)
	return att.id, nil
}

// Detach removes an attachment, be it lost or not, and closes its device, after the last worker has let go of it.
func (s *Stack) Detach(id uint32) error {
	att, err := s.detach(id)
	if err != nil {
		return err
	}
	s.tellVacated(att)
	return att.device.Close()
}

func (s *Stack) detach(id uint32) (*attachment, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	attachments := s.tables.Load().attachments
	if int(id) >= len(attachments) || attachments[id] == nil {
		return nil, fmt.Errorf("detach: no attachment %d", id)
	}
	att := attachments[id]
	s.removeLocked(att, nil)
	s.log.Info("detached", att.kind(), att.name)
	return att, nil
}

// tellVacated says that the addresses of an attachment that was removed are nobody's. The host's are its own with another device too.
func (s *Stack) tellVacated(att *attachment) {
	if !att.host && len(att.addrs) > 0 {
		s.vacated(att.addrs)
	}
}

// SetRoutes swaps in the routes to peers. Routes to attachments and to the node's own addresses stand beside them.
func (s *Stack) SetRoutes(routes []fib.Route) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.routes
	s.routes = routes
	s.keepInside(old)
	if err := s.publish(s.tables.Load().attachments); err != nil {
		s.routes = old
		return err
	}
	return nil
}

// RoutesKnown says that SetRoutes was given what there is, see Config.AwaitRoutes.
func (s *Stack) RoutesKnown() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.awaited {
		return nil
	}
	s.awaited = false
	if err := s.publish(s.tables.Load().attachments); err != nil {
		s.awaited = true
		return err
	}
	return nil
}

// keepInside notes ranges of peers that may have none any more: what pods still send there must not leave the cluster.
func (s *Stack) keepInside(routes []fib.Route) {
	for _, r := range routes {
		if r.Destination.Kind == fib.Peer && !r.Prefix.IsSingleIP() && !slices.Contains(s.inside, r.Prefix) {
			s.inside = append(s.inside, r.Prefix)
		}
	}
}
