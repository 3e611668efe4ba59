package proxy

import (
	"context"
	"encoding/binary"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/packet"
)

// DefaultMaxUDPFlows bounds a node's UDP flows to the outside: each has a socket, which takes about 3 KiB, most of them the kernel's. At most
// half of the descriptors that the process may have are theirs.
const DefaultMaxUDPFlows = 12 << 10

// Lifetimes of an idle UDP flow, as in the node's flow table (RFC 4787, REQ-5): one that was answered, and one that was not.
const (
	udpAnswered = 3 * time.Minute
	udpOneWay   = 30 * time.Second
)

// UDPStats are counters of UDP.
type UDPStats struct {
	// FlowStats are of egress.
	FlowStats
	// Listeners are of UDP, and open.
	Listeners int `json:"listeners"`
	// Clients' datagrams that listeners received, and answers to them that they sent. A train counts as one.
	ListenersReceived uint64 `json:"listenersReceived"`
	ListenersSent     uint64 `json:"listenersSent"`
	// Refused are answers of pods that no listener took.
	ListenersRefused uint64 `json:"listenersRefused"`
}

// udpProxy moves datagrams.
type udpProxy struct {
	p         *Proxy
	loop      loop
	egress    egress
	pieces    assembler
	listeners udpListeners
}

func (u *udpProxy) init(p *Proxy) {
	u.p = p
	u.pieces.init()
	u.egress.init(p, &u.loop, protocol{
		name:   "udp",
		number: func(bool) int { return unix.IPPROTO_UDP },
		send:   sendDatagrams,
		answer: u.answer,
		quote:  quoteUDP,
		trains: true,
		limit:  limitFlows(DefaultMaxUDPFlows),
		idle:   udpOneWay, answered: udpAnswered,
	})
}

// run moves datagrams until ctx ends.
func (u *udpProxy) run(ctx context.Context) error { return runBeside(ctx, &u.loop, &u.egress) }

// runBeside runs a loop and the egress that it serves until ctx ends.
func runBeside(ctx context.Context, l *loop, e *egress) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(l.run)
	g.Go(func() error {
		defer l.stop()
		return e.run(ctx)
	})
	return g.Wait()
}

// deliver takes a packet, which is borrowed: a pod's to the outside, or one that answers a client of a listener.
func (u *udpProxy) deliver(b []byte, h *packet.Parsed, o packet.Offload) {
	if h.Fragment {
		whole, parsed := u.pieces.add(b, h)
		if whole == nil {
			return
		}
		b, h, o = whole, parsed, packet.Offload{}
	}
	if l := u.listeners.at(&h.Flow); l != nil {
		u.listeners.answer(l, b, h, o)
		return
	}
	u.egress.deliver(b, h, o)
}

func (u *udpProxy) forget(pod netip.Addr) { u.egress.forget(pod) }

func (u *udpProxy) stats() UDPStats {
	s := UDPStats{FlowStats: u.egress.stats()}
	u.listeners.addTo(&s)
	return s
}

// portClosed takes from a pod that it does not listen any more at the port from which it sent as flow f. Without a socket the host's
// kernel tells that who sends there.
func (u *udpProxy) portClosed(f *packet.Flow) {
	if f := u.egress.table.find(f); f != nil {
		u.egress.remove(f)
	}
}

// answer sends datagrams of the outside to the pod.
func (u *udpProxy) answer(f *egressFlow, m *message) {
	back := f.flow.Reverse()
	u.p.outside().datagrams(&back, m.data, m.segment, m.ttl, m.tos)
}

// outside makes packets of the outside.
func (p *Proxy) outside() bundle { return bundle{p.injectOutside, p.config.MTU} }

// sendDatagrams sends a packet's datagram, or a train's, on a flow's socket.
func sendDatagrams(f *egressFlow, b []byte, h *packet.Parsed, o packet.Offload) unix.Errno {
	out := outgoing{ttl: -1, tos: -1}
	if h.TTL != f.ttl {
		out.ttl = max(1, int(h.TTL))
	}
	if tos := packet.TOS(b); tos != f.tos {
		out.tos = int(tos)
	}
	if o.GSO != packet.GSOUDP {
		out.data = packet.UDPPayload(b, h)
		return out.send(f.fd, h.Version == 4)
	}
	return out.sendTrain(f.fd, h.Version == 4, b[h.Payload:h.Len], int(o.Size), &f.noTrains)
}

// quoteUDP writes a UDP packet of a flow.
func quoteUDP(f *egressFlow, dst, data []byte) []byte { return quoteDatagram(&f.flow, dst, data) }

// quoteDatagram writes the transport part of a packet of flow f with data, as much of it as fits, and returns it.
func quoteDatagram(f *packet.Flow, dst, data []byte) []byte {
	data = data[:min(len(data), len(dst)-udpHeader)]
	putUDP(dst, f, len(data))
	copy(dst[udpHeader:], data)
	dst = dst[:udpHeader+len(data)]
	binary.BigEndian.PutUint16(dst[6:], notZero(^packet.Checksum(dst, pseudoSum(f, packet.UDP, len(dst)))))
	return dst
}
