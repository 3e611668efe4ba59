package packet

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
)

// Flow names one direction of a conversation: addresses, protocol and ports. IPv4 addresses are held as IPv4-mapped IPv6
// ones; a packet that carries a mapped address on the wire does not parse, so that the two families never meet. It is a
// comparable, pointer-free value of 40 bytes, cheaper as a key than two netip.AddrPort.
type Flow struct {
	src, dst [2]uint64
	ports    uint64 // source port << 32 | destination port << 16 | protocol
}

// NewFlow returns the flow of the given tuple. For ICMP echo both ports are the identifier, so that the reply is Reverse.
func NewFlow(proto Proto, src, dst netip.AddrPort) Flow {
	s, d := src.Addr().As16(), dst.Addr().As16()
	return Flow{
		src:   [2]uint64{binary.BigEndian.Uint64(s[:8]), binary.BigEndian.Uint64(s[8:])},
		dst:   [2]uint64{binary.BigEndian.Uint64(d[:8]), binary.BigEndian.Uint64(d[8:])},
		ports: uint64(src.Port())<<32 | uint64(dst.Port())<<16 | uint64(proto),
	}
}

// Reverse returns the flow in which replies travel.
func (f Flow) Reverse() Flow {
	return Flow{
		src: f.dst, dst: f.src,
		ports: (f.ports>>16&0xffff)<<32 | (f.ports>>32&0xffff)<<16 | f.ports&0xff,
	}
}

// Proto returns the transport protocol.
func (f *Flow) Proto() Proto { return Proto(f.ports) }

// Src returns the source address.
func (f *Flow) Src() netip.Addr { return addr(f.src) }

// Dst returns the destination address.
func (f *Flow) Dst() netip.Addr { return addr(f.dst) }

// SrcPort returns the source port, 0 for protocols without ports.
func (f *Flow) SrcPort() uint16 { return uint16(f.ports >> 32) }

// DstPort returns the destination port, 0 for protocols without ports.
func (f *Flow) DstPort() uint16 { return uint16(f.ports >> 16) }

func addr(a [2]uint64) netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], a[0])
	binary.BigEndian.PutUint64(b[8:], a[1])
	return netip.AddrFrom16(b).Unmap()
}

// From reports whether a is the flow's source. It is what the source check of an attachment asks for every packet.
func (f *Flow) From(a AddrKey) bool { return f.src == a.a }

// To reports whether a is the flow's destination.
func (f *Flow) To(a AddrKey) bool { return f.dst == a.a }

// WithSource returns the flow with another source. An ICMP echo's identifier is both of its ports.
func (f Flow) WithSource(a AddrKey, port uint16) Flow {
	f.src = a.a
	f.ports = f.ports&^(0xffff<<32) | uint64(port)<<32
	if p := f.Proto(); p == ICMP || p == ICMPv6 {
		f.ports = f.ports&^(0xffff<<16) | uint64(port)<<16
	}
	return f
}

// WithDestination returns the flow with another destination. Precondition: its protocol is not ICMP, whose echoes have one
// identifier in place of two ports.
func (f Flow) WithDestination(a AddrKey, port uint16) Flow {
	f.dst = a.a
	f.ports = f.ports&^(0xffff<<16) | uint64(port)<<16
	return f
}

// SrcKey returns the source's key.
func (f *Flow) SrcKey() AddrKey { return AddrKey{f.src} }

// DstKey returns the destination's key.
func (f *Flow) DstKey() AddrKey { return AddrKey{f.dst} }

// IsZero reports whether it is the zero Flow, which no packet has.
func (f *Flow) IsZero() bool { return f.src[0]|f.src[1]|f.dst[0]|f.dst[1]|f.ports == 0 }

// HasPorts reports whether the flow's protocol has ports, or an identifier in their place, that can be translated.
func (f *Flow) HasPorts() bool {
	switch f.Proto() {
	case TCP, UDP, SCTP, ICMP, ICMPv6:
		return true
	}
	return false
}

// Is4 reports whether the flow is of IPv4.
func (f *Flow) Is4() bool { return f.src[0] == mappedHi && f.src[1]&^0xffffffff == mappedLo }

// AddrKey is an address in the form in which Flow holds it.
type AddrKey struct{ a [2]uint64 }

// KeyOf returns the key of an address.
func KeyOf(ip netip.Addr) AddrKey {
	b := ip.As16()
	return AddrKey{[2]uint64{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}}
}

// Addr returns the address.
func (k AddrKey) Addr() netip.Addr { return addr(k.a) }

// Hash returns 64 well-mixed bits of the address, the same for all time.
func (k AddrKey) Hash() uint64 { return mum(k.a[0]^0x2d358dccaa6c78a5, k.a[1]^0xa0761d6478bd642f) }

// Hash returns 64 well-mixed bits of the flow. With a secret seed a sender cannot choose colliding flows. It is part of the
// format of the flow table's file.
func (f *Flow) Hash(seed uint64) uint64 {
	// A factor of zero would swallow the other one. So each has the seed in it, which no sender can cancel, and a constant,
	// for a seed of zero and the zero half of an IPv4 address.
	half := bits.RotateLeft64(seed, 32)
	h := mum(f.src[0]^seed^0x2d358dccaa6c78a5, f.src[1]^half^0xa0761d6478bd642f)
	h = mum(h^f.dst[0], f.dst[1]^half^0xe7037ed1a0b428db)
	h = mum(h^f.ports, seed^0x8ebc6af09c88c6e3)
	return mum(h, half^0x4b33a62ed433d4a3)
}

// HashSource returns well-mixed bits of the source, see Hash.
func (f *Flow) HashSource(seed uint64) uint64 {
	source := Flow{src: f.src}
	return source.Hash(seed)
}

// mum multiplies to 128 bits and folds them, the step of the wyhash family.
func mum(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

// String returns the flow as "tcp 10.244.1.2:4000 -> 10.244.2.3:80".
func (f Flow) String() string {
	return fmt.Sprintf("%v %v -> %v", f.Proto(), netip.AddrPortFrom(f.Src(), f.SrcPort()), netip.AddrPortFrom(f.Dst(), f.DstPort()))
}
