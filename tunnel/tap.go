package tunnel

import (
	"encoding/binary"
	"net/netip"

	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/tap"
	"github.com/middleway-net/middleway/tunnel/vxlan"
)

// laneBits is how many bits of a datagram's number, by which taps know it, count the datagrams of a lane; the others are the
// lane's.
const laneBits = 48

// seen is what a port needs where somebody looks on.
type seen struct {
	outer  [ipv6Len + udpLen]byte
	header vxlan.Header
	parsed packet.Parsed
}

const (
	ipv4Len = 20
	udpLen  = 8
)

// Tap lets taps see what is received and sent from now on; nil ends that. It is called between two batches.
func (p *Port) Tap(ws tap.Writers) { p.taps = ws }

// noteReceived notes a datagram before it is opened.
func (p *Port) noteReceived(data []byte, from netip.AddrPort) {
	s := &p.seen
	s.parsed = packet.Parsed{}
	readable := vxlan.Decode(data, &s.header) == nil
	message := readable && s.header.Type == vxlan.EtherTypeLocal
	if readable && !message {
		_ = packet.Parse(data[vxlan.Overhead:], &s.parsed) // open says why it is dropped
	}
	head := s.encodeOuter(from, p.conn.Local(), p.outer, len(data))
	p.taps.Enter(tap.Place{Layer: tap.Tunnel, Peer: from.Addr()}, tap.Packet{P: &s.parsed, Head: head, Body: data, Message: message})
}

// noteSent notes a datagram of two parts, with a packet or a segment of one whose headers are parsed.
func (p *Port) noteSent(l *lane, to *peer, ecn packet.ECN, parsed *packet.Parsed, head, payload []byte) {
	var more [1][]byte
	more[0] = payload
	outer := p.seen.encodeOuter(l.conn.Local(), netip.AddrPortFrom(to.Addr, p.t.config.Port), ecn, len(head)+len(payload))
	p.taps.Leave(tap.Place{Layer: tap.Tunnel, Peer: to.Addr}, tap.Packet{P: parsed, Head: outer, Body: head, More: more[:]}, l.seen)
	l.seen++
}

// Of an outer IP header a socket tells neither the time to live nor the ID: these stand in their place.
const (
	outerTTL = 64
	outerID  = 0
)

// encodeOuter returns the IP and UDP headers of a datagram of n bytes, which the kernel makes and takes off: those fields that
// sockets know are as they were, and the UDP checksum is left out.
func (s *seen) encodeOuter(from, to netip.AddrPort, ecn packet.ECN, n int) []byte {
	head := s.outer[:]
	clear(head)
	if src := from.Addr(); src.Is4() {
		head = head[:ipv4Len+udpLen]
		a, b := src.As4(), to.Addr().As4()
		head[0], head[1] = 0x45, byte(ecn)
		binary.BigEndian.PutUint16(head[2:], uint16(len(head)+n))
		binary.BigEndian.PutUint16(head[4:], outerID)
		head[6] = 0x40 // must not be fragmented
		head[8], head[9] = outerTTL, byte(packet.UDP)
		copy(head[12:], a[:])
		copy(head[16:], b[:])
		binary.BigEndian.PutUint16(head[10:], ^packet.Checksum(head[:ipv4Len], 0))
	} else {
		a, b := src.As16(), to.Addr().As16()
		head[0], head[1] = 0x60, byte(ecn)<<4
		binary.BigEndian.PutUint16(head[4:], uint16(udpLen+n))
		head[6], head[7] = byte(packet.UDP), outerTTL
		copy(head[8:], a[:])
		copy(head[24:], b[:])
	}
	udp := head[len(head)-udpLen:]
	binary.BigEndian.PutUint16(udp, from.Port())
	binary.BigEndian.PutUint16(udp[2:], to.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(udpLen+n))
	return head
}
