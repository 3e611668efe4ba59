package stack

import "github.com/middleway-net/middleway/stack/packet"

// forwardFragment forwards a fragment with the flow of its packet, and behind a first one those that waited for it. One that
// comes before the first waits in the node's fragment table. It takes ownership of b.
func (f *forwarder) forwardFragment(b *packet.Buffer, p *packet.Parsed, o packet.Offload, from origin) {
	if p.FragmentOffset == 0 {
		waiting, reason := f.s.fragments.First(p, f.s.clock())
		if reason != packet.Kept {
			f.refuse(b, reason)
			return
		}
		f.forwardJudged(b, p, o, from)
		for _, early := range waiting {
			if f.taps != nil {
				f.noteLate(early)
			}
			f.forwardCopy(early, packet.Offload{}, from)
		}
		return
	}
	packet.FinishChecksum(b.Packet(), &o) // a copy that waits has no offload
	found, reason := f.s.fragments.Later(b.Packet(), p, f.s.clock())
	switch {
	case reason != packet.Kept:
		f.refuse(b, reason)
	case !found:
		if f.taps != nil {
			f.taps.Held()
		}
		b.Release()
	default:
		f.forwardJudged(b, p, o, from)
	}
}

// forwardCopy forwards a packet, which is borrowed, in a buffer of its own.
func (f *forwarder) forwardCopy(packetBytes []byte, o packet.Offload, from origin) {
	b := f.copied(packetBytes, o)
	p := &f.parsed
	if reason := packet.Parse(b.Packet(), p); reason != packet.Kept {
		f.refuse(b, reason)
		return
	}
	f.forward(b, p, o, from)
}

// copied returns a packet, which is borrowed, in a buffer of its own.
func (f *forwarder) copied(packetBytes []byte, o packet.Offload) *packet.Buffer {
	b := f.pool.Get()
	o.Encode(b.Space())
	b.SetFrame(packet.VnetLen + copy(b.Space()[packet.VnetLen:], packetBytes))
	return b
}
