// Package flow holds what the node has decided about each conversation: its verdict, and how long it lives.
//
// The truth is one Table for the whole node, in shards, of fixed-size entries without pointers that lie in a file mapped
// from the run directory: a daemon that is killed and started again finds its flows where they were. Creating a flow
// writes both directions, since they often reach different workers.
//
// A worker asks its own Cache first: copies of entries, each with the version that the entry had. An entry that changes
// gets a new version, and the copy is stale. So a packet of a known flow costs one hash, one compare and one atomic load;
// locks are taken only on a miss, an insert, the end of a TCP connection, and expiry.
//
// An entry also says as what its packets leave, where addresses or ports are translated: a full tuple for each direction,
//
//	entry of         192.168.254.11:4000 -> 10.244.2.2:80     leaves as 10.244.1.0:4000 -> 10.244.2.2:80
//	its twin, of     10.244.2.2:80 -> 10.244.1.0:4000         leaves as 10.244.2.2:80 -> 192.168.254.11:4000
//
// so that no two flows leave as the same one, and a translated flow keeps its mapping at whatever worker its packets come.
package flow

import (
	"net/netip"
	"unsafe"

	"github.com/middleway-net/middleway/stack/packet"
)

// Action says where packets of a flow go. The zero Action drops them.
type Action uint8

// Actions.
const (
	Drop         Action = iota
	ToAttachment        // to a pod on this node
	ToPeer              // to another node
	ToNode              // to the node's own netstack
	ToOutside           // out of the cluster, through the node's sockets
	Answer              // the worker itself answers; flows with this action are not entered
)

// String returns the action as logs and traces name it.
func (a Action) String() string {
	switch a {
	case ToAttachment:
		return "attachment"
	case ToPeer:
		return "peer"
	case ToNode:
		return "node"
	case ToOutside:
		return "outside"
	case Answer:
		return "answer"
	}
	return "drop"
}

// Verdict is what was decided about one direction of a flow. The zero Verdict drops.
type Verdict struct {
	Action Action
	// Reason is why packets are dropped; valid iff Action is Drop.
	Reason packet.DropReason
	// Attachment is the pod's attachment; valid iff Action is ToAttachment.
	Attachment uint32
	// Peer is the peer's underlay address; valid iff Action is ToPeer.
	Peer netip.Addr
}

// Ref names an entry of a Table.
type Ref uint32

// Copy is a worker's copy of an entry: 128 bytes, two cache lines.
type Copy struct {
	Flow packet.Flow
	// Translated is the flow that packets become; valid iff Translates.
	Translated packet.Flow
	Verdict    Verdict
	// Generation is that of the tables by which the verdict was made.
	Generation uint32
	ref        Ref
	version    uint32
	seen       uint32
}

var _ [128]byte = [unsafe.Sizeof(Copy{})]byte{}

// Translates reports whether packets leave as others than they came, as Translated.
func (c *Copy) Translates() bool { return !c.Translated.IsZero() }

// LeavesAs returns the flow of the packets as they leave.
func (c *Copy) LeavesAs() *packet.Flow {
	if c.Translates() {
		return &c.Translated
	}
	return &c.Flow
}

// mirrors reports whether the flow is its own other direction: from an address and port to the same.
func (c *Copy) mirrors() bool { return c.LeavesAs().Reverse() == c.Flow }

// Pair describes both directions of a flow that is to be entered.
type Pair struct {
	// Flow is that of the packet at hand.
	Flow packet.Flow
	// Translated is what its packets become; Flow itself if they are not translated. Replies come as its reverse, and become
	// Flow's. Any of the four (addresses, ports) may differ.
	Translated packet.Flow
	// Verdict is for the packets, Reply for those of the other direction, both as they leave.
	Verdict, Reply Verdict
	// Generation is that of the tables by which the verdicts were made.
	Generation uint32

	// FromOutside: a client outside the cluster opened the flow, through the node's sockets. Replies go ToOutside as long as it lives,
	// whatever Rejudge is told: the client may have an address to which the tables know another way.
	FromOutside bool

	// Entered is set by Enter: it made the entry, and no other worker was faster.
	Entered bool

	opened bool   // by the other direction
	over   uint32 // bits of the entries' state
}
