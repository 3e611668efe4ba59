package node

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"github.com/middleway-net/middleway/stack"
	"github.com/middleway-net/middleway/stack/packet"
)

// TraceRequest describes a packet that a daemon is to trace: one of an attachment, or one that has come from a peer.
type TraceRequest struct {
	// From is the attachment that sends, for example "default/web-0", or "mw0" for the host; without it Src lies behind a peer.
	From string `json:"from,omitempty"`
	// Src is the source; without it the first address of From of the destination's family.
	Src netip.Addr `json:"src,omitzero"`
	// Dst is the destination; without it Names lead to one.
	Dst netip.Addr `json:"dst,omitzero"`
	// Names are asked of the cluster's DNS one after another, as From would do it, until one has an address. Each ends with a dot.
	Names []string `json:"names,omitempty"`
	// IPv6 takes names' IPv6 addresses only; else those of IPv4, or of IPv6 where there are none.
	IPv6    bool   `json:"ipv6,omitempty"`
	Proto   uint8  `json:"proto"` // IP protocol number; of a ping 1, whatever the family
	SrcPort uint16 `json:"srcPort,omitempty"`
	DstPort uint16 `json:"dstPort,omitempty"`
	TTL     uint8  `json:"ttl,omitempty"` // default 64
}

// TraceHop is what a node does with a packet.
type TraceHop struct {
	Node string `json:"node"`
	// Names are what was asked to find the destination.
	Names []NameLookup `json:"names,omitempty"`
	// Trace is nil where no name has an address.
	*stack.Trace
	// Peer is where the packet goes on, and PeerName its node's name.
	Peer     netip.Addr `json:"peer,omitzero"`
	PeerName string     `json:"peerName,omitempty"`
	// TTL is the time to live with which the packet came out.
	TTL uint8 `json:"ttl,omitempty"`
}

// serveTrace traces what the body describes.
func (n *Node) serveTrace(w http.ResponseWriter, r *http.Request) {
	var req TraceRequest
	if !n.readQuestion(w, r, &req) {
		return
	}
	defer n.status.questions.end()
	hop, err := n.trace(r.Context(), req)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	_ = json.NewEncoder(w).Encode(hop) // a client that has gone needs it no more
}

func (n *Node) trace(ctx context.Context, req TraceRequest) (TraceHop, error) {
	hop := TraceHop{Node: n.config.Name}
	if !req.Dst.IsValid() {
		if len(req.Names) == 0 {
			return hop, errors.New("trace: a destination or its name is needed")
		}
		client, err := n.clientOf(req)
		if err != nil {
			return hop, err
		}
		if hop.Names, req.Dst, err = exchange(n.askDNS).lookUp(ctx, client, req.Names, req.IPv6); err != nil || !req.Dst.IsValid() {
			return hop, err
		}
	}
	proto := packet.Proto(req.Proto)
	if proto == packet.ICMP && !req.Dst.Is4() {
		proto = packet.ICMPv6
	}
	t, err := n.stack.Trace(stack.Probe{
		From: req.From, Src: req.Src, Dst: req.Dst, Proto: proto, SrcPort: req.SrcPort, DstPort: req.DstPort, TTL: req.TTL,
	})
	if err != nil {
		return hop, err
	}
	hop.Trace = &t
	hop.goesOn(n.peerNames())
	return hop, nil
}

// clientOf returns the address from which names are asked.
func (n *Node) clientOf(req TraceRequest) (netip.Addr, error) {
	if req.Src.IsValid() {
		return req.Src, nil
	}
	for _, a := range n.stack.Attached() {
		if a.Name == req.From && len(a.Addrs) > 0 {
			return a.Addrs[0], nil
		}
	}
	return netip.Addr{}, fmt.Errorf("trace: no pod %q is attached to this node", req.From)
}

// goesOn notes where the packet is sent on to.
func (h *TraceHop) goesOn(names map[netip.Addr]string) {
	to, isPeer := strings.CutPrefix(h.To, "peer ")
	peer, err := netip.ParseAddr(to)
	if !isPeer || err != nil {
		return
	}
	h.Peer, h.PeerName = peer, names[peer]
	var p packet.Parsed
	if len(h.Out) > 0 && packet.Parse(h.Out[0], &p) == packet.Kept {
		h.TTL = p.TTL
	}
}

// NextRequest describes the packet as it comes to the peer where it goes on. ok is false where it does not go on.
func (h *TraceHop) NextRequest() (req TraceRequest, ok bool) {
	if !h.Peer.IsValid() || h.Trace == nil || h.LeavesAs == nil {
		return req, false
	}
	proto := cmp.Or(protocolNumbers[h.LeavesAs.Protocol], 0)
	return TraceRequest{
		Src: h.LeavesAs.Src.Addr(), Dst: h.LeavesAs.Dst.Addr(), SrcPort: h.LeavesAs.Src.Port(), DstPort: h.LeavesAs.Dst.Port(), Proto: proto, TTL: h.TTL,
	}, proto != 0
}

// protocolNumbers are those of the protocols that can be traced.
var protocolNumbers = map[string]uint8{
	packet.TCP.String(): uint8(packet.TCP), packet.UDP.String(): uint8(packet.UDP), packet.SCTP.String(): uint8(packet.SCTP),
	packet.ICMP.String(): uint8(packet.ICMP), packet.ICMPv6.String(): uint8(packet.ICMP),
}

// peerNames returns the peers' names, by address.
func (n *Node) peerNames() map[netip.Addr]string {
	names := map[netip.Addr]string{}
	for _, p := range n.peers() {
		names[p.Address] = p.Name
	}
	return names
}
