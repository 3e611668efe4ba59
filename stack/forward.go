package stack

import (
	"github.com/middleway-net/middleway/stack/fib"
	"github.com/middleway-net/middleway/stack/flow"
	"github.com/middleway-net/middleway/stack/packet"
)

// origin says where a packet came from.
type origin uint8

const (
	originPod origin = iota
	originPeer
	originNode
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
	if reason == packet.Kept {
		reason = o.Check(b.Packet(), p)
	}
	if reason == packet.Kept && !p.Routable() {
		reason = packet.DropScope
	}
	if reason == packet.Kept && !att.owns(&p.Flow) {
		reason = packet.DropSource
	}
	if reason != packet.Kept {
		f.refuse(b, reason)
		return
	}
	b.Trim(p.Len)
	f.act(b, p, o, f.judge(p, originPod), originPod)
}

// fromNode takes a packet of the node's own netstack. It takes ownership of b.
func (f *forwarder) fromNode(b *packet.Buffer, o packet.Offload) {
	p := &f.parsed
	if reason := packet.Parse(b.Packet(), p); reason != packet.Kept {
		f.refuse(b, reason)
		return
	}
	f.act(b, p, o, f.judge(p, originNode), originNode)
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
		return
	}
	f.flushTrain()
	if !p.Routable() {
		f.drop(packet.DropScope, 1)
		return
	}
	switch v := f.judge(p, originPeer); v.Action {
	case flow.ToAttachment:
		f.to = f.tables.attachments[v.Attachment]
		f.train.Start(frame, p, o)
	case flow.ToNode:
		f.toNode(b[:p.Len], p, o)
	default:
		f.drop(v.Reason, 1)
	}
}

// flushTrain writes the packets of a train to their pod.
func (f *forwarder) flushTrain() {
	if f.train.Empty() {
		return
	}
	n, length := f.train.Count(), f.train.Len()
	if !packet.DecrementTTL(f.train.First()) {
		f.drop(packet.DropTTL, n)
	} else if frame, more := f.train.Finish(); f.to.queue(f.queue).Write(frame, more) != nil {
		f.drop(packet.DropDevice, n)
	} else {
		f.moved.add(n, length)
	}
	f.train.Reset()
}

// judge returns what is to be done with a packet. Only the first packet of a flow, and the first after a change of the
// tables, is decided on; for others the flow cache answers.
func (f *forwarder) judge(p *packet.Parsed, from origin) flow.Verdict {
	if !p.HasFlow {
		return f.decide(&p.Flow, from)
	}
	c := f.cache.Get(&p.Flow, f.now)
	if c == nil {
		v := f.decide(&p.Flow, from)
		if v.Action == flow.Drop {
			return v // not worth an entry: a scan would push out what lives
		}
		back := p.Flow.Reverse()
		c = f.cache.Put(f.s.flows.Create(p.Flow, v, f.decide(&back, originNode), f.tables.generation))
	}
	if c.Generation != f.tables.generation {
		if c = f.rejudge(c, from); c == nil {
			return f.decide(&p.Flow, from)
		}
	}
	if p.Proto == packet.TCP && p.Flags&(packet.SYN|packet.FIN|packet.RST) != 0 {
		f.noteTCP(c, p.Flags)
	}
	if c.Verdict.Action == flow.ToPeer && from == originPeer {
		return flow.Verdict{Reason: packet.DropTransit}
	}
	return c.Verdict
}

// rejudge decides again about a flow that was judged by other tables than those of this batch, older or newer: numbers of
// attachments mean something only in the tables by which they were found.
func (f *forwarder) rejudge(c *flow.Copy, from origin) *flow.Copy {
	v := f.decide(&c.Flow, from)
	fresh, ok := f.s.flows.Rejudge(c, v, f.tables.generation)
	if !ok {
		return nil
	}
	return f.cache.Put(fresh)
}

func (f *forwarder) noteTCP(c *flow.Copy, flags uint8) {
	if flags&packet.SYN != 0 {
		f.s.flows.Opening(c)
	} else {
		f.s.flows.Closing(c, flags)
	}
}

// decide asks the tables where a flow's packets go.
func (f *forwarder) decide(fl *packet.Flow, from origin) flow.Verdict {
	switch d := f.tables.fib.Lookup(fl.Dst()); d.Kind {
	case fib.Attachment:
		return flow.Verdict{Action: flow.ToAttachment, Attachment: d.Attachment}
	case fib.Peer:
		if from == originPeer {
			return flow.Verdict{Reason: packet.DropTransit}
		}
		return flow.Verdict{Action: flow.ToPeer, Peer: d.Peer}
	case fib.Node:
		return flow.Verdict{Action: flow.ToNode}
	}
	return flow.Verdict{Reason: packet.DropNoRoute}
}

// act does what was judged with a packet that lies in a buffer of its own. It takes ownership of b.
func (f *forwarder) act(b *packet.Buffer, p *packet.Parsed, o packet.Offload, v flow.Verdict, from origin) {
	switch v.Action {
	case flow.ToNode:
		if from == originNode {
			f.refuse(b, packet.DropTransit) // the netstack keeps packets to itself inside; answers to one would wait for us
			return
		}
		f.toNode(b.Packet(), p, o)
		b.Release()
		return
	case flow.Drop:
		f.refuse(b, v.Reason)
		return
	}
	// The node is the first hop of its own packets.
	if from != originNode && !packet.DecrementTTL(b.Packet(), p) {
		f.refuse(b, packet.DropTTL)
		return
	}
	if v.Action == flow.ToPeer {
		f.toPeer(b, p, o, v)
		return
	}
	to := f.tables.attachments[v.Attachment]
	if to.queue(f.queue).Write(b.Frame(), nil) != nil {
		f.refuse(b, packet.DropDevice)
		return
	}
	f.moved.add(1, p.Len)
	b.Release()
}

func (f *forwarder) toPeer(b *packet.Buffer, p *packet.Parsed, o packet.Offload, v flow.Verdict) {
	if f.port == nil {
		f.refuse(b, packet.DropNoRoute)
		return
	}
	f.moved.add(1, p.Len)
	f.port.Send(b, p, o, v.Peer)
}

func (f *forwarder) toNode(b []byte, p *packet.Parsed, o packet.Offload) {
	if f.s.node == nil {
		f.drop(packet.DropNoRoute, 1)
		return
	}
	if !o.NeedsChecksum && !packet.TransportChecksumOK(b, p) {
		f.drop(packet.DropChecksum, 1) // netstack is told that checksums are right
		return
	}
	f.moved.add(1, p.Len)
	f.s.node.Deliver(b, p, o)
}

// refuse drops the packet in b.
func (f *forwarder) refuse(b *packet.Buffer, r packet.DropReason) {
	f.drop(r, 1)
	b.Release()
}
