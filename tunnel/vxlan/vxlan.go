// Package vxlan reads and writes the headers that carry a pod's packet in a UDP datagram: VXLAN (RFC 7348) and an inner
// Ethernet header, as flannel's kernel devices use them. It is a pure codec.
package vxlan

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
)

// Lengths in bytes.
const (
	HeaderLen   = 8
	EthernetLen = 14
	// Overhead is what stands between the UDP header and the inner IP header.
	Overhead = HeaderLen + EthernetLen
)

// DefaultPort is where Linux and flannel send VXLAN by default; IANA's port is 4789.
const DefaultPort uint16 = 8472

// VNI is a VXLAN network identifier, 24 bits.
type VNI uint32

// DefaultVNI is flannel's.
const DefaultVNI VNI = 1

// MaxVNI is the largest identifier.
const MaxVNI VNI = 1<<24 - 1

// MAC is an Ethernet address. It is comparable.
type MAC [6]byte

// Uint64 packs the address into the lower 48 bits.
func (m MAC) Uint64() uint64 {
	return uint64(binary.BigEndian.Uint16(m[:]))<<32 | uint64(binary.BigEndian.Uint32(m[2:]))
}

// MACOf is the inverse of MAC.Uint64.
func MACOf(v uint64) (m MAC) {
	binary.BigEndian.PutUint16(m[:], uint16(v>>32))
	binary.BigEndian.PutUint32(m[2:], uint32(v))
	return m
}

// ParseMAC reads a unicast address in any form that net.ParseMAC takes.
func ParseMAC(s string) (MAC, error) {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != 6 {
		return MAC{}, fmt.Errorf("MAC address %q: want six bytes like 02:00:00:00:00:01", s)
	}
	if hw[0]&1 == 1 {
		return MAC{}, fmt.Errorf("MAC address %q: a VTEP needs a unicast address, whose first byte is even", s)
	}
	if MAC(hw) == (MAC{}) {
		return MAC{}, fmt.Errorf("MAC address %q: a VTEP needs an address that is not all zeros", s)
	}
	return MAC(hw), nil
}

// String returns the address as 02:00:00:00:00:01.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// Ethernet types of what the tunnel carries (IEEE 802).
const (
	EtherTypeIPv4 = 0x0800
	EtherTypeIPv6 = 0x86DD
	// EtherTypeLocal is the first local experimental type. Its frames hold messages between two nodes; a kernel drops them.
	EtherTypeLocal = 0x88B5
)

// EtherType returns the Ethernet type of an IP packet of the given version.
func EtherType(version uint8) uint16 {
	if version == 4 {
		return EtherTypeIPv4
	}
	return EtherTypeIPv6
}

// Header is the VXLAN header and the inner Ethernet header (RFC 7348, section 5):
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|R|R|R|R|I|R|R|R|R|R|C|R|             reserved                  |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                VNI                            |O|    start    |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|        inner destination MAC, inner source MAC, Ethernet type |
//
// I is set. C is remote checksum offload, and O and start then describe it (draft-herbert-vxlan-rco; VXLAN_HF_RCO in
// include/net/vxlan.h); without C they are reserved and zero. Linux drops datagrams with bits it does not expect, and so
// does Decode.
type Header struct {
	VNI      VNI
	Dst, Src MAC // inner Ethernet addresses: the VTEPs
	Type     uint16
	Remote   RemoteChecksum
}

// RemoteChecksum asks the receiver to finish the inner transport checksum, whose field holds the pseudo-header's sum. The
// zero value asks for nothing.
type RemoteChecksum struct {
	// Start is where the transport header starts, in bytes from the end of the VXLAN header: even, from 2 to 254.
	Start uint8
	// UDP is whether the checksum is UDP's, at offset 6; else it is TCP's, at offset 16.
	UDP bool
}

const (
	flagVNI = 0x08
	flagRCO = 0x20 // in the second byte
	rcoUDP  = 0x80 // in the last byte; below it the start, in units of two bytes
)

// Errors of Decode.
var (
	ErrShort = errors.New("shorter than its headers")
	ErrFlags = errors.New("VXLAN flags that RFC 7348 does not define")
	ErrType  = errors.New("inner Ethernet type is neither IP nor a node's own")
)

// Encode writes the header into the first Overhead bytes of b.
func (h *Header) Encode(b []byte) {
	_ = b[Overhead-1]
	binary.BigEndian.PutUint32(b, flagVNI<<24)
	binary.BigEndian.PutUint32(b[4:], uint32(h.VNI)<<8)
	if h.Remote.Start != 0 {
		b[1] = flagRCO
		b[7] = h.Remote.Start >> 1
		if h.Remote.UDP {
			b[7] |= rcoUDP
		}
	}
	copy(b[8:], h.Dst[:])
	copy(b[14:], h.Src[:])
	binary.BigEndian.PutUint16(b[20:], h.Type)
}

// Decode reads the header of a datagram. The inner packet starts at b[Overhead].
func Decode(b []byte, h *Header) error {
	if len(b) < Overhead {
		return ErrShort
	}
	if b[0] != flagVNI || b[1]&^flagRCO != 0 || b[2] != 0 || b[3] != 0 {
		return ErrFlags
	}
	h.Remote = RemoteChecksum{}
	if b[1] == flagRCO {
		h.Remote = RemoteChecksum{Start: b[7] &^ rcoUDP << 1, UDP: b[7]&rcoUDP != 0}
	}
	if b[1] == 0 && b[7] != 0 || b[1] == flagRCO && h.Remote.Start == 0 {
		return ErrFlags
	}
	h.VNI = VNI(binary.BigEndian.Uint32(b[4:]) >> 8)
	h.Dst, h.Src = MAC(b[8:14]), MAC(b[14:20])
	h.Type = binary.BigEndian.Uint16(b[20:])
	if h.Type != EtherTypeIPv4 && h.Type != EtherTypeIPv6 && h.Type != EtherTypeLocal {
		return ErrType
	}
	return nil
}
