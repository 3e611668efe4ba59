// Package netstack is the node's host half: the gVisor network stack in which packets addressed to the node itself end.
//
//	worker ─► Deliver ─► one copy ─► gVisor ─► ICMP echo, refusals (RST, port unreachable)
//	                                   │  ▲
//	                                   ▼  │
//	                         net.Conn, net.PacketConn: echo service, cluster DNS, clients of listeners
//	                                      │
//	worker ◄─ stack.Inject ◄─ linkEndpoint ◄┘   TCP super-packets whole, their checksums unfinished
//
// What ends here: packets to the node's own addresses (the pods' gateway), and connections that the node itself opens or
// accepts. What passes through never comes here: pod to pod, pod to peer and peer to pod are the workers' (package stack).
// Forwarding is off, and so is everything that would send unasked: duplicate address detection, router solicitation,
// multicast reports. The link has no layer 2 and so no neighbors.
//
// Only this package imports gvisor.dev. Its users see the net package's types.
package netstack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"github.com/middleway-net/middleway/stack/packet"
)

// DefaultMTU is what VXLAN over IPv4 leaves of an underlay of 1500 bytes.
const DefaultMTU = 1450

// nicID numbers the only interface.
const nicID tcpip.NICID = 1

// Config configures a Netstack.
type Config struct {
	// Addrs are the addresses that the node answers, IPv4 and IPv6. Required.
	Addrs []netip.Addr
	// MTU is the largest IP packet that is sent unsegmented, in bytes, IP header included. Default DefaultMTU.
	MTU int
	// Logger takes state changes. Default: none.
	Logger *slog.Logger
}

// Inject sends a packet, given in parts, whose unfinished checksum and segmentation o describes. The parts are borrowed: it
// copies them before it returns. Any goroutine may call it. It must not call Deliver of the Netstack that called it: gVisor
// answers from within Deliver. It is (*stack.Stack).Inject.
type Inject func(o packet.Offload, parts ...[]byte)

// Netstack is a node's own network stack. Its methods may be called by any goroutine.
//
// It and the Stack need each other, so it is joined in three steps: New; Connect, once there is a Stack to inject into; Run.
type Netstack struct {
	log   *slog.Logger
	addrs []netip.Addr
	stack *stack.Stack
	link  linkEndpoint
	conns conns
	close sync.Once
}

// New builds a netstack. gVisor starts its TCP processors here already (GOMAXPROCS goroutines, idle until a packet comes).
// Run ends them; a caller that does not get as far as Run calls Close.
func New(c Config) (*Netstack, error) {
	if c.MTU == 0 {
		c.MTU = DefaultMTU
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	n := &Netstack{log: c.Logger, addrs: slices.Clone(c.Addrs)}
	n.link.mtu.Store(uint32(c.MTU))
	n.link.own = map[tcpip.Address]bool{}
	n.conns.by = map[stack.TransportEndpointID]*Conn{}
	for _, a := range c.Addrs {
		n.link.own[toAddress(a)] = true
	}
	n.stack = stack.New(stack.Options{
		NetworkProtocols: []stack.NetworkProtocolFactory{ipv4.NewProtocolWithOptions(loopbackIPv4), ipv6.NewProtocolWithOptions(quietIPv6)},
		TransportProtocols: []stack.TransportProtocolFactory{
			tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6,
		},
		// Were it to handle local traffic, the interface would take every source for its own once it takes any destination (Spoof).
		// What the node sends to itself the link gives back.
		HandleLocal: false,
	})
	if err := n.configure(); err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

// check reports what is wrong with a Config. Least MTUs: RFC 791, section 3.2 (what every host accepts); RFC 8200, section 5.
func (c *Config) check() error {
	least := 576
	for _, a := range c.Addrs {
		if !a.IsValid() || a.Is4In6() || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
			return fmt.Errorf("netstack address %v: not a unicast address", a)
		}
		if a.Is6() {
			least = 1280
		}
	}
	if len(c.Addrs) == 0 {
		return errors.New("netstack: at least one address is needed")
	}
	if c.MTU < least || c.MTU > packet.MaxSize {
		return fmt.Errorf("netstack MTU %d: must be from %d to %d", c.MTU, least, packet.MaxSize)
	}
	return nil
}

// quietIPv6 says in words what zero values say: no router discovery, no address made up, no duplicate address detection.
// On a link without layer 2 nobody would answer, and what is multicast would only be dropped by the workers.
var quietIPv6 = ipv6.Options{
	NDPConfigs:       ipv6.NDPConfigurations{MaxRtrSolicitations: 0, HandleRAs: ipv6.HandlingRAsDisabled},
	AutoGenLinkLocal: false,
	MLD:              ipv6.MLDOptions{Enabled: false},
	DADConfigs:       stack.DADConfigurations{DupAddrDetectTransmits: 0},

	AllowExternalLoopbackTraffic: true,
}

// loopbackIPv4 lets DialFrom stand for clients on the node's loopback interface, as AllowExternalLoopbackTraffic of quietIPv6
// does. What else comes from such addresses the workers drop.
var loopbackIPv4 = ipv4.Options{AllowExternalLoopbackTraffic: true}

// configure gives the stack its interface, addresses, routes and limits.
func (n *Netstack) configure() error {
	err := n.stack.CreateNICWithOptions(nicID, &n.link, stack.NICOptions{Name: "node", QDisc: &n.link})
	if err != nil {
		return fmt.Errorf("make netstack interface: %w", toError(err))
	}
	for _, a := range n.addrs {
		addr := tcpip.ProtocolAddress{Protocol: networkOf(a), AddressWithPrefix: toAddress(a).WithPrefix()}
		if err := n.stack.AddProtocolAddress(nicID, addr, stack.AddressProperties{}); err != nil {
			return fmt.Errorf("add netstack address %v: %w", a, toError(err))
		}
	}
	n.stack.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: nicID},
		{Destination: header.IPv6EmptySubnet, NIC: nicID},
	})
	return n.tune()
}

// Sizes of socket buffers, in bytes. TCP moves its own between default and maximum, and announces half of what it has for
// receiving as its window. The legs that end here stay inside the cluster: 2 MiB of window are 16 Gbit/s at a round trip of
// 1 ms. A UDP socket's is what a burst may leave unread: gVisor's 212 KiB are 140 full packets.
//
// maxReceive is the largest that a window scale of 6 can say, since gVisor accepts no more than it announced, rounded down
// to 1<<scale bytes. Seen in a trace: its window shut on a 16-byte segment sent within the window announced before; it
// dropped the segment, and then, as out of window, every acknowledgment sent behind it. An application that reads only
// when it can write, as an echo does, then waits for ever. Two gVisors that echo without bound over split segments ended so
// in 5 of 240 runs with this maximum and 18 of 240 with 8 MiB (scale 8), over the four variants at tune; 1 MiB (scale 5) was
// not better (5 of 120, measured apart). It makes the deadlock rare, not impossible.
const (
	minBuffer     = 4 << 10
	defaultBuffer = 1 << 20
	maxReceive    = 65535 << 6
	maxSend       = 6 << 20
	udpBuffer     = 1 << 20
	maxUDPBuffer  = 8 << 20
)

// tune sets limits and TCP's algorithms: Reno with SACK, without RACK, as tailscale does. Medians (and the slowest) of 20
// runs in turn, 32 MiB one way between two netstacks on two cores, in ms; the loss takes a whole super-packet; a run was cut
// off at 8 s. The last column counts the deadlock of maxReceive in 60 lossless echoes.
//
//	              no loss             1 in 200 lost             deadlocks
//	              whole    split      whole        split
//	cubic, RACK   23 (34)  102 (270)   33 (259)    3563 (5600)  5
//	cubic         23 (33)   92 (182)  241 (1138)    927 (3778)  0
//	reno, RACK    23 (75)   86 (199)   44 (8001)    147 (8000)  0
//	reno          21 (37)   86 (161)  234 (1053)    312 (824)   0
//
// RACK repairs most losses sooner, but one run in 20 did not end; Reno alone is never the slowest by much. Why those runs
// hung was not looked into.
func (n *Netstack) tune() error {
	sack := tcpip.TCPSACKEnabled(true)
	recovery := tcpip.TCPRecovery(0) // no RACK
	congestion := tcpip.CongestionControlOption("reno")
	moderate := tcpip.TCPModerateReceiveBufferOption(true)
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: minBuffer, Default: defaultBuffer, Max: maxReceive}
	send := tcpip.TCPSendBufferSizeRangeOption{Min: minBuffer, Default: defaultBuffer, Max: maxSend}
	for _, o := range []tcpip.SettableTransportProtocolOption{&sack, &recovery, &congestion, &moderate, &receive, &send} {
		if err := n.stack.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return fmt.Errorf("set netstack TCP option %T: %w", o, toError(err))
		}
	}
	for _, o := range []any{
		tcpip.ReceiveBufferSizeOption{Min: minBuffer, Default: udpBuffer, Max: maxUDPBuffer},
		tcpip.SendBufferSizeOption{Min: minBuffer, Default: udpBuffer, Max: maxUDPBuffer},
	} {
		if err := n.stack.SetOption(o); err != nil {
			return fmt.Errorf("set netstack option %T: %w", o, toError(err))
		}
	}
	return nil
}

// Connect says where packets go that the node sends. It is called once, before Run and before Deliver; packets sent
// earlier are dropped.
func (n *Netstack) Connect(inject Inject) { n.link.connect(inject) }

// Run runs the stack until ctx ends. It then resets the connections that are left, and returns after gVisor's goroutines
// have ended and the last call of Inject has returned. Deliver drops what comes later. After Close it only waits for
// ctx.
func (n *Netstack) Run(ctx context.Context) error {
	if !n.link.wasConnected() {
		return errors.New("run netstack: Connect was not called")
	}
	n.log.Info("netstack runs", "addrs", n.addrs, "mtu", n.link.MTU())
	<-ctx.Done()
	n.Close()
	return nil
}

// Close ends what New started, as Run does when its context ends. Listeners, connections and dials that are open fail.
func (n *Netstack) Close() { n.close.Do(n.destroy) }

// destroy is stack.Destroy without its hole: a SYN that a TCP processor has taken up while endpoints are aborted leaves an
// endpoint behind for whose handshake stack.Wait would wait, about a minute. So what comes in is cut off first, then the
// processors end, then the rest is aborted.
func (n *Netstack) destroy() {
	n.link.Attach(nil)
	n.stack.Close()
	n.stack.TransportProtocolInstance(tcp.ProtocolNumber).Wait()
	for _, e := range n.stack.RegisteredEndpoints() {
		e.Abort()
	}
	n.stack.Wait()
	n.link.disconnect()
}
