package stack

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/middleway-net/middleway/stack/fib"
	"github.com/middleway-net/middleway/stack/flow"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/service"
	"github.com/middleway-net/middleway/stack/tap"
)

// Outside is where packets leave the cluster: sockets of the node.
type Outside interface {
	// Deliver takes a packet of a pod to a destination outside, or of a backend to a client there: TCP, UDP or an ICMP echo, or an
	// ICMP error about such a packet. Its checksum is verified, or unfinished as o says; it may be a super-packet, or a fragment,
	// which comes after its packet's first one. Its time to live is that which it has behind the node. All is borrowed until it
	// returns. Any worker may call it; it must not block.
	Deliver(b []byte, p *packet.Parsed, o packet.Offload)
}

// Exits is an Outside that has a part of its own in each worker.
type Exits interface {
	// Exit makes a worker's. inject sends a packet of the node's own, given in parts, which are copied, with the worker's queues: only
	// the Exit's Deliver, Flush, Ready and Stop may call it. What Deliver was given as p is another packet's afterwards.
	Exit(inject func(o packet.Offload, parts ...[]byte)) (Exit, error)
}

// Exit is an Outside that belongs to one worker, which alone calls its methods.
type Exit interface {
	Outside
	// FD is a descriptor that is readable while Ready has something to do.
	FD() int
	// Ready does what there is to do.
	Ready()
	// Flush ends a batch in which Deliver or Ready were called.
	Flush()
	// Stop ends what is open: the worker stops. Ready and Flush are not called any more.
	Stop()
	// Close closes the descriptor.
	Close()
}

// InjectOutside takes a packet from outside, given in parts, whose unfinished checksum and segmentation o describes: one of a flow that
// the node knows, an ICMP error about one, or one to an External frontend of a Service, else it is dropped. The parts are copied before
// it returns. It must not be called by Outside.Deliver.
func (s *Stack) InjectOutside(o packet.Offload, parts ...[]byte) {
	s.injectFrom(originOutside, o, parts)
}

// SetFrontAddrs says at which addresses NodePorts and host ports are found: those of the node, loopback ones too. No packet of a pod to
// one of them leaves through the node's sockets. UDP flows to a port of an address that is none any more end; before the first call
// none ends because its address is not known yet.
func (s *Stack) SetFrontAddrs(addrs []netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fronts := append([]packet.AddrKey{}, keysOf(addrs)...)
	former := s.services.Load()
	if former.fronts != nil && slices.Equal(fronts, former.fronts) {
		return
	}
	s.swapServicesLocked(&frontends{former.Table, fronts})
	if s.served && !s.recalled {
		s.endOutdated()
	}
}

// frontends are where Services are reached: those of a table, at this node's addresses. They are immutable.
type frontends struct {
	*service.Table
	fronts []packet.AddrKey // of SetFrontAddrs; nil before it was called
}

// Lookup returns the port at the destination of a flow; it is nil unless one was found.
func (t *frontends) Lookup(fl *packet.Flow) (*service.Port, service.Found) {
	port, found := t.Table.Lookup(fl)
	if found != service.NotService || !t.atFront(fl) {
		return port, found
	}
	if port = t.LookupNode(fl); port != nil {
		return port, service.AtExternal
	}
	return nil, service.NotService
}

// atFront reports whether a flow goes to one of the node's addresses at which there are NodePorts.
func (t *frontends) atFront(fl *packet.Flow) bool { return slices.ContainsFunc(t.fronts, fl.To) }

// egress decides about a flow of a pod to where no route leads: out through the node's sockets, but to what only the node may reach.
func (f *forwarder) egress(fl *packet.Flow) flow.Verdict {
	switch fl.Proto() {
	case packet.TCP, packet.ICMP, packet.ICMPv6:
	case packet.UDP:
		if fl.DstPort() == f.s.tunnelPort && f.s.tunnelPort != 0 {
			return flow.Verdict{Reason: packet.DropGuarded} // a peer would take it for the node's own
		}
	default:
		return flow.Verdict{Reason: packet.DropProtocol}
	}
	switch {
	case f.services.atFront(fl):
		return flow.Verdict{Reason: packet.DropGuarded} // a service there would take it for the node's own
	case f.services.InRange(fl.Dst()):
		return flow.Verdict{Reason: packet.DropNoService}
	}
	return flow.Verdict{Action: flow.ToOutside}
}

// forges reports whether a pod sends to a node's end of the tunnel: a kernel's VXLAN device takes packets from whomever.
func (f *forwarder) forges(fl *packet.Flow, d fib.Destination) bool {
	if fl.Proto() != packet.UDP || fl.DstPort() != f.s.tunnelPort || f.s.tunnelPort == 0 {
		return false
	}
	return d.Kind == fib.Peer && d.Host || d.Kind == fib.Attachment && f.tables.attachments[d.Attachment].host
}

// fromOutside reports whether a flow is of a client outside that came to an External frontend: through a socket of the node, whose
// packets the netstack or InjectOutside sends.
func (s *served) fromOutside(from origin) bool {
	return s.external && (from == originNode || from == originOutside)
}

// sender returns as whose packets a new flow's are routed: what a peer sends to an External frontend goes on as the node's own, and the
// host reaches what is outside as far as a Service has its endpoints there, as that of an API server may.
func (s *served) sender(from origin) origin {
	switch {
	case s.external && from == originPeer:
		return originNode
	case s.port != nil && from == originHost:
		return originClient
	}
	return from
}

// answererTo returns who answers packets with a verdict.
func (f *forwarder) answererTo(v flow.Verdict) origin {
	if v.Action == flow.ToAttachment && !f.toHost(v) {
		return originPod
	}
	return originNode
}

// external returns what the traffic policy leaves to clients of an External frontend. Those on this node, and its pods, may choose from
// all: the policy is about clients outside.
func (f *forwarder) external(port *service.Port, fl *packet.Flow, from origin) *service.Choice {
	if from == originPod || from == originHost || from != originPeer && f.onNode(fl) {
		return &port.Inside
	}
	return &port.External
}

// onNode reports whether a flow's source is this node or one of its pods.
func (f *forwarder) onNode(fl *packet.Flow) bool {
	back := fl.Reverse()
	src := fl.Src()
	return src.IsLoopback() || f.services.atFront(&back) || f.tables.fib.Lookup(src).Kind == fib.Attachment
}

// relays reports whether a flow is of another node's client to a frontend here: it leaves from the gateway's address and comes back to
// it, so that it may go from peer to peer.
func (f *forwarder) relays(c *flow.Copy) bool {
	if !c.Translates() {
		return false
	}
	gateway := f.s.gatewayOf(&c.Flow)
	if !gateway.IsValid() {
		return false
	}
	key := packet.KeyOf(gateway)
	return c.Flow.To(key) || c.Translated.From(key)
}

// toOutside hands over a packet, which is borrowed, to the node's sockets.
func (f *forwarder) toOutside(b []byte, p *packet.Parsed, o packet.Offload, from origin) {
	switch {
	case f.outside == nil:
		f.drop(packet.DropNoRoute, 1)
	case from == originNode || from == originSelf || from == originOutside:
		f.drop(packet.DropTransit, 1) // whoever takes it may hold what its sender holds
	case !o.NeedsChecksum && !packet.TransportChecksumOK(b, p):
		f.drop(packet.DropChecksum, 1)
	case from != originHost && !packet.DecrementTTL(b, p):
		f.drop(packet.DropTTL, 1)
	default:
		f.forwarded(p.Len)
		if f.taps != nil {
			f.taps.Leave(tap.Place{Layer: tap.Outside}, tap.Packet{P: p, Offload: o, Body: b}, 0)
		}
		f.outside.Deliver(b, p, o)
	}
}

// outletQueue hands what is written over to the node's sockets.
type outletQueue struct {
	Queue // nil: nobody reads it
	f     *forwarder
}

// errChecksum says that a packet's checksum is wrong.
var errChecksum = errors.New("wrong checksum")

// Write is Queue's. The parts of a train are put together: they come from peers one by one, and a socket takes them as one.
func (q outletQueue) Write(frame []byte, more [][]byte) error {
	o, _ := packet.DecodeOffload(frame) // the train wrote it
	b := frame[packet.VnetLen:]
	if len(more) > 0 {
		whole := q.f.pool.Get()
		defer whole.Release()
		n := copy(whole.Space(), b)
		for _, part := range more {
			n += copy(whole.Space()[n:], part)
		}
		b = whole.Space()[:n]
	}
	p := &q.f.piece
	if packet.Parse(b, p) != packet.Kept || !o.NeedsChecksum && !packet.TransportChecksumOK(b, p) {
		return errChecksum
	}
	q.f.outside.Deliver(b, p, o)
	return nil
}
