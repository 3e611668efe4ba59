package stack

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/middleway-net/middleway/stack/fib"
	"github.com/middleway-net/middleway/stack/packet"
)

// SetHostAddrs says which addresses the host has beside those of its attachment: packets to them go to it, and it may send
// from them. An address that a pod or the node's netstack has stays theirs.
func (s *Stack) SetHostAddrs(addrs []netip.Addr) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Equal(addrs, s.hostAddrs) {
		return nil // new tables would have every flow judged again
	}
	old := s.hostAddrs
	s.hostAddrs = slices.Clone(addrs)
	if err := s.publish(s.tables.Load().attachments); err != nil {
		s.hostAddrs = old
		return fmt.Errorf("set the host's addresses: %w", err)
	}
	return nil
}

// hostSource is the source check of the host's attachment: its own addresses, which may change at any time, or a peer's. A
// peer whose route leads to this node directly sends plain packets, which the host's kernel forwards to its attachment;
// they must not leave through the tunnel again.
func (f *forwarder) hostSource(att *attachment, fl *packet.Flow) (origin, packet.DropReason) {
	if att.owns(fl) {
		return originHost, packet.Kept
	}
	switch d := f.tables.fib.Lookup(fl.Src()); {
	case d.Kind == fib.Attachment && d.Attachment == att.id:
		return originHost, packet.Kept
	case d.Kind == fib.Peer:
		return originPeer, packet.Kept
	}
	return originHost, packet.DropSource
}

// portTries bounds the search for a port under which a flow can leave.
const portTries = 64

// Ports that translation chooses from: not the well-known ones, which some servers take for privileged (RFC 6056, section
// 3.2). Identifiers of ICMP echoes come from the same range.
const (
	firstPort = 1024
	lastPort  = 65535
)

// addrOf returns the attachment's address of a flow's family.
func (a *attachment) addrOf(fl *packet.Flow) (packet.AddrKey, bool) {
	for i, addr := range a.addrs {
		if addr.Is4() == fl.Is4() {
			return a.keys[i], true
		}
	}
	return packet.AddrKey{}, false
}

// related translates an ICMP error about a flow that is translated, so that its receiver finds in it the packet that it
// sent. Errors about other flows, and other packets, stay as they are. It notes which flow that is.
func (f *forwarder) related(b []byte, p *packet.Parsed, o *packet.Offload) packet.DropReason {
	if p.HasFlow {
		return packet.Kept
	}
	f.about = nil
	var q packet.Quote
	if !packet.ParseQuote(b, p, &q) {
		return packet.Kept
	}
	// Who sends the error received the quoted packet, which so travelled the other way.
	c, ok := f.flows.Peek(q.Flow.Reverse())
	if !ok {
		return packet.Kept
	}
	f.quoted = c
	f.about = &f.quoted
	if !c.Translates() {
		return packet.Kept
	}
	if o.NeedsChecksum {
		return packet.DropOffload // no kernel leaves the checksum of an error open
	}
	to := c.Translated.Reverse()
	return packet.TranslateQuote(b, p, &q, &to)
}
