// Package trace follows a packet that nobody has sent through the daemons of a playground or of a real cluster: from the name that a pod
// asks for to the device of the pod that would get it, with every decision on the way. The daemons decide (node.Client); this package
// chooses whom to ask, and draws what they say.
//
//	pod, destination ──► daemon of the pod's node ──► daemon of the node where the packet goes on ──► … ──► text, JSON
package trace

import (
	"context"
	"fmt"

	"github.com/middleway-net/middleway/node"
)

// Trace is a packet's way through a cluster.
type Trace struct {
	// From is the pod that would send it, NAMESPACE/NAME, and To what was asked for.
	From string `json:"from"`
	To   string `json:"to"`
	// Notes say how To was understood, where that is not what a name or an address means by itself.
	Notes []string `json:"notes,omitempty"`
	// Hops are the nodes on the way, in its order.
	Hops []node.TraceHop `json:"hops"`
	// Verdict is that of the last hop: forwarded, answered or dropped; "no-address" where no name leads to an address.
	Verdict string `json:"verdict"`
	// Reason is why it was dropped, as middleway status counts it.
	Reason string `json:"reason,omitempty"`
	// Ends is where the packet ends, for example "pod shop/front-1", or the peer that could not be asked.
	Ends string `json:"ends,omitempty"`
}

// NoAddress is the verdict about a name without an address.
const NoAddress = "no-address"

// Arrives reports whether somebody gets the packet.
func (t *Trace) Arrives() bool { return t.Verdict == "forwarded" || t.Verdict == "answered" }

// maxHops bounds the nodes on the way: a packet goes from one node to another, and no further.
const maxHops = 4

// follow asks a daemon, then that of the node where the packet goes on.
func (t *Trace) follow(ctx context.Context, c Cluster, daemon *node.Client, req node.TraceRequest) error {
	for range maxHops {
		hop, err := daemon.Trace(ctx, req)
		if err != nil {
			return err
		}
		t.Hops = append(t.Hops, hop)
		if hop.Trace == nil {
			t.Verdict = NoAddress
			return nil
		}
		t.Verdict, t.Reason, t.Ends = hop.Verdict, hop.Reason, hop.To
		next, ok := hop.NextRequest()
		if !ok {
			return nil
		}
		if daemon, err = c.Daemon(ctx, hop.PeerName, hop.Peer); err != nil {
			t.Notes = append(t.Notes, fmt.Sprintf("the packet goes on at %v, whose daemon cannot be asked from here: %v", hop.Peer, err))
			return nil
		}
		req = next
	}
	return fmt.Errorf("trace: the packet went over %d nodes and further; do two of them send it to each other?", maxHops)
}
