package stack

import (
	"fmt"

	"github.com/middleway-net/middleway/stack/icmp"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/tap"
)

// refuseSource tells the source of packet b, which is borrowed, that nobody serves it at its destination, from there: by a reset of
// TCP, else by ICMP port unreachable.
func (f *forwarder) refuseSource(b []byte, p *packet.Parsed, o packet.Offload, from origin) {
	if p.Proto != packet.TCP {
		f.answerFrom(p.Flow.Dst(), b, p, o, icmp.Error{Kind: icmp.PortUnreachable}, from)
		return
	}
	if p.Flags&packet.RST != 0 || p.Fragment || from == originOutside || !f.answers.refusals.Allow(f.s.clock()) {
		return
	}
	if from == originNode {
		reset := make([]byte, packet.ResetLen)
		f.s.tellLater(reset[:packet.BuildReset(reset, b, p)])
		return
	}
	if f.record != nil {
		f.record.answers(fmt.Sprintf("the source is refused: TCP reset, from %v", p.Flow.Dst()))
	}
	nb := f.pool.Get()
	f.sendOwn(nb, packet.BuildReset(nb.Space()[packet.VnetLen:], b, p))
}

// sendOwn sends a packet of n bytes that the worker has built in nb, in answer to the one under way: past the flow table, since
// nothing will answer it. It takes ownership of nb.
func (f *forwarder) sendOwn(nb *packet.Buffer, n int) {
	packet.Offload{}.Encode(nb.Space())
	nb.SetFrame(packet.VnetLen + n)
	p := &f.answers.parsed
	reason := packet.Parse(nb.Packet(), p)
	if f.taps != nil {
		f.taps.Nest()
		f.taps.Enter(tap.Place{Layer: tap.Gateway}, tap.Packet{P: p, Body: nb.Packet()})
	}
	if reason == packet.Kept {
		f.sendBack(nb, p)
	} else {
		f.refuse(nb, reason)
	}
	if f.taps != nil {
		f.taps.Unnest()
	}
}

// sendBack sends a packet of the node on its way without entering a flow. It takes ownership of b.
func (f *forwarder) sendBack(b *packet.Buffer, p *packet.Parsed) {
	v := f.decide(&p.Flow, originSelf)
	if f.watched() {
		f.noteJudged(v, nil, &p.Flow)
	}
	if !f.passes(b.Packet(), p, packet.Offload{}, v, nil, originSelf) {
		b.Release()
		return
	}
	f.act(b, p, packet.Offload{}, v, originSelf)
}

// echo makes of a ping to a Service's address the answer to it. It takes ownership of b.
func (f *forwarder) echo(b *packet.Buffer, p *packet.Parsed, o packet.Offload, from origin) {
	if !icmp.IsRequest(b.Packet(), p) || o.NeedsChecksum || from == originNode {
		f.refuse(b, packet.DropServicePort)
		return
	}
	if f.record != nil {
		f.record.answered("an echo reply, from the Service's address")
	}
	icmp.Reply(b.Packet(), p)
	f.sendBack(b, p)
}
