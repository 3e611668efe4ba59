package proxy

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/packet"
)

// Types of ICMP errors that carry a word (RFC 792, RFC 1191; RFC 4443).
const (
	unreachable4    = 3
	tooBig4         = 4 // code
	parameter4      = 12
	tooBig6         = 2
	parameter6      = 4
	timeExceeded4   = 11
	timeExceeded6   = 3
	errorTTL        = 64
	errorPrecedence = 0xc0 // internetwork control (RFC 1812, section 4.3.2.5)
)

// maxQuoted is how much of a packet an error quotes at most: with it the error is as large as every way takes.
const (
	maxError4 = 576
	maxError6 = 1280
)

// passError tells a pod an error that a flow's socket told: with the type, code and sender that it had where an ICMP message is
// behind it; else, where the kernel knew by itself, from the gateway.
func (e *egress) passError(f *egressFlow, m *message) {
	var l4 [maxError6]byte
	quoted := e.quote(f, l4[:], m.data)
	from := e.p.config.Netstack.Gateway(f.flow.Is4())
	inject := e.p.inject
	switch m.failure.origin {
	case unix.SO_EE_ORIGIN_ICMP, unix.SO_EE_ORIGIN_ICMP6:
		from, inject = m.failure.offender, e.p.injectOutside
	case unix.SO_EE_ORIGIN_LOCAL:
		if m.failure.errno != unix.EMSGSIZE || !e.local.Allow(e.clock()) {
			return
		}
		m.failure.setTooBig(f.flow.Is4())
	default:
		return
	}
	if passError(inject, &f.flow, from, &m.failure, quoted) {
		e.count.told.Add(1)
	}
}

// setTooBig makes of an error that the kernel knew by itself the ICMP message that a router sends.
func (f *failure) setTooBig(is4 bool) {
	f.kind, f.code = tooBig6, 0
	if is4 {
		f.kind, f.code = unreachable4, tooBig4
	}
}

// word returns the second word of the ICMP message.
func (f *failure) word(is4 bool) uint32 {
	switch {
	case is4 && f.kind == unreachable4 && f.code == tooBig4:
		return f.info & 0xffff
	case is4 && f.kind == parameter4:
		return f.info << 24 // the kernel gives the pointer alone
	case !is4 && (f.kind == tooBig6 || f.kind == parameter6):
		return f.info
	}
	return 0
}

// isError reports whether the type is that of an ICMP error about a packet.
func (f *failure) isError(is4 bool) bool {
	if is4 {
		return f.kind == unreachable4 || f.kind == timeExceeded4 || f.kind == parameter4
	}
	return f.kind >= 1 && f.kind <= 4
}

// passError sends the source of flow f an ICMP error from an address about a packet of which the transport part is quoted, as far
// as it is known. It reports whether it did.
func passError(inject Inject, f *packet.Flow, from netip.Addr, why *failure, quoted []byte) bool {
	is4 := f.Is4()
	if !from.IsValid() || from.Is4() != is4 || !why.isError(is4) {
		return false
	}
	proto, most := packet.ICMP, maxError4
	if !is4 {
		proto, most = packet.ICMPv6, maxError6
	}
	var b [maxError6]byte
	at := ipHeader(is4)
	message := b[at:most]
	message[0], message[1] = why.kind, why.code
	binary.BigEndian.PutUint32(message[4:], why.word(is4))
	inner := packet.Header{Src: f.Src(), Dst: f.Dst(), Proto: f.Proto(), TTL: 1}
	n := icmpHeader + inner.Put(message[icmpHeader:], len(quoted))
	n += copy(message[n:], quoted)
	message = message[:n]

	outer := packet.Header{Src: from, Dst: f.Src(), Proto: proto, TTL: errorTTL, TOS: errorPrecedence}
	outer.Put(b[:], n)
	back := packet.NewFlow(proto, netip.AddrPortFrom(from, 0), netip.AddrPortFrom(f.Src(), 0))
	sumICMP(&back, proto, message)
	inject(packet.Offload{}, b[:at+n])
	return true
}
