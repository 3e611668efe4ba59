package proxy

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
)

// outside is
//
//	node ──── router ──── server    one Ethernet; the node's way to the server's address leads over the router,
//	 .11       .12         .13      whose own takes packets of 1300 bytes
type outside struct{ node, router, server Namespace }

// Namespace is a network namespace of a test, *lab.Namespace.
type Namespace interface {
	Do(f func() error) error
	Netlink() (*netlink.Handle, error)
	Sysctl(name, value string) error
	AddAddr(device string, addr netip.Prefix) error
	AddRoute(dst netip.Prefix, gateway netip.Addr, device string) error
}

// JoinNamespaces makes namespaces that an Ethernet joins: each has a device eth0 with the next of the nodes' addresses.
var JoinNamespaces func(t *testing.T, names ...string) []Namespace

// Addresses of the server, and of the router at the node's side.
var (
	remote   = netip.MustParseAddr("203.0.113.7")
	remote6  = netip.MustParseAddr("2001:db8::7")
	nobody   = netip.MustParseAddr("203.0.113.99") // the router has no way there
	nobody6  = netip.MustParseAddr("2001:db8::99")
	routers  = netip.MustParseAddr("192.168.254.12")
	routers6 = netip.MustParseAddr("fd00:254::12")
)

const narrow = 1300

func newOutside(t *testing.T) *outside {
	t.Helper()
	all := JoinNamespaces(t, "node", "router", "server")
	for _, n := range all {
		must(t, n.Sysctl("net.ipv4.ping_group_range", "0 0"))
	}
	o := &outside{all[0], all[1], all[2]}
	for _, s := range []string{"net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv4.conf.all.send_redirects=0", "net.ipv4.conf.eth0.send_redirects=0"} {
		name, value, _ := bytes.Cut([]byte(s), []byte("="))
		must(t, o.router.Sysctl(string(name), string(value)))
	}
	for _, a := range []struct {
		server, router, last netip.Addr
	}{{remote, routers, netip.MustParseAddr("192.168.254.13")}, {remote6, routers6, netip.MustParseAddr("fd00:254::13")}} {
		host := netip.PrefixFrom(a.server, a.server.BitLen())
		must(t, o.server.AddAddr("lo", host))
		wide, _ := a.server.Prefix(map[bool]int{true: 24, false: 64}[a.server.Is4()])
		must(t, o.node.AddRoute(wide, a.router, "eth0"))
		o.narrowRoute(t, host, a.last)
	}
	return o
}

// narrowRoute gives the router a way that takes small packets only.
func (o *outside) narrowRoute(t *testing.T, dst netip.Prefix, gateway netip.Addr) {
	t.Helper()
	nl, err := o.router.Netlink()
	must(t, err)
	link, err := nl.LinkByName("eth0")
	must(t, err)
	must(t, nl.RouteAdd(&netlink.Route{
		LinkIndex: link.Attrs().Index, MTU: narrow, Gw: gateway.AsSlice(),
		Dst: &net.IPNet{IP: dst.Addr().AsSlice(), Mask: net.CIDRMask(dst.Bits(), dst.Bits())},
	}))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// sockets are made in a namespace.
type sockets struct{ Namespace }

func (s sockets) Socket(domain, typ, proto int) (fd int, err error) {
	err = s.Do(func() error {
		fd, err = unix.Socket(domain, typ, proto)
		return err
	})
	return fd, err
}

// serve answers datagrams in the server's namespace.
func (o *outside) serve(t *testing.T, addr netip.Addr) (at netip.AddrPort) {
	t.Helper()
	must(t, o.server.Do(func() error {
		at = serveUDP(t, addr)
		return nil
	}))
	return at
}

// ways are a pod with a server, a place where nobody is, and the router.
var ways = []struct {
	name                                   string
	pod, server, nobody, router, gatewayOf netip.Addr
}{
	{"IPv4", podA, remote, nobody, routers, gateway},
	{"IPv6", podA6, remote6, nobody6, routers6, gateway6},
}

// expectError checks that the next packet is an ICMP error about a packet of a flow, and returns type, code and word.
func expectError(t *testing.T, from <-chan []byte, about packet.Flow, sender netip.Addr) (kind [2]byte, word uint32) {
	t.Helper()
	b, h := receive(t, from)
	var q packet.Quote
	if !packet.ParseQuote(b, &h, &q) {
		t.Fatalf("got %x, want an ICMP error", b)
	}
	if q.Flow != about || h.Flow.Src() != sender || h.Flow.Dst() != about.Src() {
		t.Errorf("got an error of %v about %v -> %v, want of %v about %v -> %v", h.Flow.Src(), q.Flow.Src(), q.Flow.Dst(), sender, about.Src(), about.Dst())
	}
	return [2]byte(b[h.L4:]), binary.BigEndian.Uint32(b[h.L4+4:])
}

func TestPing(t *testing.T) {
	o := newOutside(t)
	for _, tt := range ways {
		t.Run(tt.name, func(t *testing.T) {
			n := start(t, Config{Sockets: sockets{o.node}, MTU: 1450})
			for _, size := range []int{8, 56, 1200} {
				n.deliver(echoRequest(tt.pod, tt.server, 77, uint16(size), 63, pattern(size)))
				b, h := receive(t, n.out)
				if want := packet.NewFlow(h.Proto, netip.AddrPortFrom(tt.server, 77), netip.AddrPortFrom(tt.pod, 77)); h.Flow != want {
					t.Fatalf("got %x, want a reply", b)
				}
				if kind := b[h.L4]; kind != map[bool]byte{true: 0, false: 129}[tt.pod.Is4()] || h.TTL != 64 {
					t.Errorf("got type %d, TTL %d", kind, h.TTL)
				}
				if seq := binary.BigEndian.Uint16(b[h.L4+6:]); int(seq) != size || !bytes.Equal(b[h.L4+8:h.Len], pattern(size)) {
					t.Errorf("got sequence number %d and %d bytes, want %d", seq, h.Len-h.L4-8, size)
				}
			}
			if s := n.Stats().Echo; s.Open != 1 || s.Sent != 3 || s.Received != 3 {
				t.Errorf("got %+v, want one flow, 3 sent and received", s)
			}
		})
	}
}

// echoRequest returns a pod's ping.
func echoRequest(src, dst netip.Addr, id, seq uint16, ttl byte, data []byte) []byte {
	message := append([]byte{8, 0, 0, 0, byte(id >> 8), byte(id), byte(seq >> 8), byte(seq)}, data...)
	proto := packet.ICMP
	if src.Is6() {
		message[0], proto = 128, packet.ICMPv6
	}
	f := packet.NewFlow(proto, netip.AddrPortFrom(src, id), netip.AddrPortFrom(dst, id))
	sumICMP(&f, proto, message)
	b := make([]byte, packet.VnetLen+packet.MaxHeader)
	h := packet.Header{Src: src, Dst: dst, Proto: proto, TTL: ttl}
	at := h.Put(b[packet.VnetLen:], len(message))
	return append(b[:packet.VnetLen+at], message...)
}

// TestTraceroute: the router on the way tells the pod where it is, and the server that it was reached.
func TestTraceroute(t *testing.T) {
	o := newOutside(t)
	for _, tt := range ways {
		t.Run(tt.name, func(t *testing.T) {
			n := start(t, Config{Sockets: sockets{o.node}})
			expired := map[bool][2]byte{true: {11, 0}, false: {3, 0}}[tt.pod.Is4()]
			closed := map[bool][2]byte{true: {3, 3}, false: {1, 4}}[tt.pod.Is4()]
			for i := range 3 {
				to := netip.AddrPortFrom(tt.server, uint16(33434+i))
				about := packet.NewFlow(packet.UDP, netip.AddrPortFrom(tt.pod, 4000), to)
				probe := packettest.Packet{Src: tt.pod, Dst: to.Addr(), SrcPort: 4000, DstPort: to.Port(), TTL: 1, Payload: []byte("probe")}
				n.deliver(probe.Frame())
				if kind, _ := expectError(t, n.out, about, tt.router); kind != expired {
					t.Errorf("TTL 1: got %v, want %v", kind, expired)
				}
				probe.TTL = 2 // of the same flow
				n.deliver(probe.Frame())
				if kind, _ := expectError(t, n.out, about, tt.server); kind != closed {
					t.Errorf("TTL 2: got %v, want %v", kind, closed)
				}
			}
			n.deliver(echoRequest(tt.pod, tt.server, 9, 1, 1, pattern(20)))
			proto := map[bool]packet.Proto{true: packet.ICMP, false: packet.ICMPv6}[tt.pod.Is4()]
			about := packet.NewFlow(proto, netip.AddrPortFrom(tt.pod, 9), netip.AddrPortFrom(tt.server, 9))
			if kind, _ := expectError(t, n.out, about, tt.router); kind != expired {
				t.Errorf("ping with TTL 1: got %v, want %v", kind, expired)
			}
		})
	}
}

// TestPathMTU: a pod that forbids fragments is told the way's MTU, first by the router, then by the node, which knows it by now.
func TestPathMTU(t *testing.T) {
	o := newOutside(t)
	for _, tt := range ways {
		t.Run(tt.name, func(t *testing.T) {
			n := start(t, Config{Sockets: sockets{o.node}})
			at := o.serve(t, tt.server)
			pod := netip.AddrPortFrom(tt.pod, 4000)
			about := packet.NewFlow(packet.UDP, pod, at)
			large := packettest.Packet{Src: pod.Addr(), Dst: at.Addr(), SrcPort: pod.Port(), DstPort: at.Port(), Payload: pattern(1400)}
			tooBig := map[bool][2]byte{true: {3, 4}, false: {2, 0}}[tt.pod.Is4()]
			n.deliver(large.Frame())
			if kind, mtu := expectError(t, n.out, about, tt.router); kind != tooBig || mtu != narrow {
				t.Errorf("of the router: got %v, MTU %d, want %v, %d", kind, mtu, tooBig, narrow)
			}
			n.deliver(large.Frame())
			if kind, mtu := expectError(t, n.own, about, tt.gatewayOf); kind != tooBig || mtu != narrow {
				t.Errorf("of the node: got %v, MTU %d, want %v, %d", kind, mtu, tooBig, narrow)
			}
			small := large
			small.Payload = pattern(1200)
			n.deliver(small.Frame())
			for { // the node may tell of the large packet twice
				b, h := receive(t, either(n))
				if h.Proto != packet.UDP {
					continue
				}
				if got := packet.UDPPayload(b, &h); !bytes.Equal(got, small.Payload) {
					t.Errorf("got %d other bytes", len(got))
				}
				break
			}
		})
	}
}

// TestMayBeCut: what a pod allows to be cut arrives over a way that is too narrow for it, also on a flow that forbade it before.
func TestMayBeCut(t *testing.T) {
	o := newOutside(t)
	n := start(t, Config{Sockets: sockets{o.node}})
	at := o.serve(t, remote)
	pod := netip.AddrPortFrom(podA, 4000)
	d := packettest.Packet{Src: podA, Dst: remote, SrcPort: 4000, DstPort: at.Port(), Payload: pattern(100)}
	n.deliver(d.Frame())
	expectDatagram(t, n.out, at, pod)
	d.Payload = pattern(1400)
	frame := d.Frame()
	b := frame[packet.VnetLen:]
	b[6] = 0
	packet.Adjust(b[10:], 0x4000, 0)
	n.deliver(frame)
	if got := expectDatagram(t, n.out, at, pod); !bytes.Equal(got, d.Payload) {
		t.Errorf("got %d other bytes", len(got))
	}
}

// either returns what comes next of a node's packets.
func either(n *node) <-chan []byte {
	to := make(chan []byte, 1)
	go func() {
		select {
		case b := <-n.own:
			to <- b
		case b := <-n.out:
			to <- b
		}
	}()
	return to
}

// TestNoRoute: where the router and where the node itself knows no way.
func TestNoRoute(t *testing.T) {
	o := newOutside(t)
	for _, tt := range ways {
		t.Run(tt.name, func(t *testing.T) {
			n := start(t, Config{Sockets: sockets{o.node}})
			d := packettest.Packet{Src: tt.pod, Dst: tt.nobody, SrcPort: 4000, DstPort: 53, Payload: []byte("?")}
			about := packet.NewFlow(packet.UDP, netip.AddrPortFrom(tt.pod, 4000), netip.AddrPortFrom(tt.nobody, 53))
			unreachable := map[bool][2]byte{true: {3, 0}, false: {1, 0}}[tt.pod.Is4()]
			n.deliver(d.Frame())
			if kind, _ := expectError(t, n.out, about, tt.router); kind != unreachable {
				t.Errorf("of the router: got %v, want %v", kind, unreachable)
			}
			d.Dst = map[bool]netip.Addr{true: netip.MustParseAddr("198.51.100.1"), false: netip.MustParseAddr("2001:db8:1::1")}[tt.pod.Is4()]
			about = packet.NewFlow(packet.UDP, netip.AddrPortFrom(tt.pod, 4000), netip.AddrPortFrom(d.Dst, 53))
			n.deliver(d.Frame())
			if kind, _ := expectError(t, n.own, about, tt.gatewayOf); kind != unreachable {
				t.Errorf("of the node: got %v, want %v", kind, unreachable)
			}
			if s := n.Stats().UDP; s.Failed != 1 || s.Open != 1 {
				t.Errorf("got %+v, want one flow without a socket, and one with", s)
			}
		})
	}
}
