package tool

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// ICMPError is an ICMP error that a router or the destination sent about a packet.
type ICMPError struct {
	From netip.Addr // who sent it
	Type int        // of ICMP (RFC 792) or ICMPv6 (RFC 4443), by From's family
	Code int
	MTU  int // bytes, of "fragmentation needed" and "packet too big", IP header included; else 0
}

// TimeExceeded reports whether a router dropped the packet because its TTL was used up.
func (e *ICMPError) TimeExceeded() bool {
	if e.From.Is4() {
		return e.Type == int(ipv4.ICMPTypeTimeExceeded) && e.Code == 0
	}
	return e.Type == int(ipv6.ICMPTypeTimeExceeded) && e.Code == 0
}

// Error returns a sentence like "host unreachable, says 10.244.1.1".
func (e *ICMPError) Error() string { return fmt.Sprintf("%s, says %v", e.Words(), e.From) }

// Words names what happened, without who said it.
func (e *ICMPError) Words() string {
	words := icmpWords6
	if e.From.Is4() {
		words = icmpWords4
	}
	s, ok := words[[2]int{e.Type, e.Code}]
	if !ok {
		s = fmt.Sprintf("ICMP error type %d code %d", e.Type, e.Code)
	}
	if e.MTU > 0 {
		s += fmt.Sprintf(", MTU %d", e.MTU)
	}
	return s
}

// icmpWords4 are RFC 792's, RFC 1122's (section 3.2.2.1) and RFC 1812's (section 5.2.7.1) words for type and code.
var icmpWords4 = map[[2]int]string{
	{3, 0}: "network unreachable", {3, 1}: "host unreachable", {3, 2}: "protocol unreachable", {3, 3}: "port unreachable",
	{3, 4}: "fragmentation needed", {3, 5}: "source route failed", {3, 6}: "network unknown", {3, 7}: "host unknown",
	{3, 9}: "network administratively prohibited", {3, 10}: "host administratively prohibited",
	{3, 13}: "communication administratively prohibited", {3, 14}: "host precedence violation", {3, 15}: "precedence cutoff",
	{4, 0}: "source quench", {11, 0}: "time to live exceeded", {11, 1}: "fragment reassembly time exceeded",
	{12, 0}: "parameter problem", {12, 1}: "parameter problem", {12, 2}: "parameter problem",
}

// icmpWords6 are RFC 4443's.
var icmpWords6 = map[[2]int]string{
	{1, 0}: "no route", {1, 1}: "communication administratively prohibited", {1, 2}: "beyond the scope of the source address",
	{1, 3}: "address unreachable", {1, 4}: "port unreachable", {1, 5}: "source address failed policy", {1, 6}: "route rejected",
	{2, 0}: "packet too big", {3, 0}: "hop limit exceeded", {3, 1}: "fragment reassembly time exceeded",
	{4, 0}: "parameter problem", {4, 1}: "parameter problem", {4, 2}: "parameter problem",
}

// parseICMPError reads a struct sock_extended_err followed by the address of who sent the error (ip(7), IP_RECVERR):
//
//	0       4        5      6      7     8      12     16
//	+-------+--------+------+------+-----+------+------+------------+
//	| errno | origin | type | code | pad | info | data | sockaddr   |
//	+-------+--------+------+------+-----+------+------+------------+
//
// It refuses what did not come from ICMP: errors of this machine itself are those of send.
func parseICMPError(f *echoFamily, b []byte) (*ICMPError, bool) {
	const length = 16
	if len(b) < length {
		return nil, false
	}
	e := &ICMPError{Type: int(b[5]), Code: int(b[6])}
	info, offender := int(binary.NativeEndian.Uint32(b[8:])), b[length:]
	switch origin := b[4]; {
	case origin == unix.SO_EE_ORIGIN_ICMP && f == echo4 && len(offender) >= unix.SizeofSockaddrInet4:
		e.From = netip.AddrFrom4([4]byte(offender[4:]))
		if e.Type == int(ipv4.ICMPTypeDestinationUnreachable) && e.Code == 4 {
			e.MTU = info
		}
	case origin == unix.SO_EE_ORIGIN_ICMP6 && f == echo6 && len(offender) >= unix.SizeofSockaddrInet6:
		e.From = netip.AddrFrom16([16]byte(offender[8:]))
		if e.Type == int(ipv6.ICMPTypePacketTooBig) {
			e.MTU = info
		}
	default:
		return nil, false
	}
	return e, true
}
