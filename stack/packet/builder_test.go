package packet

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
)

// spec says what a packet is made of. build makes its bytes the slow and obvious way; what a row leaves out is filled in:
// addresses of the plan, lengths, checksums.
type spec struct {
	src, dst     string // default 10.244.1.2, 10.244.2.3, or their IPv6 relatives
	v6           bool
	proto        Proto
	tos, ttl     byte // ttl default 64
	id           uint16
	frag         uint16 // IPv4: flags and offset, as they lie there
	label        uint32 // IPv6
	ipOptions    []byte // IPv4, a multiple of four bytes
	ext          []byte // IPv6: extension headers, the last one's next header is set to proto
	extFirst     Proto
	sport, dport uint16
	seq, ack     uint32
	flags        byte
	window       uint16
	urgent       uint16
	options      []byte // TCP, a multiple of four bytes
	payload      []byte
	most         int  // bytes behind the IP header; 0: all there are
	partial      bool // the transport checksum is the pseudo-header's sum
}

func (s spec) addrs() (src, dst []byte) {
	from, to := "10.244.1.2", "10.244.2.3"
	if s.v6 {
		from, to = "fd00:10:244:1::2", "fd00:10:244:2::3"
	}
	if s.src != "" {
		from = s.src
	}
	if s.dst != "" {
		to = s.dst
	}
	return netip.MustParseAddr(from).AsSlice(), netip.MustParseAddr(to).AsSlice()
}

func (s spec) build() []byte {
	l4 := s.transport()
	src, dst := s.addrs()
	if at, ok := map[Proto]int{TCP: 16, UDP: 6, ICMPv6: 2}[s.proto]; ok && len(l4) > at+1 && s.most == 0 {
		pseudo := append(append([]byte{}, src...), dst...)
		pseudo = append(pseudo, 0, byte(s.proto))
		pseudo = binary.BigEndian.AppendUint16(pseudo, uint16(len(l4)))
		sum := slowSum(pseudo, 0)
		if !s.partial {
			if sum = ^slowSum(l4, sum); sum == 0 && s.proto == UDP {
				sum = 0xffff
			}
		}
		binary.BigEndian.PutUint16(l4[at:], sum)
	} else if s.proto == ICMP {
		binary.BigEndian.PutUint16(l4[2:], ^slowSum(l4, 0))
	}
	return append(s.ip(src, dst, len(l4)), l4...)
}

func (s spec) ip(src, dst []byte, n int) []byte {
	ttl := s.ttl
	if ttl == 0 {
		ttl = 64
	}
	if s.v6 {
		b := binary.BigEndian.AppendUint32(nil, 6<<28|uint32(s.tos)<<20|s.label)
		b = binary.BigEndian.AppendUint16(b, uint16(len(s.ext)+n))
		next := s.proto
		if s.ext != nil {
			next = s.extFirst
		}
		b = append(b, byte(next), ttl)
		return append(append(append(b, src...), dst...), s.ext...)
	}
	head := 20 + len(s.ipOptions)
	b := []byte{4<<4 | byte(head/4), s.tos}
	b = binary.BigEndian.AppendUint16(b, uint16(head+n))
	b = binary.BigEndian.AppendUint16(b, s.id)
	b = binary.BigEndian.AppendUint16(b, s.frag)
	b = append(b, ttl, byte(s.proto), 0, 0)
	b = append(append(append(b, src...), dst...), s.ipOptions...)
	binary.BigEndian.PutUint16(b[10:], ^slowSum(b, 0))
	return b
}

// transport returns the transport header with a zero checksum, and the payload.
func (s spec) transport() []byte {
	b := s.segment()
	if s.most > 0 {
		b = b[:s.most]
	}
	return b
}

func (s spec) segment() []byte {
	var b []byte
	switch s.proto {
	case TCP:
		b = binary.BigEndian.AppendUint16(b, s.sport)
		b = binary.BigEndian.AppendUint16(b, s.dport)
		b = binary.BigEndian.AppendUint32(b, s.seq)
		b = binary.BigEndian.AppendUint32(b, s.ack)
		b = append(b, byte((20+len(s.options))/4)<<4, s.flags)
		b = binary.BigEndian.AppendUint16(b, s.window)
		b = append(b, 0, 0)
		b = binary.BigEndian.AppendUint16(b, s.urgent)
		b = append(b, s.options...)
	case UDP:
		b = binary.BigEndian.AppendUint16(b, s.sport)
		b = binary.BigEndian.AppendUint16(b, s.dport)
		b = binary.BigEndian.AppendUint16(b, uint16(8+len(s.payload)))
		b = append(b, 0, 0)
	}
	return append(b, s.payload...)
}

// slowSum is RFC 1071 by its words: one's complement addition of 16-bit words, one after the other.
func slowSum(b []byte, initial uint16) uint16 {
	sum := uint32(initial)
	for i := 0; i < len(b); i += 2 {
		word := uint32(b[i]) << 8
		if i+1 < len(b) {
			word |= uint32(b[i+1])
		}
		if sum += word; sum > 0xffff {
			sum -= 0xffff
		}
	}
	return uint16(sum)
}

// segments is the reference of Split: each segment is built anew from the description of the whole.
func (s spec) segments(size int) (segs [][]byte) {
	rest, first := s.payload, true
	for first || len(rest) > 0 {
		n := min(size, len(rest))
		one := s
		one.payload, rest = rest[:n], rest[n:]
		one.id += uint16(len(segs))
		one.seq += uint32(len(segs) * size)
		if len(rest) > 0 {
			one.flags &^= FIN | PSH
		}
		if !first {
			one.flags &^= CWR
		}
		segs = append(segs, one.build())
		first = false
	}
	return segs
}

// extension headers

// extension returns an IPv6 extension header of 8 + 8*units bytes, whose next header is next.
func extension(next Proto, units int) []byte {
	b := make([]byte, 8+8*units)
	b[0], b[1] = byte(next), byte(units)
	return b
}

// extensions returns count hop-by-hop and destination option headers before next.
func extensions(count int, next Proto) (b []byte) {
	for i := range count {
		to := DestOptions
		if i == count-1 {
			to = next
		}
		b = append(b, extension(to, i%2)...)
	}
	return b
}

func fragmentHeader(next Proto, offsetAndFlags uint16) []byte {
	return []byte{byte(next), 0, byte(offsetAndFlags >> 8), byte(offsetAndFlags), 0, 0, 0, 7}
}

// shorthand

func tcp4(n int) spec {
	return spec{proto: TCP, id: 100, frag: dontFragment, sport: 4000, dport: 80, seq: 1000, ack: 7, flags: ACK, window: 512, payload: bytesOf(n)}
}

func tcp6(n int) spec { s := tcp4(n); s.v6, s.frag = true, 0; return s }
func udp4(n int) spec {
	return spec{proto: UDP, id: 100, sport: 4000, dport: 53, payload: bytesOf(n)}
}
func udp6(n int) spec { s := udp4(n); s.v6 = true; return s }

func (s spec) with(edit func(*spec)) spec { edit(&s); return s }

// cut leaves n bytes behind the IP header, without a transport checksum.
func (s spec) cut(n int) spec { s.most = n; return s }

// bytesOf returns n bytes that are not all the same.
func bytesOf(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// random returns a TCP or UDP packet of either family with n bytes of payload, anything that may vary chosen by r.
func random(r *rand.Rand, n int) spec {
	s := spec{
		v6: r.IntN(2) == 0, proto: UDP, tos: byte(r.Uint32()), ttl: 2 + byte(r.IntN(253)), id: uint16(r.Uint32()),
		sport: uint16(r.Uint32()), dport: uint16(r.Uint32()), payload: randomBytes(r, n),
	}
	if r.IntN(3) > 0 {
		s.proto, s.seq, s.ack, s.window = TCP, r.Uint32(), r.Uint32(), uint16(r.Uint32())
		s.flags = ACK | byte(r.Uint32())&(PSH|FIN|ECE|CWR)
		s.options = randomBytes(r, r.IntN(11)*4)
	}
	if s.v6 {
		s.label = r.Uint32() & 0xfffff
	} else if r.IntN(2) == 0 {
		s.frag = dontFragment
	}
	return s
}

func parsed(t testing.TB, b []byte) *Parsed {
	t.Helper()
	p := new(Parsed)
	if reason := Parse(b, p); reason != Kept {
		t.Fatalf("Parse(% x…): got %v, want kept", b[:min(len(b), 60)], reason)
	}
	return p
}

// super returns the super-packet s, its offload for segments of size bytes, and its headers.
func (s spec) super(t testing.TB, size int) ([]byte, *Parsed, Offload) {
	t.Helper()
	s.partial = true
	b := s.build()
	p := parsed(t, b)
	o := PartialOffload(p).Segmented(p, size)
	if reason := o.Check(b, p); reason != Kept {
		t.Fatalf("Check: got %v, want kept", reason)
	}
	return b, p, o
}

// framed puts a packet behind room for the vnet header.
func framed(b []byte) []byte { return append(make([]byte, VnetLen), b...) }

// wire reads hex with spaces and comments in parentheses.
func wire(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
