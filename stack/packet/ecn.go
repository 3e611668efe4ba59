package packet

import "encoding/binary"

// ECN is the ECN field of an IP header (RFC 3168, section 5).
type ECN uint8

// The values of the field.
const (
	NotECT ECN = 0 // the sender does not know of ECN
	ECT1   ECN = 1 // it does; RFC 9331 gives this one a meaning of its own
	ECT0   ECN = 2 // it does
	CE     ECN = 3 // a router on the way was congested
)

// ECNOf returns the ECN field of packet b, which Parse kept.
func ECNOf(b []byte) ECN {
	if b[0]>>4 == 4 {
		return ECN(b[1] & 3)
	}
	return ECN(b[1] >> 4 & 3)
}

// decapsulated is what the inner field becomes, by inner and outer one (RFC 6040, figure 4).
var decapsulated = [4][4]ECN{
	NotECT: {NotECT: NotECT, ECT1: NotECT, ECT0: NotECT, CE: lost},
	ECT1:   {NotECT: ECT1, ECT1: ECT1, ECT0: ECT1, CE: CE},
	ECT0:   {NotECT: ECT0, ECT1: ECT1, ECT0: ECT0, CE: CE},
	CE:     {NotECT: CE, ECT1: CE, ECT0: CE, CE: CE},
}

// lost says that the packet has to be dropped.
const lost ECN = 4

// Decapsulate combines the ECN field of the outer header that packet b came in with its own, as RFC 6040 says in section
// 4.2, and keeps the IPv4 header checksum right. It reports false if the packet is to be dropped: the tunnel met
// congestion, and the packet's sender would not be told by a mark.
func Decapsulate(b []byte, outer ECN) bool {
	inner := ECNOf(b)
	now := decapsulated[inner][outer]
	switch {
	case now == lost:
		return false
	case now != inner:
		setECN(b, now)
	}
	return true
}

// setECN writes the field, and the IPv4 header checksum as if it were summed anew (RFC 1624, equation 3).
func setECN(b []byte, e ECN) {
	if b[0]>>4 == 6 {
		b[1] = b[1]&^0x30 | byte(e)<<4
		return
	}
	old := binary.BigEndian.Uint16(b)
	b[1] = b[1]&^3 | byte(e)
	sum := addSum(^binary.BigEndian.Uint16(b[10:]), ^old)
	binary.BigEndian.PutUint16(b[10:], ^addSum(sum, binary.BigEndian.Uint16(b)))
}
