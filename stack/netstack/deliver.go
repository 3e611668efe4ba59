package netstack

import (
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/middleway-net/middleway/stack/packet"
)

// Deliver takes a packet addressed to the node: b, whose headers are p and whose checksums are verified or, if o says so,
// unfinished. b is borrowed and copied once. Any worker may call it.
//
// TCP segments are queued to gVisor's processors and datagrams to their sockets; an echo reply or a refusal is sent from
// within Deliver. So a worker is held up for one copy and at most one Inject.
func (n *Netstack) Deliver(b []byte, p *packet.Parsed, o packet.Offload) {
	d := n.link.dispatcher.Load()
	if d == nil {
		return
	}
	b = b[:p.Len]
	switch {
	case o.GSO == packet.GSOUDP:
		deliverDatagrams(*d, b, p, o)
	case p.Fragment:
		n.deliverFragment(b, p)
	case n.unreachable(b, p):
	default:
		deliver(*d, p, buffer.MakeWithData(b))
	}
}

// deliver takes ownership of b.
func deliver(d stack.NetworkDispatcher, p *packet.Parsed, b buffer.Buffer) {
	deliverTo(d, network(p), b)
}

func deliverTo(d stack.NetworkDispatcher, network tcpip.NetworkProtocolNumber, b buffer.Buffer) {
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: b})
	d.DeliverNetworkPacket(network, pkt)
	pkt.DecRef()
}

// deliverDatagrams splits a UDP super-packet. A TCP super-packet is a segment like any other to its receiver, but datagrams
// have bounds.
func deliverDatagrams(d stack.NetworkDispatcher, b []byte, p *packet.Parsed, o packet.Offload) {
	if o.Check(b, p) != packet.Kept {
		return
	}
	segments, ok := packet.Split(b, p, o, true)
	if !ok {
		return
	}
	var space [packet.MaxSegmentHeader]byte
	head := space[:segments.HeaderLen()]
	for segments.Left() {
		payload, _ := segments.Next(head)
		v := buffer.NewView(len(head) + len(payload))
		_, _ = v.Write(head) // fits, and cannot fail
		_, _ = v.Write(payload)
		deliver(d, p, buffer.MakeWithView(v))
	}
}

// deliverFragment hands a fragment over as not verified, past the interface, which would mark it as verified: the worker
// could not sum what gVisor has yet to put together.
func (n *Netstack) deliverFragment(b []byte, p *packet.Parsed) {
	e, err := n.stack.GetNetworkEndpoint(nicID, network(p))
	if err != nil {
		return // the interface is gone
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(b)})
	e.HandlePacket(pkt)
	pkt.DecRef()
}

func network(p *packet.Parsed) tcpip.NetworkProtocolNumber {
	if p.Version == 4 {
		return header.IPv4ProtocolNumber
	}
	return header.IPv6ProtocolNumber
}
