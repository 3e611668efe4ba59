package tap

import (
	"net/netip"
	"slices"

	"github.com/middleway-net/middleway/stack/packet"
)

// Filter says which packets are wanted: those of which each of its fields that is not empty holds. It is not changed once it
// is in use.
type Filter struct {
	// Places: seen at one of these. The name of a Place may be empty, for all of the layer.
	Places []Place
	// Hosts: source or destination lies in one of these, or, at the tunnel, the other node's address.
	Hosts []netip.Prefix
	// Ports: source or destination port of TCP, UDP or SCTP is one of these. Fragments but the first have none.
	Ports []uint16
	// Protos: of one of these.
	Protos []packet.Proto
	// Drops: only what was dropped.
	Drops bool
}

// takes reports whether a packet at a place is wanted, as far as that is known before its verdict. p is what could be read of
// it.
func (f *Filter) takes(at *Place, p *packet.Parsed) bool {
	return (len(f.Places) == 0 || f.hasPlace(at)) &&
		(len(f.Hosts) == 0 || f.hasHost(at, p)) &&
		(len(f.Ports) == 0 || f.hasPort(p)) &&
		(len(f.Protos) == 0 || p.Version != 0 && slices.Contains(f.Protos, p.Proto))
}

func (f *Filter) hasPlace(at *Place) bool {
	for i := range f.Places {
		if w := &f.Places[i]; w.Layer == at.Layer && (w.Name == "" || w.Name == at.Name) {
			return true
		}
	}
	return false
}

func (f *Filter) hasHost(at *Place, p *packet.Parsed) bool {
	for _, h := range f.Hosts {
		if at.Peer.IsValid() && h.Contains(at.Peer) || p.Version != 0 && (h.Contains(p.Flow.Src()) || h.Contains(p.Flow.Dst())) {
			return true
		}
	}
	return false
}

func (f *Filter) hasPort(p *packet.Parsed) bool {
	return hasPorts(p) && (slices.Contains(f.Ports, p.Flow.SrcPort()) || slices.Contains(f.Ports, p.Flow.DstPort()))
}

// hasPorts reports whether a packet's flow has ports: an echo's identifier is none.
func hasPorts(p *packet.Parsed) bool {
	return p.HasFlow && (p.Proto == packet.TCP || p.Proto == packet.UDP || p.Proto == packet.SCTP)
}
