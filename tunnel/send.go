package tunnel

import (
	"net/netip"

	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/tap"
	"github.com/middleway-net/middleway/tunnel/udp"
	"github.com/middleway-net/middleway/tunnel/vxlan"
)

// Send sends the packet in b to a peer, at the latest with the next Flush. It takes ownership of b.
func (p *Port) Send(b *packet.Buffer, parsed *packet.Parsed, o packet.Offload, to netip.Addr) {
	peer := p.peerAt(to)
	if peer == nil {
		p.refuseSend(b, parsed, o, to, packet.DropSend)
		return
	}
	h := peer.header
	h.Type = vxlan.EtherType(parsed.Version)
	if token := peer.token.Load(); token != 0 {
		h.Src = vxlan.MACOf(token)
	}
	if remote, ok := remoteChecksum(parsed, o); ok && peer.remote.Load() {
		h.Remote = remote
	}
	l := &p.lanes[parsed.Flow.Hash(0)>>32%uint64(len(p.lanes))]
	reason := packet.Kept
	if o.GSO == packet.GSONone {
		reason = p.sendPacket(l, b, parsed, o, peer, &h)
	} else {
		reason = p.sendTrain(l, b, parsed, o, peer, &h)
	}
	if reason != packet.Kept {
		p.refuseSend(b, parsed, o, to, reason)
		return
	}
	if p.pending = append(p.pending, b); len(p.pending) >= maxPending {
		p.Flush()
	}
}

// refuseSend drops a packet that is not sent. It takes ownership of b.
func (p *Port) refuseSend(b *packet.Buffer, parsed *packet.Parsed, o packet.Offload, to netip.Addr, r packet.DropReason) {
	p.drops.Add(r, 1)
	if p.taps != nil {
		p.taps.Refuse(tap.Place{Layer: tap.Tunnel, Peer: to}, tap.Packet{P: parsed, Offload: o, Body: b.Packet(), Bare: true}, r)
	}
	b.Release()
}

// sendPacket sends a packet as one datagram, its headers written into the headroom.
func (p *Port) sendPacket(l *lane, b *packet.Buffer, parsed *packet.Parsed, o packet.Offload, to *peer, h *vxlan.Header) packet.DropReason {
	if parsed.Len > int(to.mtu.Load()) {
		return packet.DropTooBig
	}
	if h.Remote.Start == 0 {
		packet.FinishChecksum(b.Packet(), &o)
	}
	if !l.batch.Fits(1) {
		p.flushLane(l)
	}
	ecn := packet.ECNOf(b.Packet())
	data := b.Prepend(vxlan.Overhead)
	h.Encode(data)
	l.batch.Begin(to.to)
	l.batch.Part(data)
	l.batch.End(0, ecn)
	if p.taps != nil {
		p.noteSent(l, to, ecn, parsed, data, nil)
	}
	return packet.Kept
}

// sendTrain sends the segments of a super-packet: in trains where the peer takes them, else each as a message of its own.
func (p *Port) sendTrain(l *lane, b *packet.Buffer, parsed *packet.Parsed, o packet.Offload, to *peer, h *vxlan.Header) packet.DropReason {
	segments, ok := packet.Split(b.Packet(), parsed, o, h.Remote.Start != 0)
	if !ok || segments.HeaderLen()+segments.Size() > int(to.mtu.Load()) {
		return packet.DropTooBig
	}
	headLen := vxlan.Overhead + segments.HeaderLen()
	wire := headLen + segments.Size()
	train := to.train(p.t, wire)
	ecn := packet.ECNOf(b.Packet())
	var outer [vxlan.Overhead]byte
	h.Encode(outer[:])
	for segments.Left() {
		if !l.batch.Fits(2*train) || l.used+train > laneHeads {
			p.flushLane(l)
		}
		l.batch.Begin(to.to)
		n := 0
		for ; n < train && segments.Left(); n++ {
			head := l.heads[l.used*headSize:][:headLen]
			l.used++
			copy(head, outer[:])
			payload, _ := segments.Next(head[vxlan.Overhead:])
			l.batch.Part(head)
			l.batch.Part(payload)
			if p.taps != nil {
				p.noteSent(l, to, ecn, parsed, head, payload)
			}
		}
		segment := 0
		if n > 1 {
			segment = wire
		}
		l.batch.End(segment, ecn)
	}
	return packet.Kept
}

// Flush sends what is pending and releases its buffers.
func (p *Port) Flush() {
	if len(p.pending) == 0 {
		return
	}
	for i := range p.lanes {
		if l := &p.lanes[i]; !l.batch.Empty() {
			p.flushLane(l)
		}
	}
	for _, b := range p.pending {
		b.Release()
	}
	p.pending = p.pending[:0]
}

func (p *Port) flushLane(l *lane) {
	p.flushing = l
	l.batch.Flush(p.failed)
	l.used, l.flown = 0, l.seen
}

// sendFailed counts datagrams of the lane that is flushed as dropped.
func (p *Port) sendFailed(before, datagrams int, err error) {
	reason := packet.DropSend
	if udp.IsTooBig(err) {
		reason = packet.DropTooBig
	}
	p.drops.Add(reason, datagrams)
	if p.taps != nil {
		p.taps.Fail(p.flushing.flown+uint64(before), datagrams, reason)
	}
}
