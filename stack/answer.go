package stack

import (
	"net/netip"

	"github.com/middleway-net/middleway/stack/flow"
	"github.com/middleway-net/middleway/stack/icmp"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/tap"
)

// answerer is what a forwarder needs to tell sources why their packets did not get further.
type answerer struct {
	// Fragmentation needed and packet too big have a limit of their own: without them connections stall, so nothing else may
	// use it up, and no source for all others.
	tooBig icmp.SharedLimit
	other  icmp.Limit
	// Refusals of Services are many where one has no endpoints.
	refusals icmp.Limit
	sent     counters
	parsed   packet.Parsed                 // of the error
	head     [packet.MaxSegmentHeader]byte // of the segment that an error quotes
}

// passes reports whether a packet goes further as it was judged. One that does not is dropped, and its source is told why;
// one that is too large for its way, and may be cut, is sent in pieces. b is borrowed.
func (f *forwarder) passes(b []byte, p *packet.Parsed, o packet.Offload, v flow.Verdict, to *packet.Flow, from origin) bool {
	if v.Action == flow.ToNode || v.Action == flow.Answer {
		return true
	}
	if v.Action == flow.Drop {
		f.reject(b, p, o, v.Reason, from)
		return false
	}
	if p.TTL <= 1 && !f.inside(v, from) {
		f.reject(b, p, o, packet.DropTTL, from)
		return false
	}
	length := p.Len
	if o.GSO != packet.GSONone {
		length = min(length, p.Payload+int(o.Size))
	}
	if mtu := f.mtu(v); length > mtu {
		f.exceed(b, p, o, v, to, from, mtu)
		return false
	} else if f.record != nil {
		f.record.passed(p, length, mtu)
	}
	return true
}

// inside reports whether a packet stays in the node at one end: netstack and host are the node itself, which is the first hop
// of their packets, and no hop before them.
func (f *forwarder) inside(v flow.Verdict, from origin) bool {
	return from == originNode || from == originSelf || from == originHost || v.Action == flow.ToAttachment && f.tables.attachments[v.Attachment].host
}

// mtu returns the largest packet that a way takes, in bytes.
func (f *forwarder) mtu(v flow.Verdict) int {
	if v.Action == flow.ToPeer && f.port != nil {
		return f.port.MTU(v.Peer)
	}
	return f.s.mtu
}

// reject drops a packet and tells its source why, where a router does.
func (f *forwarder) reject(b []byte, p *packet.Parsed, o packet.Offload, r packet.DropReason, from origin) {
	f.drop(r, 1)
	switch r {
	case packet.DropTTL:
		f.answer(b, p, o, icmp.Error{Kind: icmp.TimeExceeded}, from)
	case packet.DropNoRoute:
		f.answer(b, p, o, icmp.Error{Kind: icmp.NetUnreachable}, from)
	case packet.DropNoPod:
		f.answer(b, p, o, icmp.Error{Kind: icmp.HostUnreachable}, from)
	case packet.DropTransit, packet.DropGuarded, packet.DropProtocol:
		f.answer(b, p, o, icmp.Error{Kind: icmp.Prohibited}, from)
	case packet.DropServicePort, packet.DropNoBackend:
		f.refuseSource(b, p, o, from)
	}
}

// exceed deals with a packet that is larger than its way takes: its segments and fragments go on by themselves where its
// sender allows it.
func (f *forwarder) exceed(b []byte, p *packet.Parsed, o packet.Offload, v flow.Verdict, to *packet.Flow, from origin, mtu int) {
	b = b[:p.Len]
	if packet.MayFragment(b, p) {
		if o.GSO != packet.GSONone {
			if segments, ok := packet.Split(b, p, o, false); ok {
				f.sendSegments(&segments, v, to, from)
				return
			}
		} else {
			packet.FinishChecksum(b, &o)
			if fragments, ok := packet.Fragment(b, p, mtu); ok {
				f.sendFragments(&fragments, p.Flow, p.HasFlow, v, to, from)
				return
			}
		}
	}
	f.drop(packet.DropTooBig, 1)
	f.answer(b, p, o, icmp.Error{Kind: icmp.TooBig, MTU: mtu}, from)
}

func (f *forwarder) sendSegments(s *packet.Segments, v flow.Verdict, to *packet.Flow, from origin) {
	for s.Left() {
		b := f.pool.Get()
		space := b.Space()[packet.VnetLen:]
		payload, _ := s.Next(space)
		n := s.HeaderLen()
		n += copy(space[n:], payload)
		f.sendPiece(b, n, nil, false, v, to, from)
	}
}

func (f *forwarder) sendFragments(s *packet.Fragments, fl packet.Flow, hasFlow bool, v flow.Verdict, to *packet.Flow, from origin) {
	for s.Left() {
		b := f.pool.Get()
		space := b.Space()[packet.VnetLen:]
		n, payload := s.Next(space)
		n += copy(space[n:], payload)
		f.sendPiece(b, n, &fl, hasFlow, v, to, from)
	}
}

// sendPiece sends n bytes of a packet that goes on in pieces, on the packet's way. A fragment is of flow fl. It takes ownership
// of b.
func (f *forwarder) sendPiece(b *packet.Buffer, n int, fl *packet.Flow, hasFlow bool, v flow.Verdict, to *packet.Flow, from origin) {
	packet.Offload{}.Encode(b.Space())
	b.SetFrame(packet.VnetLen + n)
	p := &f.piece
	if reason := packet.Parse(b.Packet(), p); reason != packet.Kept {
		f.refuse(b, reason)
		return
	}
	if fl != nil {
		p.Follow(*fl, hasFlow)
	}
	if !f.passes(b.Packet(), p, packet.Offload{}, v, to, from) {
		b.Release()
		return
	}
	f.leave(b, p, packet.Offload{}, v, to, from)
}

// answer tells the source of packet b, which is borrowed and will not go further, an error: from the gateway address, if the
// rules and the limit allow it.
func (f *forwarder) answer(b []byte, p *packet.Parsed, o packet.Offload, e icmp.Error, from origin) {
	if gateway := f.s.gateway(p.Version); gateway.IsValid() {
		f.answerFrom(gateway, b, p, o, e, from)
	}
}

// answerFrom is answer from another address of the node than the gateway's.
func (f *forwarder) answerFrom(addr netip.Addr, b []byte, p *packet.Parsed, o packet.Offload, e icmp.Error, from origin) {
	if from == originSelf || from == originOutside || !icmp.MayAnswer(b, p, e.Kind) {
		return
	}
	if !f.mayTell(e.Kind, &p.Flow) {
		return
	}
	if f.taps != nil {
		f.taps.Answered(uint8(e.Kind))
	}
	if f.record != nil {
		f.record.told(e.Kind, addr)
	}
	head, rest := f.quote(b[:p.Len], p, o)
	if from == originNode {
		f.s.tell(e, p, head, rest)
		return
	}
	nb := f.pool.Get()
	packet.Offload{}.Encode(nb.Space())
	nb.SetFrame(packet.VnetLen + e.Build(nb.Space()[packet.VnetLen:], addr, p, head, rest))
	f.answers.sent.add(1, len(nb.Packet()))
	reason := packet.Parse(nb.Packet(), &f.answers.parsed)
	if f.taps != nil {
		f.taps.Nest()
		f.taps.Enter(tap.Place{Layer: tap.Gateway}, tap.Packet{P: &f.answers.parsed, Body: nb.Packet(), Error: true})
	}
	if reason == packet.Kept {
		f.forward(nb, &f.answers.parsed, packet.Offload{}, originNode)
	} else {
		f.refuse(nb, reason)
	}
	if f.taps != nil {
		f.taps.Unnest()
	}
}

// mayTell takes an error to the source of a flow from the limit of its kind.
func (f *forwarder) mayTell(k icmp.Kind, fl *packet.Flow) bool {
	switch k {
	case icmp.TooBig:
		return f.answers.tooBig.Allow(fl.HashSource(f.flows.Seed()), f.s.clock())
	case icmp.PortUnreachable:
		return f.answers.refusals.Allow(f.s.clock())
	}
	return f.answers.other.Allow(f.s.clock())
}

// quote returns packet b as it would have been on a wire, in two parts: the first segment of a super-packet, and checksums
// complete.
func (f *forwarder) quote(b []byte, p *packet.Parsed, o packet.Offload) (head, rest []byte) {
	if o.GSO != packet.GSONone {
		if s, ok := packet.Split(b, p, o, false); ok {
			rest, _ = s.Next(f.answers.head[:])
			return f.answers.head[:s.HeaderLen()], rest
		}
	}
	if o.GSO == packet.GSONone {
		packet.FinishChecksum(b, &o)
	}
	return b, nil
}

// gateway returns the node's own address of a family: the first that was configured. It is not valid if there is none.
func (s *Stack) gateway(version uint8) netip.Addr { return s.gateways[version/6] }
