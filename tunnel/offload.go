package tunnel

import (
	"fmt"
	"net/netip"

	"github.com/middleway-net/middleway/tunnel/udp"
)

// Offloads are what the tunnel leaves to the kernel, or to a peer.
type Offloads struct {
	Segment        bool // trains are sent in one call, and cut below (UDP_SEGMENT)
	GRO            bool // trains are received in one call (UDP_GRO)
	RemoteChecksum bool // a peer finishes inner checksums (VXLAN remote checksum offload)
}

// Offloads returns what the tunnel uses, and why the kernel lacks what it lacks.
func (t *Tunnel) Offloads() (Offloads, udp.Offloads) { return t.uses, t.lacks }

// probeOffloads finds out what there is to use.
func (t *Tunnel) probeOffloads() (err error) {
	t.lacks, err = udp.Probe(t.socket(udp.Config{Local: netip.AddrPortFrom(t.config.Local, 0)}))
	if err != nil {
		return fmt.Errorf("probe the offloads of the tunnel: %w", err)
	}
	off := t.config.Without
	t.uses = Offloads{
		Segment: !off.Segment && t.lacks.Segment == nil, GRO: !off.GRO && t.lacks.GRO == nil, RemoteChecksum: !off.RemoteChecksum,
	}
	return nil
}
