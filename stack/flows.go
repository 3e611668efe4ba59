package stack

import (
	"iter"
	"net/netip"
	"time"

	"github.com/middleway-net/middleway/stack/fib"
	"github.com/middleway-net/middleway/stack/flow"
	"github.com/middleway-net/middleway/stack/packet"
)

// Tuple is the flow of a packet for people and JSON. Of an ICMP echo both ports are its identifier, protocols without ports have 0.
type Tuple struct {
	Protocol string         `json:"protocol"`
	Src      netip.AddrPort `json:"src"`
	Dst      netip.AddrPort `json:"dst"`
}

func tupleOf(f *packet.Flow) Tuple {
	return Tuple{f.Proto().String(), netip.AddrPortFrom(f.Src(), f.SrcPort()), netip.AddrPortFrom(f.Dst(), f.DstPort())}
}

// String returns the tuple as "tcp 10.244.1.2:4000 -> 10.96.0.5:80".
func (t Tuple) String() string { return t.Protocol + " " + t.Src.String() + " -> " + t.Dst.String() }

// Flow is a live flow, seen from the direction that opened it.
type Flow struct {
	// Tuple is that of the opener's packets as they came.
	Tuple
	// LeavesAs is that of the packets as they leave; nil if they are not translated.
	LeavesAs *Tuple `json:"leavesAs,omitempty"`
	// Service is the Service's port that was asked for, for example "default/web:http"; empty if it was none, or is one no more.
	Service string `json:"service,omitempty"`
	// To is where the packets go: "pod default/web-0", "host", "node", "peer 192.168.254.12", or "dropped (no-pod)".
	To string `json:"to"`
	// State is opened (one direction only so far), active, closing or reset.
	State string `json:"state"`
	// Age and Idle are how long ago the flow was entered and had its last packet, to the second. In JSON they are nanoseconds.
	Age  time.Duration `json:"age"`
	Idle time.Duration `json:"idle"`
}

// Flows walks over the live flows of the node, in no order. Packets go on meanwhile, so that it shows each as it was at one
// moment, but not all at the same.
func (s *Stack) Flows() iter.Seq[Flow] {
	return func(yield func(Flow) bool) {
		t, services := s.tables.Load(), s.services.Load()
		for l := range s.flows.Live() {
			if !yield(flowOf(t, services, &l)) {
				return
			}
		}
	}
}

func flowOf(t *tables, services *frontends, l *flow.Listed) Flow {
	row := Flow{Tuple: tupleOf(&l.Flow), To: t.whither(&l.Verdict, l.Generation, &l.LeavesAs), State: l.State.String(), Age: l.Age, Idle: l.Idle}
	if l.LeavesAs != l.Flow {
		as := tupleOf(&l.LeavesAs)
		row.LeavesAs = &as
	}
	if port, _ := services.Lookup(&l.Flow); port != nil {
		row.Service = port.Name
	}
	return row
}

// whither names where packets of a flow go that was judged by tables of a generation.
func (t *tables) whither(v *flow.Verdict, generation uint32, leavesAs *packet.Flow) string {
	switch v.Action {
	case flow.ToNode:
		return "node"
	case flow.ToOutside:
		return "outside"
	case flow.ToPeer:
		return "peer " + v.Peer.String()
	case flow.Drop:
		return "dropped (" + v.Reason.String() + ")"
	}
	number := v.Attachment
	if generation != t.generation { // other tables gave the number
		d := t.fib.Lookup(leavesAs.Dst())
		if d.Kind != fib.Attachment {
			return "nobody"
		}
		number = d.Attachment
	}
	return t.attachments[number].String()
}

// String names the attachment for people: "host", or "pod" and its name.
func (a *attachment) String() string {
	if a.host {
		return "host"
	}
	return "pod " + a.name
}
