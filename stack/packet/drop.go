package packet

import (
	"slices"
	"sync/atomic"
)

// DropReason says why a packet was dropped. Every drop increments one counter by its reason. The zero value means that
// the packet was not dropped.
type DropReason uint8

// The reasons, in the order in which a packet meets them.
const (
	Kept DropReason = iota

	// DropMalformed: a header is cut off, contradicts itself or its length, or holds an address that may not be on a wire.
	DropMalformed
	// DropOffload: the device's own description of the packet (virtio_net_hdr) contradicts the packet.
	DropOffload
	// DropNotVXLAN: a datagram on the tunnel's port without a valid VXLAN header and inner Ethernet frame.
	DropNotVXLAN
	// DropVNI: a datagram for another virtual network.
	DropVNI
	// DropUnknownPeer: a datagram whose sender is no peer.
	DropUnknownPeer
	// DropVTEP: an inner Ethernet frame for another VTEP.
	DropVTEP
	// DropHello: a message about the way between two nodes that is none, comes from a peer that sends none, or came too fast.
	DropHello
	// DropPeerSource: an inner source outside the sender's range.
	DropPeerSource
	// DropECN: the tunnel met congestion, and the packet's sender does not know of ECN (RFC 6040, section 4.2).
	DropECN
	// DropSource: a pod sent from an address that is not its own.
	DropSource
	// DropScope: a multicast, broadcast, link-local or unspecified address that is not routed.
	DropScope
	// DropSourceRoute: an IPv4 option that chooses the way past the node's decisions (RFC 7126, sections 4.3 and 4.4).
	DropSourceRoute
	// DropChecksum: a wrong checksum, found where one had to be verified.
	DropChecksum
	// DropFragment: a fragment that hides or overlaps its packet's transport header (RFC 1858, RFC 5722).
	DropFragment
	// DropFragmentFull: a fragment that came before its packet's first one, when as many as may wait did so.
	DropFragmentFull
	// DropFragmentTimeout: a fragment whose packet's first one did not come in time.
	DropFragmentTimeout
	// DropTTL: the time to live (hop limit) is used up.
	DropTTL
	// DropNoRoute: the destination lies in no range that a pod, a peer or the node has.
	DropNoRoute
	// DropNoPod: the destination lies in this node's range, and no pod has it.
	DropNoPod
	// DropNotReady: no route has the destination, and one may yet: the other nodes are not known yet.
	DropNotReady
	// DropNoService: the destination lies in a range of Services, and no Service has it; or a peer sent to a Service's address,
	// which its own node should have translated.
	DropNoService
	// DropServicePort: the Service at the destination has no such port; the source is refused.
	DropServicePort
	// DropNoBackend: no endpoint of the Service is usable; the source is refused.
	DropNoBackend
	// DropNoLocalBackend: endpoints of the Service are usable, but its traffic policy is Local and none is on this node.
	DropNoLocalBackend
	// DropGuarded: a pod sent to the outside what would come from the node there, to where only the node may: the tunnel's port,
	// or an address of the node itself.
	DropGuarded
	// DropProtocol: a protocol that none of the node's sockets carries to the outside.
	DropProtocol
	// DropUninvited: a packet from outside that is of no flow and goes to no frontend.
	DropUninvited
	// DropTransit: a peer sent a packet that would leave through the tunnel again.
	DropTransit
	// DropTranslate: addresses that would have to be translated, and cannot be: every port is taken, or the protocol forbids it.
	DropTranslate
	// DropTooBig: larger than what the next hop takes, and not to be segmented.
	DropTooBig
	// DropDevice: the pod's device did not take the packet (down, gone, or its memory is exhausted).
	DropDevice
	// DropSend: the tunnel's socket did not take the datagram.
	DropSend

	numDropReasons
)

var dropNames = [numDropReasons]string{
	Kept:                "kept",
	DropMalformed:       "malformed",
	DropOffload:         "offload",
	DropNotVXLAN:        "not-vxlan",
	DropVNI:             "vni",
	DropUnknownPeer:     "unknown-peer",
	DropVTEP:            "vtep",
	DropHello:           "hello",
	DropPeerSource:      "peer-source",
	DropECN:             "ecn",
	DropSource:          "source",
	DropScope:           "scope",
	DropSourceRoute:     "source-route",
	DropChecksum:        "checksum",
	DropFragment:        "fragment",
	DropFragmentFull:    "fragments-full",
	DropFragmentTimeout: "fragment-timeout",
	DropTTL:             "ttl",
	DropNoRoute:         "no-route",
	DropNoPod:           "no-pod",
	DropNotReady:        "not-ready",
	DropNoService:       "no-service",
	DropServicePort:     "service-port",
	DropNoBackend:       "no-backend",
	DropNoLocalBackend:  "no-local-backend",
	DropGuarded:         "guarded",
	DropProtocol:        "protocol",
	DropUninvited:       "uninvited",
	DropTransit:         "transit",
	DropTranslate:       "translate",
	DropTooBig:          "too-big",
	DropDevice:          "device",
	DropSend:            "send",
}

// String returns the stable name under which the reason is counted and logged.
func (r DropReason) String() string {
	if r < numDropReasons {
		return dropNames[r]
	}
	return "unknown"
}

var dropSentences = [numDropReasons]string{
	Kept:                "it was not dropped",
	DropMalformed:       "a header is cut off, contradicts itself, or holds an address that may not be on a wire",
	DropOffload:         "the device's own description of the packet contradicts the packet",
	DropNotVXLAN:        "the datagram on the tunnel's port holds no valid VXLAN header and frame",
	DropVNI:             "the datagram is for another virtual network",
	DropUnknownPeer:     "the datagram's sender is no peer",
	DropVTEP:            "the inner frame is for another VTEP",
	DropHello:           "the message about the way between two nodes is none, or came too fast",
	DropPeerSource:      "the inner source lies outside the sender's range",
	DropECN:             "the tunnel met congestion, and the packet's sender does not know of ECN",
	DropSource:          "the pod has no such address and may not send from it",
	DropScope:           "multicast, broadcast, link-local and unspecified addresses are not routed",
	DropSourceRoute:     "an IPv4 option chooses the way past the node's decisions",
	DropChecksum:        "the checksum is wrong",
	DropFragment:        "the fragment hides or overlaps its packet's transport header",
	DropFragmentFull:    "the fragment came before its packet's first one, when as many as may wait did so",
	DropFragmentTimeout: "the fragment's packet's first one did not come in time",
	DropTTL:             "the time to live is used up",
	DropNoRoute:         "no pod, peer, node or Service has the destination",
	DropNoPod:           "the destination lies in this node's range, and no pod has it",
	DropNotReady:        "no route has the destination, and the other nodes are not known yet",
	DropNoService:       "the destination lies in a range of Services, and no Service has it for this sender",
	DropServicePort:     "the Service at the destination has no such port",
	DropNoBackend:       "no endpoint of the Service is usable",
	DropNoLocalBackend:  "the Service's traffic policy is Local, and no usable endpoint is on this node",
	DropGuarded:         "only the node itself may send there: its tunnel's port, or an address of its own",
	DropProtocol:        "no socket of the node carries this protocol to the outside",
	DropUninvited:       "it comes from outside, is of no flow, and no Service has its destination",
	DropTransit:         "a node does not relay from one peer to another",
	DropTranslate:       "the addresses would have to be translated, and cannot be",
	DropTooBig:          "it is larger than what the next hop takes, and may not be cut",
	DropDevice:          "the device did not take it",
	DropSend:            "the tunnel's socket did not take it",
}

// Sentence says for people why the packet was dropped.
func (r DropReason) Sentence() string {
	if r < numDropReasons {
		return dropSentences[r]
	}
	return "unknown"
}

// DropNames returns the names of all reasons.
func DropNames() []string { return slices.Clone(dropNames[DropMalformed:]) }

// Drops counts dropped packets by reason. One goroutine writes, any may read.
type Drops [numDropReasons]atomic.Uint64

// Add counts n packets dropped for reason r.
func (d *Drops) Add(r DropReason, n int) { d[r].Store(d[r].Load() + uint64(n)) }

// AddTo adds every counter that is not zero to sum, under its reason's name.
func (d *Drops) AddTo(sum map[string]uint64) {
	for r := DropMalformed; r < numDropReasons; r++ {
		if n := d[r].Load(); n > 0 {
			sum[r.String()] += n
		}
	}
}
