package tunnel

import (
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/tunnel/vxlan"
)

// remoteChecksum returns how to ask a peer for the checksum of packet p, whose offload is o. ok is false if it is not open,
// or lies where the request cannot describe it.
func remoteChecksum(p *packet.Parsed, o packet.Offload) (r vxlan.RemoteChecksum, ok bool) {
	r = vxlan.RemoteChecksum{Start: uint8(vxlan.EthernetLen + p.L4), UDP: p.Proto == packet.UDP}
	want := packet.PartialOffload(p)
	return r, o.NeedsChecksum && o.ChecksumStart == want.ChecksumStart && o.ChecksumOffset == want.ChecksumOffset && fits(r, p)
}

// fits reports whether a request describes packet p: one that does not would let a sender write anywhere.
func fits(r vxlan.RemoteChecksum, p *packet.Parsed) bool {
	return !p.Fragment && int(r.Start) == vxlan.EthernetLen+p.L4 && r.Start%2 == 0 &&
		(r.UDP && p.Proto == packet.UDP || !r.UDP && p.Proto == packet.TCP)
}
