package packet

import "strconv"

// Proto is an IP protocol number, as in the IPv4 protocol and the IPv6 next-header field (IANA "Protocol Numbers").
type Proto uint8

// Protocols whose headers this package reads.
const (
	HopByHop    Proto = 0
	ICMP        Proto = 1
	TCP         Proto = 6
	UDP         Proto = 17
	Routing     Proto = 43
	FragmentHdr Proto = 44
	AH          Proto = 51
	ICMPv6      Proto = 58
	DestOptions Proto = 60
	SCTP        Proto = 132
)

// String returns the lower-case name that Kubernetes and /etc/protocols use, or the number.
func (p Proto) String() string {
	switch p {
	case ICMP:
		return "icmp"
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case ICMPv6:
		return "icmpv6"
	case SCTP:
		return "sctp"
	}
	return strconv.Itoa(int(p))
}

// TCP flags (RFC 9293, section 3.1), as in byte 13 of the header.
const (
	FIN = 1 << 0
	SYN = 1 << 1
	RST = 1 << 2
	PSH = 1 << 3
	ACK = 1 << 4
	URG = 1 << 5
	ECE = 1 << 6
	CWR = 1 << 7
)
