package tap

import (
	"net/netip"
	"time"

	"github.com/middleway-net/middleway/stack/packet"
)

// Layer is a kind of place where packets come in and go out.
type Layer uint8

// The layers.
const (
	Pod     Layer = iota + 1 // the eth0 of a pod
	Host                     // mw0, the way to the node's own kernel
	Gateway                  // the netstack behind the gateway addresses, and what the node itself says as a router
	Tunnel                   // encapsulated, from and to other nodes
	Outside                  // the node's sockets to what is outside the cluster
)

// String returns the layer's name.
func (l Layer) String() string {
	switch l {
	case Pod:
		return "pod"
	case Host:
		return "host"
	case Gateway:
		return "gateway"
	case Tunnel:
		return "tunnel"
	case Outside:
		return "outside"
	}
	return "nowhere"
}

// Place is one of the interfaces at which packets are seen, or where they go. The zero Place is none.
type Place struct {
	Layer Layer
	Name  string     // the pod's
	Peer  netip.Addr // the other node's underlay address, at the tunnel; not valid if it is none
}

// Direction is seen from the node.
type Direction uint8

// Directions.
const (
	In  Direction = iota + 1 // the node took it there
	Out                      // the node sent it there
)

// Verdict is what became of a packet.
type Verdict uint8

// Verdicts. Only Forwarded and Dropped are counted by the data path, each as often as Packets says.
const (
	None      Verdict = iota
	Forwarded         // to Judgement.To
	Dropped           // for Reason
	Held              // a fragment that waits for its packet's first; another record tells what became of it
	Taken             // a message between nodes, which ends here
	Sent              // it went out here; the record of where it came in has the verdict
)

// Judgement is why a packet goes where it goes.
type Judgement struct {
	// To is where it goes.
	To Place
	// Route is the prefix that led there; not valid if none did.
	Route netip.Prefix
	// Translated says that the packet leaves as one of flow As.
	Translated bool
	As         packet.Flow
}

// Record is a copy of a packet at one place. Its bytes are beside it.
type Record struct {
	Time      time.Time
	At        Place
	Direction Direction
	Verdict   Verdict
	// Reason is valid iff Verdict is Dropped.
	Reason packet.DropReason
	// Packets is by how much the verdict's counter grew: more than 1 for a packet that went on in pieces.
	Packets int
	// From is where a packet came in that was Sent.
	From Place
	Judgement
	// Answer is the ICMP error that the source was told; 0 if none.
	Answer uint8
	// Error says that the packet is an ICMP error of this node, Late that it is a fragment that was Held, Bare that of an
	// encapsulated packet only the inside is there, Message that it is no packet of a pod but a message of another node.
	Error, Late, Bare, Message bool
	// Flow is valid iff Version is not 0; its ports iff HasPorts. Flags are TCP's.
	Version  uint8
	Flags    uint8
	HasPorts bool
	Flow     packet.Flow
	// GSO and Segment say that it is a super-packet, with Segment bytes of payload in each segment and Payload in all.
	GSO              packet.GSO
	Segment, Payload int
	// Length is that of the whole packet, in bytes, of which the copy may have less.
	Length int

	key        uint64 // see Writers.Fail
	begin, end uint64 // where the bytes are in the ring
}
