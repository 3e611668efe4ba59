package stack

import (
	"github.com/middleway-net/middleway/stack/fib"
	"github.com/middleway-net/middleway/stack/flow"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/tap"
)

// origin says where a packet came from.
type origin uint8

const (
	originPod origin = iota
	originPeer
	originNode
	originHost
	originOutside // a client outside, or who answers a pod from there
	originClient  // the host, whose packet a Service has led on
	originSelf    // the worker has made it, in answer to a packet
)

// fromPod takes a frame that a pod sent. It takes ownership of b.
func (f *forwarder) fromPod(att *attachment, b *packet.Buffer) {
	p := &f.parsed
	o, err := packet.DecodeOffload(b.Frame())
	if err != nil {
		f.refuse(b, packet.DropMalformed)
		return
	}
	reason := packet.Parse(b.Packet(), p)
	if f.taps != nil {
		f.taps.Enter(att.place(), tap.Packet{P: p, Offload: o, Body: b.Packet()})
	}
	if reason == packet.Kept {
		reason = o.Check(b.Packet(), p)
	}
	if reason == packet.Kept && !p.Routable() {
		reason = packet.DropScope
	}
	from := originPod
	if reason == packet.Kept {
		from, reason = f.source(att, &p.Flow)
	}
	if f.record != nil {
		f.record.entered(att, from, &p.Flow, reason)
	}
	if reason != packet.Kept {
		f.refuse(b, reason)
		return
	}
	b.Trim(p.Len)
	f.forward(b, p, o, from)
}

// source is the source check: a pod sends from its own addresses only. The host does so too, and its kernel may pass on
// what a peer sent it without the tunnel.
func (f *forwarder) source(att *attachment, fl *packet.Flow) (origin, packet.DropReason) {
	if !att.host {
		if att.owns(fl) {
			return originPod, packet.Kept
		}
		return originPod, packet.DropSource
	}
	return f.hostSource(att, fl)
}

// forward decides about a packet that lies in a buffer of its own and does what was decided. It takes ownership of b.
func (f *forwarder) forward(b *packet.Buffer, p *packet.Parsed, o packet.Offload, from origin) {
	if p.Fragment && !p.Atomic() {
		f.forwardFragment(b, p, o, from)
		return
	}
	f.forwardJudged(b, p, o, from)
}

// forwardJudged forwards a packet whose flow is known, as far as it has one. It takes ownership of b.
func (f *forwarder) forwardJudged(b *packet.Buffer, p *packet.Parsed, o packet.Offload, from origin) {
	if reason := f.related(b.Packet(), p, &o); reason != packet.Kept {
		f.refuse(b, reason)
		return
	}
	if p.Flow.DstPort() == dnsPort && f.answersQuery(b, p, o, from) {
		return
	}
	v, to := f.judge(p, from)
	if f.watched() {
		f.noteJudged(v, to, &p.Flow)
	}
	if !f.passes(b.Packet(), p, o, v, to, from) {
		b.Release()
		return
	}
	f.leave(b, p, o, v, to, from)
}

// leave sends a packet that passes on its way, as one of flow to if that is not nil. It takes ownership of b.
func (f *forwarder) leave(b *packet.Buffer, p *packet.Parsed, o packet.Offload, v flow.Verdict, to *packet.Flow, from origin) {
	if to != nil {
		if reason := packet.Translate(b.Packet(), p, &o, to); reason != packet.Kept {
			v = flow.Verdict{Reason: reason}
		}
	}
	f.act(b, p, o, v, from)
}

// fromNode takes a packet of the node's own netstack, or of the outside. It takes ownership of b.
func (f *forwarder) fromNode(b *packet.Buffer, o packet.Offload, from origin) {
	p := &f.parsed
	reason := packet.Parse(b.Packet(), p)
	if f.taps != nil {
		f.taps.Enter(f.nodePlace(p, from), tap.Packet{P: p, Offload: o, Body: b.Packet()})
	}
	if reason != packet.Kept {
		f.refuse(b, reason)
		return
	}
	f.forward(b, p, o, from)
}

// receive takes one batch from the tunnel.
func (w *worker) receive() {
	w.port.Receive(w.deliver)
	w.flushTrain()
}

// fromPeer takes a packet that the tunnel received. It is borrowed until the end of the batch.
func (f *forwarder) fromPeer(frame []byte, p *packet.Parsed, o packet.Offload) {
	b := frame[packet.VnetLen:]
	if !f.train.Empty() && f.train.Append(b, p, o) {
		if f.taps != nil {
			f.taps.Join()
		}
		return
	}
	f.flushTrain()
	if !p.Routable() {
		f.drop(packet.DropScope, 1)
		return
	}
	if p.Fragment {
		f.forwardCopy(b[:p.Len], o, originPeer)
		return
	}
	if reason := f.related(b, p, &o); reason != packet.Kept {
		f.drop(reason, 1)
		return
	}
	v, as := f.judge(p, originPeer)
	if f.watched() {
		f.noteJudged(v, as, &p.Flow)
	}
	if !f.passes(b, p, o, v, as, originPeer) {
		return
	}
	if to := f.trainTo(v, p); to != nil {
		f.to = to
		if f.translates = as != nil; f.translates {
			f.translated = *as // what as points at is gone with the next packet
		}
		if f.train.Start(frame, p, o); !f.to.merges(p) {
			f.train.Close()
		}
		if f.taps != nil {
			f.taps.StartTrain()
		}
		return
	}
	if as != nil {
		if reason := packet.Translate(b, p, &o, as); reason != packet.Kept {
			f.drop(reason, 1)
			return
		}
	}
	switch v.Action {
	case flow.ToNode:
		f.toNode(b[:p.Len], p, o)
	case flow.ToOutside:
		f.toOutside(b[:p.Len], p, o, originPeer)
	default:
		f.act(f.copied(b[:p.Len], o), p, o, v, originPeer)
	}
}

// trainTo returns where packets of a peer are written, merged where they may be; nil if they go elsewhere one by one.
func (f *forwarder) trainTo(v flow.Verdict, p *packet.Parsed) *attachment {
	switch {
	case v.Action == flow.ToAttachment:
		return f.tables.attachments[v.Attachment]
	case v.Action == flow.ToOutside && p.Proto == packet.TCP && f.outside != nil:
		return &f.outlet
	}
	return nil
}

// flushTrain writes the packets of a train to their pod, or to the outside.
func (f *forwarder) flushTrain() {
	if f.train.Empty() {
		return
	}
	n, length := f.train.Count(), f.train.Len()
	reason := f.editTrain()
	var frame []byte
	var more [][]byte
	if reason == packet.Kept {
		frame, more = f.train.Finish()
		switch err := f.to.queue(f.queue).Write(frame, more); err {
		case nil:
		case errChecksum:
			reason = packet.DropChecksum
		default:
			reason = packet.DropDevice
		}
	}
	if reason == packet.Kept {
		f.moved.add(n, length)
	} else {
		f.drops.Add(reason, n)
		if f.record != nil {
			f.record.dropped(reason)
		}
	}
	if f.taps != nil {
		f.noteTrain(reason, frame, more)
	}
	f.train.Reset()
}

// editTrain makes of the first packet, whose headers are those of the whole train, what its receiver shall see.
func (f *forwarder) editTrain() packet.DropReason {
	b, p := f.train.First()
	if !f.to.host && !packet.DecrementTTL(b, p) {
		return packet.DropTTL
	}
	if !f.translates {
		return packet.Kept
	}
	return packet.Translate(b, p, f.train.Offload(), &f.translated)
}

// judge returns what is to be done with a packet, and as what it has to leave, nil if as it came; that is valid until the
// next packet. Only the first packet of a flow, and the first after a change of the tables, is decided on; for others the
// flow cache answers.
func (f *forwarder) judge(p *packet.Parsed, from origin) (flow.Verdict, *packet.Flow) {
	if !p.HasFlow {
		return f.stray(&p.Flow, from), nil
	}
	c := f.cache.Get(&p.Flow, f.now)
	if c == nil || p.Proto == packet.TCP && p.Flags&(packet.SYN|packet.ACK) == packet.SYN && f.flows.Renew(c, f.forsaken(c)) {
		opened := f.open(&p.Flow, from)
		if a := opened.Verdict.Action; a == flow.Drop || a == flow.Answer {
			return opened.Verdict, nil
		}
		c = f.cache.Put(opened)
	} else if f.record != nil {
		port, _ := f.services.Lookup(&c.Flow)
		f.record.known(c, port)
	}
	if c.Generation != f.tables.generation {
		if c = f.rejudge(c, from); c == nil {
			return f.judge(p, from) // the entry went this moment
		}
	}
	if p.Proto == packet.TCP && p.Flags&(packet.SYN|packet.FIN|packet.RST) != 0 {
		f.noteTCP(c, p.Flags)
	}
	if c.Verdict.Action == flow.ToPeer && from == originPeer && !f.relays(c) {
		return flow.Verdict{Reason: packet.DropTransit}, nil
	}
	if c.Translates() {
		return c.Verdict, &c.Translated
	}
	return c.Verdict, nil
}

// rejudge decides again about a flow that was judged by other tables than those of this batch, older or newer: numbers of
// attachments mean something only in the tables by which they were found.
func (f *forwarder) rejudge(c *flow.Copy, from origin) *flow.Copy {
	if from == originPeer && f.relays(c) {
		from = originNode
	}
	if from == originHost && c.LeavesAs().DstKey() != c.Flow.DstKey() {
		from = originClient
	}
	v := f.decide(c.LeavesAs(), from)
	fresh, ok := f.flows.Rejudge(c, v, f.tables.generation)
	if !ok {
		return nil
	}
	return f.cache.Put(fresh)
}

func (f *forwarder) noteTCP(c *flow.Copy, flags uint8) {
	if flags&packet.SYN != 0 {
		f.flows.Opening(c)
	} else {
		f.flows.Closing(c, flags)
	}
}

// decide asks the tables where a flow's packets go.
func (f *forwarder) decide(fl *packet.Flow, from origin) flow.Verdict {
	d := f.tables.fib.Lookup(fl.Dst())
	if from == originPod && f.forges(fl, d) {
		return flow.Verdict{Reason: packet.DropGuarded}
	}
	switch d.Kind {
	case fib.Attachment:
		return flow.Verdict{Action: flow.ToAttachment, Attachment: d.Attachment}
	case fib.Peer:
		if from == originPeer {
			return flow.Verdict{Reason: packet.DropTransit}
		}
		return flow.Verdict{Action: flow.ToPeer, Peer: d.Peer}
	case fib.Node:
		return flow.Verdict{Action: flow.ToNode}
	case fib.Vacant:
		return flow.Verdict{Reason: packet.DropNoPod}
	case fib.None, fib.Inside:
		if f.tables.awaited {
			return flow.Verdict{Reason: packet.DropNotReady}
		}
		if d.Kind == fib.None && f.outside != nil && (from == originPod || from == originClient) {
			return f.egress(fl)
		}
	}
	return flow.Verdict{Reason: packet.DropNoRoute}
}

// act does what was judged with a packet that lies in a buffer of its own and passes. It takes ownership of b.
func (f *forwarder) act(b *packet.Buffer, p *packet.Parsed, o packet.Offload, v flow.Verdict, from origin) {
	switch v.Action {
	case flow.ToNode:
		if from == originNode || from == originSelf {
			f.refuse(b, packet.DropTransit) // the netstack keeps packets to itself inside; answers to one would wait for us
			return
		}
		f.toNode(b.Packet(), p, o)
		b.Release()
		return
	case flow.ToOutside:
		f.toOutside(b.Packet(), p, o, from)
		b.Release()
		return
	case flow.Answer:
		f.echo(b, p, o, from)
		return
	case flow.Drop:
		f.refuse(b, v.Reason)
		return
	}
	var to *attachment // nil: a peer
	if v.Action == flow.ToAttachment {
		to = f.tables.attachments[v.Attachment]
	}
	if !f.inside(v, from) && !packet.DecrementTTL(b.Packet(), p) {
		f.refuse(b, packet.DropTTL)
		return
	}
	if to == nil {
		f.toPeer(b, p, o, v)
		return
	}
	if to.queue(f.queue).Write(b.Frame(), nil) != nil {
		f.refuse(b, packet.DropDevice)
		return
	}
	f.forwarded(p.Len)
	if f.taps != nil {
		f.taps.Leave(to.place(), tap.Packet{P: p, Offload: o, Body: b.Packet()}, 0)
	}
	b.Release()
}

func (f *forwarder) toPeer(b *packet.Buffer, p *packet.Parsed, o packet.Offload, v flow.Verdict) {
	if f.port == nil {
		f.refuse(b, packet.DropNoRoute)
		return
	}
	f.forwarded(p.Len)
	f.port.Send(b, p, o, v.Peer)
}

func (f *forwarder) toNode(b []byte, p *packet.Parsed, o packet.Offload) {
	if f.node == nil {
		f.drop(packet.DropNoRoute, 1)
		return
	}
	if !o.NeedsChecksum && !packet.TransportChecksumOK(b, p) {
		f.drop(packet.DropChecksum, 1) // netstack is told that checksums are right
		return
	}
	f.forwarded(p.Len)
	if f.taps != nil {
		f.taps.Leave(tap.Place{Layer: tap.Gateway}, tap.Packet{P: p, Offload: o, Body: b}, 0)
	}
	f.node.Deliver(b, p, o)
}

// refuse drops the packet in b.
func (f *forwarder) refuse(b *packet.Buffer, r packet.DropReason) {
	f.drop(r, 1)
	b.Release()
}
