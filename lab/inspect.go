package lab

import "encoding/binary"

// ethernetHeader is the length of the header in front of an IP packet, in bytes.
const ethernetHeader = 14

// Lengths of IP headers in bytes.
const (
	headerLen4 = 20
	headerLen6 = 40
)

// markable reports whether a frame holds an IP packet whose sender knows of ECN (RFC 3168, section 5).
func markable(frame []byte) bool {
	if len(frame) < ethernetHeader+headerLen4 {
		return false
	}
	switch ip := frame[ethernetHeader:]; binary.BigEndian.Uint16(frame[12:]) {
	case 0x0800:
		return ip[1]&3 != 0
	case 0x86dd:
		return len(ip) >= headerLen6 && ip[1]&0x30 != 0
	}
	return false
}

// ofTrain reports whether a frame holds an IPv4 datagram of UDP that a kernel cut from a train and that is not its first.
func ofTrain(frame []byte) bool {
	if len(frame) < ethernetHeader+headerLen4 || binary.BigEndian.Uint16(frame[12:]) != 0x0800 {
		return false
	}
	ip := frame[ethernetHeader:]
	return ip[9] == 17 && ip[6]&0x40 != 0 && binary.BigEndian.Uint16(ip[4:]) != 0
}

// mark says in a markable packet that there was congestion, and makes the checksum of an IPv4 header right again.
func mark(frame []byte) {
	ip := frame[ethernetHeader:]
	if ip[0]>>4 == 6 {
		ip[1] |= 0x30
		return
	}
	ip[1] |= 3
	ip[10], ip[11] = 0, 0
	sum := uint32(0)
	for head := ip[:ip[0]&0xf*4]; len(head) > 1; head = head[2:] {
		sum += uint32(binary.BigEndian.Uint16(head))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum+sum>>16))
}
