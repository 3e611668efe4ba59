package tunnel

import (
	"encoding/binary"
	"net/netip"

	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/tunnel/hello"
	"github.com/middleway-net/middleway/tunnel/vxlan"
)

// Receive receives one batch without blocking and hands over each inner packet of a known peer, parsed. The frame's first
// packet.VnetLen bytes are free to be overwritten; frame and p are borrowed, the frame until the next Receive, p until
// deliver returns. It returns how many datagrams came.
func (p *Port) Receive(deliver func(frame []byte, parsed *packet.Parsed, o packet.Offload)) (datagrams int) {
	for i, m := range p.receive.Receive() {
		from := p.peerAt(m.From)
		p.outer = m.ECN
		for data, more := m.Data, true; more; datagrams++ { // at least one, which may be empty
			n := min(m.Segment, len(data))
			p.segment = 0
			if n < len(data) && from != nil && from.Unfinished && fills(data) {
				p.segment, n = n, len(data)
			}
			if p.taps != nil {
				p.noteReceived(data[:n], netip.AddrPortFrom(m.From, p.receive.Port(i)))
			}
			o, message, reason := p.open(data[:n], from)
			switch {
			case reason != packet.Kept:
				p.refuse(reason)
			case !message:
				deliver(data[vxlan.Overhead-packet.VnetLen:n], &p.parsed, o)
			case p.taps != nil:
				p.taps.Taken()
			}
			data = data[n:]
			more = len(data) > 0
		}
	}
	return datagrams
}

// refuse counts the datagram under way as dropped.
func (p *Port) refuse(r packet.DropReason) {
	p.drops.Add(r, 1)
	if p.taps != nil {
		p.taps.Dropped(r, 1)
	}
}

// fills reports whether a message of several segments is one datagram: its inner packet reaches to the end. A kernel on this
// machine hands over a UDP super-packet of its pod so, marked with the size of the inner segments; in a train each datagram
// has an inner packet of its own.
func fills(data []byte) bool {
	if len(data) < vxlan.Overhead+6 {
		return false
	}
	inner := data[vxlan.Overhead:]
	if inner[0]>>4 == 4 {
		return int(binary.BigEndian.Uint16(inner[2:])) == len(inner)
	}
	return ipv6Len+int(binary.BigEndian.Uint16(inner[4:])) == len(inner)
}

// ipv6Len is the length of an IPv6 header, which its payload length does not count.
const ipv6Len = 40

// open reads the headers of a datagram from a peer, nil if it is from none's address, and decides whether what is in it may come in.
// That is a message, which the checks then have, or else a packet, whose headers are in p.parsed.
func (p *Port) open(data []byte, from *peer) (o packet.Offload, message bool, reason packet.DropReason) {
	h := &p.header
	switch {
	case from == nil && !p.t.config.AnySource:
		return o, false, packet.DropUnknownPeer
	case vxlan.Decode(data, h) != nil:
		return o, false, packet.DropNotVXLAN
	case h.VNI != p.t.config.VNI:
		return o, false, packet.DropVNI
	case h.Dst != p.t.config.MAC:
		return o, false, packet.DropVTEP
	}
	if from == nil {
		if from = p.t.peers.Load().sender(h); from == nil {
			return o, false, packet.DropUnknownPeer
		}
	}
	inner := data[vxlan.Overhead:]
	if h.Type == vxlan.EtherTypeLocal {
		return o, true, p.handOver(inner, from)
	}
	if reason = packet.Parse(inner, &p.parsed); reason != packet.Kept {
		return o, false, reason
	}
	if vxlan.EtherType(p.parsed.Version) != h.Type {
		return o, false, packet.DropMalformed
	}
	if !p.mayCome(from) {
		return o, false, packet.DropPeerSource
	}
	if o, reason = p.unfinished(inner, from); reason == packet.Kept && p.outer != packet.NotECT && !packet.Decapsulate(inner, p.outer) {
		reason = packet.DropECN
	}
	return o, false, reason
}

// handOver hands a peer's message to the checks, which answer it; it does not wait for them.
func (p *Port) handOver(b []byte, from *peer) packet.DropReason {
	var m hello.Message
	if !from.Hello || hello.Decode(b, &m) != nil {
		return packet.DropHello
	}
	select {
	case p.t.checks.arrivals <- arrival{from.Addr, m}:
		return packet.Kept
	default:
		return packet.DropHello
	}
}

// mayCome reports whether the peer may send from the source of the packet under way. Most datagrams come from the pod that
// the one before came from.
func (p *Port) mayCome(from *peer) bool {
	if p.sender == from && p.parsed.Flow.From(p.source) {
		return true
	}
	src := p.parsed.Flow.Src()
	if !from.owns(src) {
		return false
	}
	p.sender, p.source = from, packet.KeyOf(src)
	return true
}

// unfinished returns what the sender left open in an inner packet: a checksum by its request, or, where a kernel on this
// machine handed the packet over, checksum and segmentation (a veth or virtio device takes encapsulated packets as they
// are: the field then holds the pseudo-header's sum, and a super-packet comes in one datagram). TCP's segments may be cut at
// any size, and only the kernel knows where UDP's datagrams end.
func (p *Port) unfinished(inner []byte, from *peer) (o packet.Offload, reason packet.DropReason) {
	parsed := &p.parsed
	switch remote := p.header.Remote; {
	case remote.Start != 0:
		if !from.RemoteChecksum && !from.Hello || !fits(remote, parsed) {
			return o, packet.DropOffload
		}
		o = packet.PartialOffload(parsed)
	case from.Unfinished && packet.ChecksumIsPartial(inner, parsed):
		o = packet.PartialOffload(parsed)
	}
	if parsed.Len <= p.t.config.MTU && p.segment == 0 {
		return o, packet.Kept
	}
	unfinished := from.Unfinished && o.NeedsChecksum
	if p.segment == 0 && !(unfinished && parsed.Proto == packet.TCP) {
		// Of a node with a larger MTU: the stack cuts it, or tells its source. UDP is not a super-packet: the kernel splits one
		// for a socket that it would not tell the segments' size (udp_unexpected_gso).
		return o, packet.Kept
	}
	size := p.segment
	if size == 0 {
		size = p.t.config.MTU - parsed.Payload
	}
	if !unfinished || size <= 0 {
		return o, packet.DropTooBig
	}
	o = o.Segmented(parsed, size)
	if reason = o.Check(inner, parsed); reason == packet.Kept && !from.proved.Load() {
		from.proved.Store(true)
	}
	return o, reason
}
