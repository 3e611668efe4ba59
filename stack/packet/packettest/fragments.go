package packettest

import (
	"encoding/binary"
	"slices"

	"github.com/middleway-net/middleway/stack/packet"
)

// Fragments returns packet b as its sender cuts it for a way of mtu bytes: over IPv6 each with a fragment header of the given
// ID in front of the transport header; over IPv4, where the packet has its own ID, whether or not it may be cut. It has no
// extension headers.
func Fragments(b []byte, mtu int, id uint32) (all [][]byte) {
	head, room := 20, mtu-20
	if b[0]>>4 == 6 {
		head, room = 40, mtu-48
	}
	room &^= 7
	for rest, offset := b[head:], 0; len(rest) > 0; {
		n := min(room, len(rest))
		f := slices.Clone(b[:head])
		more := n < len(rest)
		if head == 20 {
			field := uint16(offset / 8)
			if more {
				field |= 0x2000
			}
			binary.BigEndian.PutUint16(f[2:], uint16(head+n))
			binary.BigEndian.PutUint16(f[6:], field)
			binary.BigEndian.PutUint16(f[10:], 0)
			binary.BigEndian.PutUint16(f[10:], ^packet.Checksum(f, 0))
		} else {
			field := uint16(offset)
			if more {
				field |= 1
			}
			f = append(f, f[6], 0)
			f[6] = byte(packet.FragmentHdr)
			binary.BigEndian.PutUint16(f[4:], uint16(8+n))
			f = binary.BigEndian.AppendUint16(f, field)
			f = binary.BigEndian.AppendUint32(f, id)
		}
		all = append(all, append(f, rest[:n]...))
		rest, offset = rest[n:], offset+n
	}
	return all
}
