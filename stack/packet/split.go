package packet

import "encoding/binary"

// MaxSegmentHeader is the most bytes that the headers of one segment take: IPv4 with options, or IPv6 with as many
// extension headers as fit, and TCP with options. Super-packets with longer headers are not split.
const MaxSegmentHeader = 160

// Segments walks the packets that a super-packet stands for. Each has headers of its own, written by Next, and shares the
// super-packet's payload: nothing is copied but headers.
type Segments struct {
	head, payload []byte
	ip4, tcp      bool
	l4            int
	size          int
	id            uint16
	seq           uint32
	flags         byte
	ipSum         uint16 // IPv4 header without length, ID and checksum
	l4Sum         uint16 // pseudo-header and transport header without length, sequence number, flags and checksum
	partial       bool
	first         bool
}

// Split prepares the walk over super-packet b. With partial, each segment's checksum field is left with the sum of its
// pseudo-header, for a receiver that trusts the sender's outer checksum (remote checksum offload); else it is complete.
// Precondition: o.Check kept b, and o.GSO is not GSONone. It fails if the headers are longer than MaxSegmentHeader.
func Split(b []byte, p *Parsed, o Offload, partial bool) (s Segments, ok bool) {
	if p.Payload > MaxSegmentHeader {
		return s, false
	}
	s = Segments{
		head: b[:p.Payload], payload: b[p.Payload:p.Len],
		ip4: p.Version == 4, tcp: p.Proto == TCP,
		l4: p.L4, size: int(o.Size), partial: partial, first: true,
	}
	l4 := s.head[s.l4:]
	s.l4Sum = PseudoSum(b, p, 0)
	if s.tcp {
		s.seq = binary.BigEndian.Uint32(l4[4:])
		s.flags = l4[13]
		if !partial {
			s.l4Sum = Checksum(l4[0:4], s.l4Sum)   // ports
			s.l4Sum = Checksum(l4[8:12], s.l4Sum)  // acknowledgment
			s.l4Sum = Checksum(l4[14:16], s.l4Sum) // window
			s.l4Sum = Checksum(l4[18:], s.l4Sum)   // urgent pointer, options
			s.l4Sum = addSum(s.l4Sum, uint16(l4[12])<<8)
		}
	} else if !partial {
		s.l4Sum = Checksum(l4[0:4], s.l4Sum)
	}
	if s.ip4 {
		s.id = binary.BigEndian.Uint16(b[4:])
		sum := Checksum(b[0:2], 0)
		sum = Checksum(b[6:10], sum)
		s.ipSum = Checksum(b[12:s.l4], sum)
	}
	return s, true
}

// Left reports whether Next will return a segment.
func (s *Segments) Left() bool { return s.first || len(s.payload) > 0 }

// HeaderLen returns the length of each segment's headers in bytes.
func (s *Segments) HeaderLen() int { return len(s.head) }

// Size returns the payload of a full segment in bytes.
func (s *Segments) Size() int { return s.size }

// NextLen returns the length of the segment that Next will return, headers included, in bytes.
func (s *Segments) NextLen() int { return len(s.head) + min(s.size, len(s.payload)) }

// Next writes the headers of the next segment into dst, which has at least HeaderLen bytes, and returns its payload, a
// part of the super-packet. ok is false when there is none left. The rules are the kernel's (inet_gso_segment,
// tcp_gso_segment): IDs count up, FIN and PSH stand only in the last segment, CWR only in the first.
func (s *Segments) Next(dst []byte) (payload []byte, ok bool) {
	if !s.Left() {
		return nil, false
	}
	n := min(s.size, len(s.payload))
	payload = s.payload[:n]
	s.payload = s.payload[n:]
	last := len(s.payload) == 0
	copy(dst, s.head)
	s.ip(dst, n)
	if s.tcp {
		s.tcpHeader(dst[s.l4:len(s.head)], payload, last)
	} else {
		s.udpHeader(dst[s.l4:len(s.head)], payload)
	}
	s.first = false
	return payload, true
}

func (s *Segments) ip(dst []byte, n int) {
	total := len(s.head) + n
	if !s.ip4 {
		binary.BigEndian.PutUint16(dst[4:], uint16(total-ipv6Len))
		return
	}
	binary.BigEndian.PutUint16(dst[2:], uint16(total))
	binary.BigEndian.PutUint16(dst[4:], s.id)
	binary.BigEndian.PutUint16(dst[10:], ^addSum(addSum(s.ipSum, uint16(total)), s.id))
	s.id++
}

func (s *Segments) tcpHeader(l4, payload []byte, last bool) {
	flags := s.flags
	if !last {
		flags &^= FIN | PSH
	}
	if !s.first {
		flags &^= CWR
	}
	binary.BigEndian.PutUint32(l4[4:], s.seq)
	l4[13] = flags
	sum := addSum(s.l4Sum, uint16(len(l4)+len(payload)))
	if !s.partial {
		sum = addSum(sum, uint16(s.seq>>16))
		sum = addSum(sum, uint16(s.seq))
		sum = addSum(sum, uint16(flags))
		sum = ^Checksum(payload, sum)
	}
	binary.BigEndian.PutUint16(l4[16:], sum)
	s.seq += uint32(len(payload))
}

func (s *Segments) udpHeader(l4, payload []byte) {
	n := uint16(udpLen + len(payload))
	binary.BigEndian.PutUint16(l4[4:], n)
	sum := addSum(s.l4Sum, n)
	if !s.partial {
		sum = addSum(sum, n) // the length stands in the pseudo-header and in the header
		if sum = ^Checksum(payload, sum); sum == 0 {
			sum = 0xffff
		}
	}
	binary.BigEndian.PutUint16(l4[6:], sum)
}
