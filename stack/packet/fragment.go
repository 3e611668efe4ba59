package packet

import (
	"encoding/binary"
	"math/bits"
)

// Bits of the IPv4 field of flags and offset, which counts in units of eight bytes (RFC 791, section 3.1).
const (
	dontFragment  = 0x4000
	moreFragments = 0x2000
	offsetMask    = 0x1fff
)

// setFragment4 reads whether an IPv4 packet is a fragment: further ones follow, or it has an offset.
func (p *Parsed) setFragment4(b []byte, head int) bool {
	field := binary.BigEndian.Uint16(b[6:])
	if field&(moreFragments|offsetMask) == 0 {
		return false
	}
	p.Fragment, p.MoreFragments, p.FragmentOffset = true, field&moreFragments != 0, field<<3
	p.FragmentID, p.Piece = uint32(binary.BigEndian.Uint16(b[4:])), head
	return true
}

// parseFragment checks what a fragment says about itself, and reads the ports of a first one. Preconditions: p.Piece and the
// fields of a fragment are set.
func parseFragment(b []byte, p *Parsed) DropReason {
	n := p.Len - p.Piece
	end, most := int(p.FragmentOffset)+n, MaxSize
	if p.Version == 4 {
		most -= p.Piece
	}
	if end > most || p.MoreFragments && n%8 != 0 || n == 0 && !p.Atomic() {
		return DropMalformed
	}
	if p.FragmentOffset == 0 {
		return parseTransport(b, p)
	}
	if p.Proto == TCP && p.FragmentOffset < tcpMinLen {
		return DropFragment // it would overwrite the flags (RFC 3128)
	}
	return Kept
}

// Atomic reports whether the packet is whole though it has a fragment header: it is judged by itself, whatever fragments
// have the same ID (RFC 6946).
func (p *Parsed) Atomic() bool { return p.Fragment && p.FragmentOffset == 0 && !p.MoreFragments }

// TransportEnd returns the first offset at which a later fragment may start without touching the transport header of p,
// which is a first fragment, in bytes.
func (p *Parsed) TransportEnd() uint16 { return uint16(p.L4 - p.Piece + transportLen(p.Proto)) }

// Follow makes the fragment p one of the flow that its packet's first fragment had.
func (p *Parsed) Follow(f Flow, hasFlow bool) { p.Flow, p.Proto, p.HasFlow = f, f.Proto(), hasFlow }

// PacketID is what the fragments of one packet have in common and, for as long as its source takes care, no others: addresses,
// ID, and over IPv4 the protocol (RFC 791, section 2.3; RFC 8200, section 4.5). It is comparable.
type PacketID struct {
	src, dst [2]uint64
	id       uint64
}

// PacketID returns the name of the packet that the fragment p is a piece of.
func (p *Parsed) PacketID() PacketID {
	id := PacketID{src: p.Flow.src, dst: p.Flow.dst, id: uint64(p.FragmentID)}
	if p.Version == 4 {
		id.id |= uint64(p.Proto) << 32
	}
	return id
}

// HashSource returns well-mixed bits of the packet's source, the same as Flow's.
func (id *PacketID) HashSource(seed uint64) uint64 {
	f := Flow{src: id.src}
	return f.HashSource(seed)
}

// SameSource reports whether two packets are of one source.
func (id *PacketID) SameSource(other *PacketID) bool { return id.src == other.src }

// Hash returns well-mixed bits of the whole, see Flow.Hash.
func (id *PacketID) Hash(seed uint64) uint64 {
	f := Flow{src: id.src, dst: id.dst, ports: bits.RotateLeft64(id.id, 24)}
	return f.Hash(seed)
}

// MayFragment reports whether packet b may be cut into fragments on its way: only an IPv4 packet, if its sender allows it.
func MayFragment(b []byte, p *Parsed) bool {
	return p.Version == 4 && binary.BigEndian.Uint16(b[6:])&dontFragment == 0
}

// MaxFragmentHeader is the most bytes that the header of an IPv4 fragment takes.
const MaxFragmentHeader = 60

// Fragments walks the fragments of an IPv4 packet for a way that takes mtu bytes (RFC 791, section 3.2). Each has a header of
// its own, written by Next, and shares the packet's bytes: nothing is copied but headers.
type Fragments struct {
	head    []byte // of the first
	later   [MaxFragmentHeader]byte
	length  int // of later
	payload []byte
	mtu     int
	field   uint16 // flags and offset of the next, as the packet itself has them
	more    bool   // further fragments follow the packet, which is a fragment itself
	first   bool
}

// Fragment prepares the walk over packet b, which may be a fragment. It fails if the packet must not be cut, or if mtu holds
// no more than its header. Precondition: no checksum is unfinished.
func Fragment(b []byte, p *Parsed, mtu int) (f Fragments, ok bool) {
	head := int(b[0]&0xf) * 4
	if !MayFragment(b, p) || mtu < head+8 {
		return f, false
	}
	field := binary.BigEndian.Uint16(b[6:])
	f = Fragments{
		head: b[:head], payload: b[head:p.Len], mtu: mtu,
		field: field &^ moreFragments, more: field&moreFragments != 0, first: true,
	}
	f.length = ipv4MinLen + copyOptions(f.later[ipv4MinLen:], b[ipv4MinLen:head])
	copy(f.later[:], b[:ipv4MinLen])
	f.later[0] = 4<<4 | byte(f.length/4)
	return f, true
}

// copyOptions writes those of the options that every fragment carries (their type's first bit says so), padded to a multiple
// of four bytes, and returns their length.
func copyOptions(dst, options []byte) (n int) {
	for len(options) > 0 {
		size := optionLen(options)
		if size == 0 {
			break
		}
		if options[0]&optionCopied != 0 {
			n += copy(dst[n:], options[:size])
		}
		options = options[size:]
	}
	for ; n%4 != 0; n++ {
		dst[n] = optionEnd
	}
	return n
}

// Left reports whether Next will return a fragment.
func (f *Fragments) Left() bool { return f.first || len(f.payload) > 0 }

// Next writes the header of the next fragment into dst, which has at least MaxFragmentHeader bytes, and returns its length
// and the fragment's bytes, a part of the packet. Precondition: Left.
func (f *Fragments) Next(dst []byte) (head int, payload []byte) {
	h := f.later[:f.length]
	if f.first {
		h = f.head
	}
	n := len(f.payload)
	if len(h)+n > f.mtu {
		n = (f.mtu - len(h)) &^ 7
	}
	payload, f.payload = f.payload[:n], f.payload[n:]
	field := f.field
	if f.more || len(f.payload) > 0 {
		field |= moreFragments
	}
	head = copy(dst, h)
	binary.BigEndian.PutUint16(dst[2:], uint16(head+n))
	binary.BigEndian.PutUint16(dst[6:], field)
	binary.BigEndian.PutUint16(dst[10:], 0)
	binary.BigEndian.PutUint16(dst[10:], ^Checksum(dst[:head], 0))
	f.field += uint16(n / 8)
	f.first = false
	return head, payload
}
