package proxy

import (
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/packet"
)

// listenerBuffer is the size of a listener's receive buffer in bytes: some thousand clients may ask at the same moment. The kernel
// gives at most net.core.rmem_max without CAP_NET_ADMIN.
const listenerBuffer = 4 << 20

// udpListeners are the listeners of UDP. They keep nothing about clients: an answer leaves from the listener from whose address and
// port the worker has it come.
type udpListeners struct {
	now atomic.Pointer[udpListening] // nil: there are none

	mu sync.Mutex // guards the making of now

	received, sent, refused atomic.Uint64
}

// udpListening is a set of listeners; it never changes.
type udpListening struct {
	ports [1 << 16 / 64]uint64 // of all of them: a packet of egress costs no more than a look here
	by    map[place]*udpListener
}

// at returns the listener that the packets of a flow leave from, or nil.
func (s *udpListeners) at(f *packet.Flow) *udpListener {
	now := s.now.Load()
	port := f.SrcPort()
	if now == nil || now.ports[port/64]&(1<<(port%64)) == 0 {
		return nil
	}
	front := netip.AddrPortFrom(f.Src(), port)
	there, here := now.find(front, false), now.find(front, true)
	if there == nil || here != nil && here.clients.has(netip.AddrPortFrom(f.Dst(), f.DstPort())) {
		return here
	}
	return there
}

// find returns the listener at an address: the one that has just it, or the one of all addresses.
func (s *udpListening) find(front netip.AddrPort, here bool) *udpListener {
	if l := s.by[place{front, packet.UDP, here, false}]; l != nil {
		return l
	}
	every := netip.IPv6Unspecified()
	if front.Addr().Is4() {
		every = netip.IPv4Unspecified()
	}
	return s.by[place{netip.AddrPortFrom(every, front.Port()), packet.UDP, here, false}]
}

// note says from which of two listeners at one address a client has just asked.
func (s *udpListeners) note(u *udpListener, client, front netip.AddrPort) {
	if u.clients != nil {
		u.clients.add(client)
		return
	}
	now := s.now.Load()
	if now == nil {
		return
	}
	if here := now.find(front, true); here != nil {
		here.clients.remove(client)
	}
}

// change makes now anew, after edit of a copy.
func (s *udpListeners) change(edit func(by map[place]*udpListener)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := &udpListening{by: map[place]*udpListener{}}
	if now := s.now.Load(); now != nil {
		for at, l := range now.by {
			next.by[at] = l
		}
	}
	edit(next.by)
	for at := range next.by {
		port := at.addr.Port()
		next.ports[port/64] |= 1 << (port % 64)
	}
	s.now.Store(next)
}

func (s *udpListeners) addTo(stats *UDPStats) {
	if now := s.now.Load(); now != nil {
		stats.Listeners = len(now.by)
	}
	stats.ListenersReceived, stats.ListenersSent, stats.ListenersRefused = s.received.Load(), s.sent.Load(), s.refused.Load()
}

// udpListener is a socket to which clients send.
type udpListener struct {
	p        *Proxy
	place    place
	fd       int
	token    token
	refs     atomic.Int32 // users of fd
	noTrains atomic.Bool
	clients  *clients // of a listener here
	done     chan struct{}
}

// listenUDP opens a listener of UDP.
func (p *Proxy) listenUDP(l Listener) (server, error) {
	is4 := l.Addr.Addr().Is4()
	fd, err := p.socketsOf(l).Socket(domain(is4), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_UDP)
	if err != nil {
		return nil, fmt.Errorf("listen on %v: open socket: %w", l, err)
	}
	u := &udpListener{p: p, place: l.place(), fd: fd, done: make(chan struct{})}
	u.refs.Store(1)
	if l.Here {
		u.clients = new(clients)
	}
	if err := u.open(is4, l.Silent); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("listen on %v: %w", l, err)
	}
	p.udp.listeners.change(func(by map[place]*udpListener) { by[u.place] = u })
	return u, nil
}

func (u *udpListener) open(is4, silent bool) error {
	options := append(flowOptions6[:len(flowOptions6):len(flowOptions6)],
		option{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1}, option{unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1}, cutOption(false, false))
	if is4 {
		options = append(flowOptions4[:len(flowOptions4):len(flowOptions4)], option{unix.IPPROTO_IP, unix.IP_PKTINFO, 1}, cutOption(true, false))
	}
	if err := setOptions(u.fd, options); err != nil {
		return err
	}
	takeTrains(u.fd)
	if unix.SetsockoptInt(u.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, listenerBuffer) != nil {
		_ = unix.SetsockoptInt(u.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, listenerBuffer) // less is no error
	}
	if err := u.setSilent(silent); err != nil {
		return err
	}
	if err := bind(u.fd, u.place.addr); err != nil {
		return err
	}
	var err error
	u.token, err = u.p.udp.loop.add(u.fd, u)
	return err
}

// serve returns when close was called; the loop of UDP takes what comes.
func (u *udpListener) serve() { <-u.done }

// setSilent drops what comes by a filter in the kernel, or lets it in again.
func (u *udpListener) setSilent(silent bool) error { return setSilent(u.fd, silent) }

func (u *udpListener) close() {
	u.p.udp.listeners.change(func(by map[place]*udpListener) { delete(by, u.place) })
	u.p.udp.loop.remove(u.fd, u.token)
	u.release()
	close(u.done)
}

func (u *udpListener) acquire() bool {
	for n := u.refs.Load(); n > 0; n = u.refs.Load() {
		if u.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
	return false
}

func (u *udpListener) release() {
	if u.refs.Add(-1) == 0 {
		_ = unix.Close(u.fd)
	}
}

// ready takes what clients sent.
func (u *udpListener) ready(m *message, failed bool) {
	if !u.acquire() {
		return
	}
	defer u.release()
	for range receiveBudget {
		if !failed || m.receive(u.fd, unix.MSG_ERRQUEUE) != 0 {
			break
		}
		u.passError(m)
	}
	for range receiveBudget {
		errno := m.receive(u.fd, 0)
		if errno == unix.EAGAIN {
			return
		}
		if errno == 0 {
			u.take(m)
		}
	}
}

// take sends a client's datagrams to the worker, as packets to the address at which they came in. Those to a broadcast or multicast
// address are nobody's, and those of a link-local client could not be answered over another link.
func (u *udpListener) take(m *message) {
	u.p.udp.listeners.received.Add(1)
	if m.to != m.local || m.to.IsMulticast() || m.from.Addr().IsLinkLocalUnicast() || m.from.Port() == 0 {
		return
	}
	front := netip.AddrPortFrom(m.to, u.place.addr.Port())
	u.p.udp.listeners.note(u, m.from, front)
	f := packet.NewFlow(packet.UDP, m.from, front)
	u.p.outside().datagrams(&f, m.data, m.segment, m.ttl, m.tos)
}

// passError tells the backend an ICMP error about one of its answers. The worker finds it as it finds what the client sends.
func (u *udpListener) passError(m *message) {
	if m.failure.origin != unix.SO_EE_ORIGIN_ICMP && m.failure.origin != unix.SO_EE_ORIGIN_ICMP6 || !m.to.IsValid() || !m.from.IsValid() {
		return
	}
	f := packet.NewFlow(packet.UDP, netip.AddrPortFrom(m.to, u.place.addr.Port()), m.from)
	var l4 [maxError6]byte
	quoted := quoteDatagram(&f, l4[:], m.data)
	passError(u.p.injectOutside, &f, m.failure.offender, &m.failure, quoted)
}

// answer sends a packet of a backend, which is borrowed, to the client.
func (s *udpListeners) answer(u *udpListener, b []byte, h *packet.Parsed, o packet.Offload) {
	if !u.acquire() {
		s.refused.Add(1)
		return
	}
	defer u.release()
	out := outgoing{to: netip.AddrPortFrom(h.Flow.Dst(), h.Flow.DstPort()), from: h.Flow.Src(), ttl: max(1, int(h.TTL)), tos: int(packet.TOS(b))}
	if out.sendPacket(u, b, h, o) != 0 {
		s.refused.Add(1)
		return
	}
	s.sent.Add(1)
}

func (o *outgoing) sendPacket(u *udpListener, b []byte, h *packet.Parsed, offload packet.Offload) unix.Errno {
	is4 := h.Version == 4
	if offload.GSO == packet.GSOUDP {
		return o.sendTrain(u.fd, is4, b[h.Payload:h.Len], int(offload.Size), &u.noTrains)
	}
	o.data = packet.UDPPayload(b, h)
	return o.send(u.fd, is4)
}
