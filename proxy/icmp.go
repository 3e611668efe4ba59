package proxy

import (
	"context"
	"encoding/binary"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/icmp"
	"github.com/middleway-net/middleway/stack/packet"
)

// DefaultMaxEchoFlows bounds a node's ICMP echo flows to the outside: each has a socket.
const DefaultMaxEchoFlows = 1 << 10

// echoIdle is the lifetime of an idle ICMP echo flow, as in the node's flow table.
const echoIdle = 30 * time.Second

// EchoStats are counters of ICMP echo.
type EchoStats struct{ FlowStats }

// echoProxy moves ICMP echo over the kernel's ping sockets, which take nothing else and need no privilege but that the user's group
// is in net.ipv4.ping_group_range (icmp(7)).
type echoProxy struct {
	p      *Proxy
	loop   loop
	egress egress
	pieces assembler
}

func (e *echoProxy) init(p *Proxy) {
	e.p = p
	e.pieces.init()
	e.egress.init(p, &e.loop, protocol{
		name:   "icmp echo",
		number: echoProtocol,
		send:   sendEcho,
		answer: e.answer,
		quote:  quoteEcho,
		advice: `ping sockets are for the groups of net.ipv4.ping_group_range: allow this user's there, for example by sysctl -w net.ipv4.ping_group_range="0 2147483647"`,
		limit:  limitFlows(DefaultMaxEchoFlows),
		idle:   echoIdle, answered: echoIdle,
	})
}

func echoProtocol(is4 bool) int {
	if is4 {
		return unix.IPPROTO_ICMP
	}
	return unix.IPPROTO_ICMPV6
}

func (e *echoProxy) run(ctx context.Context) error { return runBeside(ctx, &e.loop, &e.egress) }

// deliver takes a pod's echo request, which is borrowed, or an ICMP error about what came from outside. Those about TCP are for the
// netstack, where the connection ends. No socket sends the others, but that a port is closed can be told.
func (e *echoProxy) deliver(b []byte, h *packet.Parsed, o packet.Offload) {
	if h.Fragment {
		whole, parsed := e.pieces.add(b, h)
		if whole == nil {
			return
		}
		b, h, o = whole, parsed, packet.Offload{}
	}
	if icmp.IsRequest(b, h) {
		e.egress.deliver(b, h, o)
		return
	}
	var q packet.Quote
	switch {
	case !packet.ParseQuote(b, h, &q):
	case q.Flow.Proto() == packet.TCP:
		e.p.config.Netstack.Deliver(b, h, o)
	case q.Flow.Proto() == packet.UDP && isPortUnreachable(b, h):
		if back := q.Flow.Reverse(); back.SrcKey() == h.Flow.SrcKey() {
			e.p.udp.portClosed(&back)
		}
	}
}

// isPortUnreachable reports whether ICMP error b says that nobody listens at a port (RFC 792; RFC 4443, section 3.1).
func isPortUnreachable(b []byte, h *packet.Parsed) bool {
	if h.Version == 4 {
		return b[h.L4] == unreachable4 && b[h.L4+1] == 3
	}
	return b[h.L4] == 1 && b[h.L4+1] == 4
}

func (e *echoProxy) forget(pod netip.Addr) { e.egress.forget(pod) }

func (e *echoProxy) stats() EchoStats { return EchoStats{e.egress.stats()} }

// answer sends an echo reply to the pod.
func (e *echoProxy) answer(f *egressFlow, m *message) {
	if len(m.data) < icmpHeader {
		return
	}
	back := f.flow.Reverse()
	e.p.outside().echo(&back, m.data, m.ttl, m.tos)
}

// sendEcho sends an echo request. The kernel gives it an identifier of its own.
func sendEcho(f *egressFlow, b []byte, h *packet.Parsed, _ packet.Offload) unix.Errno {
	out := outgoing{data: b[h.L4:h.Len], ttl: -1, tos: -1}
	if h.TTL != f.ttl {
		out.ttl = max(1, int(h.TTL))
	}
	if tos := packet.TOS(b); tos != f.tos {
		out.tos = int(tos)
	}
	return out.send(f.fd, h.Version == 4)
}

// quoteEcho writes an echo request of a flow, of which the socket gives the header too: with the pod's identifier. A checksum over
// what is quoted alone would be another one; the pod's kernel does not look at it.
func quoteEcho(f *egressFlow, dst, data []byte) []byte {
	n := copy(dst, data)
	if n < icmpHeader {
		clear(dst[n:icmpHeader])
		n = icmpHeader
		dst[0] = 8
		if !f.flow.Is4() {
			dst[0] = 128
		}
	}
	was := binary.BigEndian.Uint16(dst[4:])
	binary.BigEndian.PutUint16(dst[4:], f.flow.SrcPort())
	packet.Adjust(dst[2:], was, f.flow.SrcPort())
	return dst[:n]
}
