package stack

import (
	"cmp"
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/middleway-net/middleway/stack/fib"
	"github.com/middleway-net/middleway/stack/flow"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/service"
)

// SetServices swaps in another table of Services and returns when no packet is decided by the former one any more. No flow is
// judged again. UDP flows end whose backends serve their Services no longer, or whose Services are gone: their clients would
// send on into the void (KEP-1669). Connections of TCP and SCTP are left to their ends. A flow that was opened to an address
// before a Service had it ends too, unless it is an established connection.
func (s *Stack) SetServices(t *service.Table) {
	s.mu.Lock()
	defer s.mu.Unlock()
	former := s.services.Load()
	s.swapServicesLocked(&frontends{t, former.fronts})
	if s.recalled || t.MayEnd(former.Table) {
		s.endOutdated()
	}
	s.recalled, s.served = false, true
}

// endOutdated ends the flows that have to by the Services of this moment.
func (s *Stack) endOutdated() {
	t := s.services.Load()
	s.flows.FreeIf(func(l *flow.Listed) bool { return outdated(t, l) })
}

// RecallServices swaps in a table that a former daemon wrote down, and ends no flow by it: flows may be of Services that came after it
// was written. SetServices ends those that have to, once it is known what there is.
func (s *Stack) RecallServices(t *service.Table) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.swapServicesLocked(&frontends{t, s.services.Load().fronts})
	s.recalled = true
}

// Backend returns the address to which the TCP connection of a client from outside goes, not valid if the node does not know it, and
// whether that one serves, at the address and port that the client asked for.
func (s *Stack) Backend(client, to netip.AddrPort) (at netip.Addr, serves bool) {
	fl := packet.NewFlow(packet.TCP, client, to)
	c, ok := s.flows.Peek(fl)
	if !ok {
		return at, false
	}
	as := c.LeavesAs()
	port, _ := s.services.Load().Lookup(&fl)
	return as.Dst(), port != nil && port.Serves(as.DstKey(), as.DstPort())
}

func (s *Stack) swapServicesLocked(t *frontends) {
	if former := s.services.Swap(t); former.Table != t.Table || !slices.Equal(former.fronts, t.fronts) {
		s.settleLocked()
		s.countConnections()
	}
}

// outdated reports whether a flow has to end by a table of Services.
func outdated(t *frontends, l *flow.Listed) bool {
	if l.Flow.DstKey() == l.LeavesAs.DstKey() && l.Flow.DstPort() == l.LeavesAs.DstPort() {
		return predates(t, l)
	}
	if l.Flow.Proto() != packet.UDP {
		return false
	}
	port, found := t.Lookup(&l.Flow)
	if found == service.NotService && t.fronts == nil {
		return false // it may be to a NodePort
	}
	return port == nil || !port.Serves(l.LeavesAs.DstKey(), l.LeavesAs.DstPort())
}

// predates reports whether a flow went past the Services to an address that one of them has now. What ends in the node itself
// was meant to.
func predates(t *frontends, l *flow.Listed) bool {
	if l.Verdict.Action == flow.ToNode || l.Flow.Proto() != packet.UDP && l.State == flow.Active {
		return false
	}
	_, found := t.Lookup(&l.Flow)
	return found == service.AtPort || found == service.OtherPort || found == service.AtExternal
}

// recountEvery is how old the counts of connections may be by which LeastConnections chooses; those that were opened since are
// added.
const recountEvery = time.Second

// recount counts connections for the schedulers that want to know, until ctx ends. What is counted is what the flow table has,
// so that no count drifts and none is lost with the daemon.
func (s *Stack) recount(ctx context.Context) error {
	tick := time.NewTicker(recountEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			s.countConnections()
		}
	}
}

func (s *Stack) countConnections() {
	t := s.services.Load()
	if !t.CountsConnections() {
		return
	}
	counts := service.NewCounts(t.Table)
	for l := range s.flows.Live() {
		if l.Flow != l.LeavesAs && (l.State == flow.Opened || l.State == flow.Active) {
			if port, _ := t.Lookup(&l.Flow); port != nil {
				counts.Add(port, &l.LeavesAs)
			}
		}
	}
	counts.Set()
}

// settleLocked returns when everybody has begun a batch after it was called.
func (s *Stack) settleLocked() {
	for _, w := range s.workers {
		_ = w.call(func() error { w.begin(); return nil })
	}
	s.local.mu.Lock()
	s.local.begin()
	s.local.mu.Unlock()
}

// served is what a Service makes of a flow's first packet.
type served struct {
	to      packet.Flow // as what it goes on
	verdict flow.Verdict
	final   bool // verdict stands, and no route is asked
	port    *service.Port
	choice  *service.Choice
	backend int  // of choice
	stuck   bool // to the client's last backend
	own     bool // the node itself serves it

	external bool // port was found at an External frontend
}

// serve looks whether a Service has the destination of a new flow, and picks a backend.
func (f *forwarder) serve(fl *packet.Flow, from origin) served {
	port, found := f.services.Lookup(fl)
	own := f.s.ownsService(fl)
	switch {
	case from == originOutside && found != service.AtExternal:
		return dropped(packet.DropUninvited)
	case found == service.NotService && !own:
		return served{to: *fl}
	case found == service.AtExternal:
		return f.serveChoice(port, f.external(port, fl, from), fl, true)
	case from == originPeer:
		// A peer translates its own pods' packets. What comes here untranslated would go round between nodes.
		return dropped(packet.DropNoService)
	case fl.Proto() == packet.ICMP, fl.Proto() == packet.ICMPv6:
		if found == service.Unallocated && !own {
			return dropped(packet.DropNoService)
		}
		return served{verdict: flow.Verdict{Action: flow.Answer}, final: true}
	case own:
		return f.serveOwn(fl)
	case found == service.Unallocated:
		return dropped(packet.DropNoService)
	case found == service.OtherPort:
		return dropped(packet.DropServicePort)
	}
	return f.serveChoice(port, &port.Internal, fl, false)
}

// serveChoice picks a backend of a choice of port, which was found at an External frontend or another one.
func (f *forwarder) serveChoice(port *service.Port, choice *service.Choice, fl *packet.Flow, external bool) served {
	s := served{port: port, choice: choice, external: external}
	if len(choice.Backends) == 0 {
		s.verdict, s.final = flow.Verdict{Reason: cmp.Or(choice.None, packet.DropNoBackend)}, true
		return s
	}
	s.backend, s.stuck = f.pick(port, choice, fl)
	b := &choice.Backends[s.backend]
	s.to = fl.WithDestination(b.Addr, b.Port)
	return s
}

func dropped(r packet.DropReason) served {
	return served{verdict: flow.Verdict{Reason: r}, final: true}
}

// serveOwn is serve for a Service that the node itself serves: cluster DNS.
func (f *forwarder) serveOwn(fl *packet.Flow) served {
	if fl.DstPort() == dnsPort && (fl.Proto() == packet.UDP || fl.Proto() == packet.TCP) {
		return served{to: *fl, own: true}
	}
	return dropped(packet.DropServicePort)
}

// pick returns the backend of a new flow: the one of the client's last, where the client is to stick to it, or one of the
// scheduler's choice.
func (f *forwarder) pick(port *service.Port, choice *service.Choice, fl *packet.Flow) (backend int, stuck bool) {
	if port.Affinity > 0 {
		if addr, p, ok := f.flows.Recall(fl.SrcKey(), port.ID, port.Affinity); ok {
			if i := choice.Index(addr, p); i >= 0 {
				return i, true
			}
		}
	}
	return port.Choose(choice, fl), false
}

// forsaken reports whether a flow goes to a backend that serves its Service no longer, or the Service is gone.
func (f *forwarder) forsaken(c *flow.Copy) bool {
	port, found := f.services.Lookup(&c.Flow)
	return found != service.NotService && (port == nil || !port.Serves(c.LeavesAs().DstKey(), c.LeavesAs().DstPort()))
}

// remember notes that a flow went to its backend.
func (f *forwarder) remember(s *served, c *flow.Copy) {
	if s.port.Affinity > 0 {
		f.flows.Remember(c.Flow.SrcKey(), s.port.ID, c.LeavesAs().DstKey(), c.LeavesAs().DstPort())
	}
	s.port.Chosen(s.choice, s.backend)
}

// open enters the flow of a packet that the node does not know. A copy whose verdict is neither to drop nor to answer is of an
// entry.
func (f *forwarder) open(fl *packet.Flow, from origin) flow.Copy {
	s := f.serve(fl, from)
	if f.record != nil {
		f.record.served(&s)
	}
	if !s.final {
		s.verdict = f.decide(&s.to, s.sender(from))
	}
	if s.verdict.Action == flow.Drop || s.verdict.Action == flow.Answer {
		return flow.Copy{Flow: *fl, Verdict: s.verdict, Generation: f.tables.generation} // a scan would push out what lives
	}
	back := fl.Reverse()
	f.opening = flow.Pair{Flow: *fl, Translated: s.to, Verdict: s.verdict, Generation: f.tables.generation, FromOutside: s.fromOutside(from)}
	if f.opening.FromOutside {
		f.opening.Reply = flow.Verdict{Action: flow.ToOutside}
	} else {
		f.opening.Reply = f.decide(&back, f.answererTo(s.verdict))
	}
	source, ok := f.sourceOf(&s, from)
	if !ok {
		return untranslatable(fl, f.tables.generation)
	}
	f.opening.Translated = s.to.WithSource(source, s.to.SrcPort())
	c := f.enter(&f.opening)
	if f.opening.Entered && s.port != nil {
		f.remember(&s, &c)
	}
	return c
}

// sourceOf returns the address from which a flow leaves:
//   - the host's from .0 to a peer, which reaches the host's own addresses by other ways than the tunnel, and knows that only the
//     attachment's is behind it;
//   - from the gateway address what a Service leads back to its own sender, which would take a packet from itself for a forgery,
//     and answer itself past the node;
//   - from its own what comes so to a backend of this node, where that is to see the client;
//   - from the gateway address what else comes from outside or from a peer to an External frontend, so that the backend, wherever it
//     is, answers through this node;
//   - all others from their own. ok is false if the node has no address of that family.
func (f *forwarder) sourceOf(s *served, from origin) (source packet.AddrKey, ok bool) {
	switch {
	case from == originHost && s.verdict.Action == flow.ToPeer:
		return f.tables.host.addrOf(&s.to)
	case s.port == nil, s.fromOutside(from) && f.keepsClient(s), s.external && from == originPeer && f.answersHere(s):
	case s.external && from != originPod && from != originHost, from == originHost && f.toHost(s.verdict), s.to.SrcKey() == s.to.DstKey():
		gateway := f.s.gatewayOf(&s.to)
		return packet.KeyOf(gateway), gateway.IsValid()
	}
	return s.to.SrcKey(), true
}

// answersHere reports whether a backend is to see its client, and is a pod of this node: its answers come back here whoever that is. Those
// of the host's own programs would leave by the host's routes.
func (f *forwarder) answersHere(s *served) bool {
	return s.choice.KeepClient && s.verdict.Action == flow.ToAttachment && !f.toHost(s.verdict)
}

// keepsClient reports whether a backend sees the own address of a client who came in through a socket of the node: its answers come back
// here, and the address is one that a pod can answer, and no pod's: a socket of UDP does not know whether a client has the address that it
// tells. Programs of the node keep the addresses that peers know.
func (f *forwarder) keepsClient(s *served) bool {
	src := s.to.Src()
	if !s.choice.KeepClient || src.IsLoopback() || src.IsLinkLocalUnicast() {
		return false
	}
	if slices.Contains(f.s.known, src) {
		return f.answersHere(s) || s.verdict.Action == flow.ToPeer && f.tables.fib.Lookup(s.to.Dst()).Returns
	}
	d := f.tables.fib.Lookup(src)
	return (d.Kind == fib.None || d.Kind == fib.Peer && d.Host) && f.answersHere(s)
}

// enter enters a flow with its own port where no other flow leaves as the same, else with a random one.
func (f *forwarder) enter(pair *flow.Pair) flow.Copy {
	for range portTries {
		if c, ok := f.flows.Enter(pair); ok {
			return c
		}
		if !pair.Translated.HasPorts() {
			break
		}
		pair.Translated = pair.Translated.WithSource(pair.Translated.SrcKey(), uint16(firstPort+rand.IntN(lastPort-firstPort+1)))
	}
	return untranslatable(&pair.Flow, pair.Generation)
}

func untranslatable(fl *packet.Flow, generation uint32) flow.Copy {
	return flow.Copy{Flow: *fl, Verdict: flow.Verdict{Reason: packet.DropTranslate}, Generation: generation}
}

// toHost reports whether packets go to the host's attachment.
func (f *forwarder) toHost(v flow.Verdict) bool {
	return v.Action == flow.ToAttachment && f.tables.attachments[v.Attachment].host
}

// gatewayOf returns the node's own address of a flow's family; it is not valid if there is none.
func (s *Stack) gatewayOf(fl *packet.Flow) netip.Addr {
	if fl.Is4() {
		return s.gateway(4)
	}
	return s.gateway(6)
}

// stray decides about a packet without a flow: Services have no use for it, and the outside none but for errors about what came from
// there.
func (f *forwarder) stray(fl *packet.Flow, from origin) flow.Verdict {
	switch {
	case f.about != nil && f.about.Verdict.Action == flow.ToOutside && (from != originPod || f.about.LeavesAs().SrcKey() == fl.SrcKey()):
		return f.about.Verdict // a pod is no router, which tells of others' packets
	case f.about == nil && from == originOutside:
		return flow.Verdict{Reason: packet.DropUninvited}
	}
	v := f.strayTo(fl, from)
	if v.Action == flow.ToOutside {
		return flow.Verdict{Reason: packet.DropProtocol}
	}
	return v
}

func (f *forwarder) strayTo(fl *packet.Flow, from origin) flow.Verdict {
	switch _, found := f.services.Lookup(fl); {
	case found == service.NotService && !f.s.ownsService(fl):
		return f.decide(fl, from)
	case found == service.Unallocated || from == originPeer:
		return flow.Verdict{Reason: packet.DropNoService}
	}
	return flow.Verdict{Reason: packet.DropServicePort}
}
