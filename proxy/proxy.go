package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/netstack"
	"github.com/middleway-net/middleway/stack/packet"
)

// DefaultMTU is the MTU of most links to the outside, in bytes.
const DefaultMTU = 1500

// Sockets makes the sockets that lead outside.
type Sockets interface {
	// Socket is socket(2), in the network namespace in which the outside is reached.
	Socket(domain, typ, proto int) (fd int, err error)
}

// Config configures a Proxy.
type Config struct {
	// Netstack ends the pods' TCP connections. Required.
	Netstack *netstack.Netstack
	// Sockets makes sockets. Default: socket(2) of this process.
	Sockets Sockets
	// MTU is the largest IP packet that a pod takes, in bytes. Default DefaultMTU.
	MTU int
	// MaxConns bounds the TCP connections, of both directions together. Default DefaultMaxConns. One client has at
	// most as many as are free: half if it is alone, a third if two want all, so that there is always room for another one.
	MaxConns int
	// Serve serves the clients of a listener with Own until it is closed, and returns once their connections are. Default: there are no
	// such listeners.
	Serve func(net.Listener)
	// Problem is told of listeners that cannot be opened, each time with another reason, and with a nil error when that is over.
	// It must not block and not call the Proxy. Default: nobody is told.
	Problem func(l Listener, who string, err error)
	// Left are sockets of listeners that a former daemon had, which are taken up where the same listeners are wanted. They are the Proxy's,
	// which closes those that nobody wants soon after its start. Default: none.
	Left []Left
	// Leave is told by Drain of each open listener of TCP but the node's own, with its socket, which is borrowed: who has a copy keeps clients
	// from being refused. Default: nobody is told.
	Leave func(l Listener, socket int) error
	// Keeper keeps sockets for the case that this process dies. Default: nobody does.
	Keeper Keeper
	// Logger takes state changes. Default: none.
	Logger *slog.Logger
}

// Inject sends a packet, given in parts, whose unfinished checksum and segmentation o describes. The parts are borrowed.
type Inject func(o packet.Offload, parts ...[]byte)

// Backend returns the address of the pod with which a client of a TCP listener is connected that asked for an address and port; it is not
// valid if nobody knows. serves tells whether new clients of that port might get there, or might have until that pod began to end.
type Backend func(client, to netip.AddrPort) (at netip.Addr, serves bool)

// Proxy joins sockets of the node with pods. Its methods may be called by any goroutine.
//
// It and the Stack need each other, so it is joined in three steps: New; Connect, once there is a Stack to inject into; Run.
type Proxy struct {
	config        Config
	log           *slog.Logger
	inject        Inject // of the node's own: ICMP errors of its gateway
	injectOutside Inject // of the outside: datagrams of clients, answers to pods
	backend       Backend

	tcp       tcpProxy
	udp       udpProxy
	echo      echoProxy
	listeners listenerSet

	inheritance inheritance
}

// ownSockets are of this process's network namespace.
type ownSockets struct{}

func (ownSockets) Socket(domain, typ, proto int) (int, error) { return unix.Socket(domain, typ, proto) }

// New builds a Proxy.
func New(c Config) (*Proxy, error) {
	if c.Netstack == nil {
		return nil, errors.New("proxy: a netstack is needed")
	}
	if c.MTU == 0 {
		c.MTU = DefaultMTU
	}
	if c.MTU < 576 || c.MTU > packet.MaxSize {
		return nil, fmt.Errorf("proxy MTU %d: must be from 576 to %d", c.MTU, packet.MaxSize)
	}
	if c.MaxConns < 0 {
		return nil, fmt.Errorf("proxy: at most %d connections: must not be negative", c.MaxConns)
	}
	if c.MaxConns == 0 {
		c.MaxConns = DefaultMaxConns
	}
	if c.Sockets == nil {
		c.Sockets = ownSockets{}
	}
	if c.Keeper == nil {
		c.Keeper = noKeeper{}
	}
	if c.Problem == nil {
		c.Problem = func(Listener, string, error) {}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	p := &Proxy{config: c, log: c.Logger}
	if err := p.tcp.init(p); err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	p.udp.init(p)
	p.echo.init(p)
	p.listeners.init(p)
	p.inheritance.init(c.Left)
	return p, nil
}

// Connect says where packets go: inject takes those of the node itself, injectOutside those that come from outside; and whom backend
// knows. It is called once, before Run and before Deliver.
func (p *Proxy) Connect(inject, injectOutside Inject, backend Backend) {
	p.inject, p.injectOutside, p.backend = inject, injectOutside, backend
}

// Run moves data until ctx ends. It then resets the connections that are left, and returns after all its goroutines have ended. The
// netstack has to run as long.
func (p *Proxy) Run(ctx context.Context) error {
	if p.inject == nil || p.injectOutside == nil || p.backend == nil {
		return errors.New("run proxy: Connect was not called")
	}
	g, running := errgroup.WithContext(ctx)
	p.tcp.open(running) // before a listener of a former daemon has who waits there
	g.Go(func() error { return p.tcp.run(running) })
	g.Go(func() error { return p.udp.run(running) })
	g.Go(func() error { return p.echo.run(running) })
	g.Go(func() error { return p.listeners.run(running) })
	if err := g.Wait(); err != nil {
		return fmt.Errorf("run proxy: %w", err)
	}
	return nil
}

// Deliver takes a packet that leaves the cluster: b, whose headers are h and whose checksums are verified or, if o says so,
// unfinished. b is borrowed. Any worker may call it; it does not block.
func (p *Proxy) Deliver(b []byte, h *packet.Parsed, o packet.Offload) {
	switch h.Proto {
	case packet.TCP:
		p.config.Netstack.Deliver(b, h, o)
	case packet.UDP:
		p.udp.deliver(b, h, o)
	case packet.ICMP, packet.ICMPv6:
		p.echo.deliver(b, h, o)
	}
}

// SetListeners says which listeners there are to be, each with whom it serves, for messages. Those that stay are kept; it returns
// before the others are opened and closed. Listeners that cannot be opened are tried again, see Config.Problem. The map is the
// Proxy's afterwards.
func (p *Proxy) SetListeners(wanted map[Listener]string) { p.listeners.set(wanted) }

// Forget ends what a pod's address has to do with the outside, since the pod is gone: its connections, and those of clients to it, are
// reset.
func (p *Proxy) Forget(pod netip.Addr) {
	p.tcp.forget(pod)
	p.udp.forget(pod)
	p.echo.forget(pod)
}

// Recheck says that backends may serve no longer: those of clients of TCP listeners are asked whether they are still there. It does not
// block.
func (p *Proxy) Recheck() {
	select {
	case p.tcp.recheck <- struct{}{}:
	default: // it is about to be done
	}
}

// Stats are a Proxy's counters since its start, but those that say "open".
type Stats struct {
	TCP  TCPStats  `json:"tcp"`
	UDP  UDPStats  `json:"udp"`
	Echo EchoStats `json:"echo"`
	// Listeners are open, Problems could not be opened.
	Listeners int `json:"listeners"`
	Problems  int `json:"problems"`
}

// Stats returns the counters.
func (p *Proxy) Stats() Stats {
	s := Stats{TCP: p.tcp.stats(), UDP: p.udp.stats(), Echo: p.echo.stats()}
	s.Listeners, s.Problems = p.listeners.count()
	return s
}
