package packet

import (
	"encoding/binary"
	"net/netip"
)

// MaxHeader is the most bytes that Header.Put writes.
const MaxHeader = ipv6Len

// Header is the IP header of a packet that the node makes, without options.
type Header struct {
	Src, Dst netip.Addr // of one family
	Proto    Proto
	TTL      uint8
	TOS      uint8 // type of service, traffic class: DSCP and ECN
	// MayFragment: an IPv4 packet may be cut, and has ID.
	MayFragment bool
	ID          uint16
}

// Put writes the header of a packet that goes on with n bytes into dst, which has at least MaxHeader bytes, and returns its
// length. Precondition: n and the header are at most MaxSize.
func (h *Header) Put(dst []byte, n int) int {
	length := putHeader(dst, h.Src, h.Dst, h.Proto, n)
	if length == ipv6Len {
		binary.BigEndian.PutUint16(dst, 6<<12|uint16(h.TOS)<<4)
		dst[7] = h.TTL
		return length
	}
	dst[1], dst[8] = h.TOS, h.TTL
	if h.MayFragment {
		binary.BigEndian.PutUint16(dst[4:], h.ID)
		dst[6] = 0
	}
	dst[10], dst[11] = 0, 0
	binary.BigEndian.PutUint16(dst[10:], ^Checksum(dst[:ipv4MinLen], 0))
	return length
}

// TOS returns the type of service or traffic class of packet b, DSCP and ECN.
func TOS(b []byte) uint8 {
	if b[0]>>4 == 4 {
		return b[1]
	}
	return b[0]<<4 | b[1]>>4
}
