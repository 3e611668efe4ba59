package stack

import (
	"net/netip"
	"slices"

	"github.com/middleway-net/middleway/stack/flow"
	"github.com/middleway-net/middleway/stack/packet"
)

// dnsPort is where DNS servers listen (RFC 1035, section 4.2).
const dnsPort = 53

// answerSize is how many bytes an Answerer may write: what fits a packet of IPv6's least MTU behind its headers (RFC 8200,
// section 5), the size that DNS servers have agreed on (DNS Flag Day 2020).
const answerSize = 1280 - 40 - 8

// answersQuery answers a packet that is a DNS query to the node, and reports whether it did: it then has taken ownership of b.
func (f *forwarder) answersQuery(b *packet.Buffer, p *packet.Parsed, o packet.Offload, from origin) bool {
	if p.Proto != packet.UDP || p.Fragment || o.GSO != packet.GSONone || from == originPeer || f.s.answer == nil || !f.s.ownsService(&p.Flow) {
		return false
	}
	if !o.NeedsChecksum && !packet.TransportChecksumOK(b.Packet(), p) {
		f.refuse(b, packet.DropChecksum)
		return true
	}
	nb := f.pool.Get()
	room := nb.Space()[packet.VnetLen:]
	head := packet.UDPHeaderLen(p.Version == 4)
	n, ok := f.s.answer.Answer(room[head:head+answerSize:head+answerSize], packet.UDPPayload(b.Packet(), p), p.Flow.Src())
	if !ok || n <= 0 || n > answerSize {
		nb.Release()
		return false
	}
	back := p.Flow.Reverse()
	packet.BuildUDP(room[:head+n], &back)
	if f.watched() {
		f.noteJudged(flow.Verdict{Action: flow.ToNode}, nil, &p.Flow)
	}
	if f.record != nil {
		f.record.answered("the answer of the node's DNS server")
	}
	f.forwarded(p.Len)
	f.sendOwn(nb, head+n)
	b.Release()
	return true
}

// ownsService reports whether the node itself serves the destination of a flow: cluster DNS.
func (s *Stack) ownsService(fl *packet.Flow) bool { return slices.ContainsFunc(s.dns, fl.To) }

func keysOf(addrs []netip.Addr) (keys []packet.AddrKey) {
	for _, a := range addrs {
		keys = append(keys, packet.KeyOf(a))
	}
	return keys
}
