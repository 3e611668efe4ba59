package proxy

import (
	"encoding/binary"
	"math/rand/v2"
	"sync/atomic"

	"github.com/middleway-net/middleway/stack/icmp"
	"github.com/middleway-net/middleway/stack/packet"
)

// Lengths of headers in bytes.
const (
	udpHeader      = 8
	icmpHeader     = 8
	ipv4Header     = 20
	ipv6Header     = 40
	fragmentHeader = 8
)

// maxHeaders is the most that the headers of a packet take that is made here.
const maxHeaders = packet.MaxHeader + fragmentHeader + udpHeader

// lastID numbers packets that may be cut. It begins anywhere: those of a former daemon may be on their way.
var lastID = func() *atomic.Uint32 {
	n := new(atomic.Uint32)
	n.Store(rand.Uint32())
	return n
}()

// bundle makes packets of the outside from what sockets received.
type bundle struct {
	inject Inject
	mtu    int // of the pods, in bytes
}

// ipHeader returns the IP header's length.
func ipHeader(is4 bool) int {
	if is4 {
		return ipv4Header
	}
	return ipv6Header
}

// datagrams sends data as UDP packets of flow f: a train, where segment says of what size its datagrams are, else one.
func (u bundle) datagrams(f *packet.Flow, data []byte, segment int, ttl, tos uint8) {
	head := ipHeader(f.Is4()) + udpHeader
	if segment == 0 {
		u.datagram(f, data, ttl, tos)
		return
	}
	if head+len(data) > packet.MaxSize || !f.Is4() && head+segment > u.mtu {
		for len(data) > 0 {
			n := min(segment, len(data))
			u.datagram(f, data[:n], ttl, tos)
			data = data[n:]
		}
		return
	}
	u.udp(f, data, segment, ttl, tos)
}

// datagram sends data as one UDP packet. Over IPv6 it is cut here if it is larger than a pod takes: routers on its way may not.
func (u bundle) datagram(f *packet.Flow, data []byte, ttl, tos uint8) {
	if f.Is4() || ipv6Header+udpHeader+len(data) <= u.mtu {
		u.udp(f, data, 0, ttl, tos)
		return
	}
	var l4 [udpHeader]byte
	putUDP(l4[:], f, len(data))
	sum := packet.Checksum(data, packet.Checksum(l4[:], pseudoSum(f, packet.UDP, udpHeader+len(data))))
	binary.BigEndian.PutUint16(l4[6:], notZero(^sum))
	u.cut(f, packet.UDP, l4[:], data, ttl, tos)
}

// udp sends a packet whose checksum is left unfinished.
func (u bundle) udp(f *packet.Flow, data []byte, segment int, ttl, tos uint8) {
	var b [maxHeaders]byte
	h := header(f, packet.UDP, ttl, tos)
	at := h.Put(b[:], udpHeader+len(data))
	putUDP(b[at:], f, len(data))
	p := packet.Parsed{Version: b[0] >> 4, Proto: packet.UDP, L4: at, Payload: at + udpHeader, Len: at + udpHeader + len(data)}
	binary.BigEndian.PutUint16(b[at+6:], packet.PseudoSum(b[:], &p, udpHeader+len(data)))
	o := packet.PartialOffload(&p)
	if segment > 0 {
		o = o.Segmented(&p, segment)
	}
	u.inject(o, b[:at+udpHeader], data)
}

func putUDP(b []byte, f *packet.Flow, n int) {
	binary.BigEndian.PutUint16(b, f.SrcPort())
	binary.BigEndian.PutUint16(b[2:], f.DstPort())
	binary.BigEndian.PutUint16(b[4:], uint16(udpHeader+n))
	binary.BigEndian.PutUint16(b[6:], 0)
}

// notZero is what a UDP checksum that came out as zero has to be: zero would say that there is none (RFC 768).
func notZero(sum uint16) uint16 {
	if sum == 0 {
		return 0xffff
	}
	return sum
}

// header is that of a packet which may be cut on its way to the pod: whether its sender allowed that nobody knows any more.
func header(f *packet.Flow, proto packet.Proto, ttl, tos uint8) packet.Header {
	return packet.Header{
		Src: f.Src(), Dst: f.Dst(), Proto: proto, TTL: max(ttl, 2), TOS: tos,
		MayFragment: true, ID: uint16(lastID.Add(1)),
	}
}

// pseudoSum returns the sum of the pseudo-header of n bytes of a protocol between the ends of a flow.
func pseudoSum(f *packet.Flow, proto packet.Proto, n int) uint16 {
	var b [packet.MaxHeader]byte
	h := packet.Header{Src: f.Src(), Dst: f.Dst(), Proto: proto}
	h.Put(b[:], 0)
	return packet.PseudoSum(b[:], &packet.Parsed{Version: b[0] >> 4, Proto: proto}, n)
}

// echo sends ICMP message, of an echo, whose identifier becomes the flow's. The message is changed.
func (u bundle) echo(f *packet.Flow, message []byte, ttl, tos uint8) {
	proto := f.Proto()
	binary.BigEndian.PutUint16(message[4:], f.DstPort())
	sumICMP(f, proto, message)
	if !f.Is4() && ipv6Header+len(message) > u.mtu {
		u.cut(f, proto, nil, message, ttl, tos)
		return
	}
	var b [maxHeaders]byte
	h := header(f, proto, ttl, tos)
	at := h.Put(b[:], len(message))
	u.inject(packet.Offload{}, b[:at], message)
}

// sumICMP writes the checksum of an ICMP message.
func sumICMP(f *packet.Flow, proto packet.Proto, message []byte) {
	var sum uint16
	if proto == packet.ICMPv6 {
		sum = pseudoSum(f, proto, len(message))
	}
	message[2], message[3] = 0, 0
	binary.BigEndian.PutUint16(message[2:], ^packet.Checksum(message, sum))
}

// cut sends an IPv6 packet in fragments (RFC 8200, section 4.5). The transport header, which all of the first fragment begins
// with, and data are complete.
func (u bundle) cut(f *packet.Flow, proto packet.Proto, l4, data []byte, ttl, tos uint8) {
	room := (u.mtu - ipv6Header - fragmentHeader) &^ 7
	id, total := lastID.Add(1), len(l4)+len(data)
	for offset := 0; offset < total; {
		var b [maxHeaders]byte
		n := min(room, total-offset)
		h := header(f, packet.FragmentHdr, ttl, tos)
		at := h.Put(b[:], fragmentHeader+n)
		field := uint16(offset)
		if offset+n < total {
			field |= 1
		}
		b[at] = byte(proto)
		binary.BigEndian.PutUint16(b[at+2:], field)
		binary.BigEndian.PutUint32(b[at+4:], id)
		at += fragmentHeader
		at += copy(b[at:], l4)
		u.inject(packet.Offload{}, b[:at], data[:n-len(l4)])
		data, l4 = data[n-len(l4):], nil
		offset += n
	}
}

// refuse tells the sender of a packet an error of this node's.
func (e *egress) refuse(q *queued, err icmp.Error) {
	is4 := q.h.Version == 4
	from := e.p.config.Netstack.Gateway(is4)
	if !from.IsValid() || !icmp.MayAnswer(q.b, &q.h, err.Kind) || !e.errors.Allow(e.clock()) {
		return
	}
	b := q.b
	if q.o.GSO != packet.GSONone {
		if s, ok := packet.Split(b, &q.h, q.o, false); ok {
			head := make([]byte, s.HeaderLen())
			payload, _ := s.Next(head)
			b = append(head, payload...)
		}
	} else {
		packet.FinishChecksum(b, &q.o)
	}
	out := make([]byte, icmp.MaxLen)
	e.count.told.Add(1)
	e.p.inject(packet.Offload{}, out[:err.Build(out, from, &q.h, b, nil)])
}
