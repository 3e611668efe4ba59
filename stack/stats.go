package stack

import "sync/atomic"

// counters count what was forwarded. One goroutine writes, any may read.
type counters struct {
	packets, bytes atomic.Uint64
}

// add counts n packets (as they would be on a wire) or one super-packet, and their bytes.
func (c *counters) add(n, bytes int) {
	c.packets.Store(c.packets.Load() + uint64(n))
	c.bytes.Store(c.bytes.Load() + uint64(bytes))
}

// Stats are the stack's counters since it was made.
type Stats struct {
	// Packets forwarded, delivered to the node and sent by it; a super-packet that stays whole counts once.
	Packets uint64 `json:"packets"`
	// Bytes of these packets, IP headers included.
	Bytes uint64 `json:"bytes"`
	// Drops are packets dropped, by the name of the reason; those of the tunnel's ports are among them.
	Drops map[string]uint64 `json:"drops"`
	// ICMPErrors is how many ICMP errors the node has sent as a router.
	ICMPErrors uint64 `json:"icmpErrors"`
	// Flows is how many directions of flows are known; RestoredFlows how many were found at the start.
	Flows         int `json:"flows"`
	RestoredFlows int `json:"restoredFlows"`
	// EvictedFlows is how many directions of flows were given up for newer ones because the flow table was full.
	EvictedFlows uint64 `json:"evictedFlows"`
	// Attachments is how many pods are attached, the host and those in Lost not counted.
	Attachments int `json:"attachments"`
	// Lost are the names of pods whose devices are gone, though nobody has detached them.
	Lost []string `json:"lost"`
}

// Stats returns the counters.
func (s *Stack) Stats() Stats {
	st := Stats{Drops: map[string]uint64{}, Lost: []string{}, Flows: s.flows.Len(), RestoredFlows: s.flows.Restored(), EvictedFlows: s.flows.Evicted()}
	add := func(f *forwarder) {
		st.Packets += f.moved.packets.Load()
		st.Bytes += f.moved.bytes.Load()
		st.ICMPErrors += f.answers.sent.packets.Load()
		f.drops.AddTo(st.Drops)
		if f.port != nil {
			f.port.Drops().AddTo(st.Drops)
		}
	}
	for _, w := range s.workers {
		add(&w.forwarder)
	}
	add(&s.local.forwarder)
	s.fragments.AddDrops(st.Drops)
	for _, a := range s.tables.Load().attachments {
		switch {
		case a == nil || a.host:
		case a.lost:
			st.Lost = append(st.Lost, a.name)
		default:
			st.Attachments++
		}
	}
	return st
}
