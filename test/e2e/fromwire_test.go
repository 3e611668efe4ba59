package e2e

import (
	"encoding/hex"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/tunnel/vxlan"
)

func TestMalformedFromWire(t *testing.T)     { testFromWire(t, fewer(100_000)) }
func TestSoakMalformedFromWire(t *testing.T) { soak(t); testFromWire(t, 1_000_000) }

// stage is a node under fire: transfers that must not notice go on, and a pod that takes no part sees what gets through.
//
//	node 1: pod 1 ◄══ transfer ══► pod 2, pod 3 = target        node 2: pod ◄══ transfer ══► pod 1
//	node 3: a peer with a kernel's VXLAN, by configuration      node 4: a middleway peer, by configuration
type stage struct {
	cluster *lab.Cluster
	node    *lab.Node
	target  *lab.Pod
	peers   [2]*lab.Namespace // nodes 3 and 4: only namespaces
	seen    capture
	going   []*running
}

func newStage(t *testing.T) *stage {
	s := &stage{peers: [2]*lab.Namespace{newNamespace(t, "node-3"), newNamespace(t, "node-4")}}
	s.cluster = newCluster(t, lab.ClusterConfig{
		Pods: []int{3, 1}, Kernel: s.peers[:],
		Change: func(_ int, c *node.Config) { c.Peers[len(c.Peers)-1].Kernel = false },
	})
	s.node = s.cluster.Nodes[0]
	pods, far := s.node.Pods, s.cluster.Nodes[1].Pods[0]
	s.target = pods[2]
	s.seen = newCapture(t, s.target.Namespace)
	const rate, timeout = 20e6, 10 * 60e9
	for _, x := range []transfer{
		{from: pods[0].Namespace, to: pods[1].Namespace, addr: pods[1].Addr4, rate: rate, timeout: timeout},
		{from: far.Namespace, to: pods[0].Namespace, addr: pods[0].Addr6, rate: rate, timeout: timeout},
	} {
		s.going = append(s.going, x.start(t))
	}
	return s
}

// close checks that nothing was disturbed.
func (s *stage) close(t *testing.T) {
	for _, r := range s.going {
		r.stop()
		t.Log("a transfer beside it: ", r.wait(t))
	}
	for i, b := range s.seen.received(t) {
		if t.Errorf("the target pod saw\n%s", hex.Dump(b)); i > 2 {
			break
		}
	}
	mustPing(t, s.node.Pods[0].Namespace, s.target.Addr4, 56)
	mustPing(t, s.cluster.Nodes[1].Pods[0].Namespace, s.target.Addr6, 56)
	t.Log("dropped in all: ", dropsOf(t, s.node))
}

// wire sends datagrams to the tunnel's port from an underlay address.
type wire struct {
	conn   net.Conn
	header vxlan.Header
}

func newWire(t *testing.T, from *lab.Namespace, local netip.Addr, to *lab.Node) *wire {
	t.Helper()
	dst := netip.AddrPortFrom(to.Config.Address, vxlan.DefaultPort)
	c, err := lab.Sockets{Namespace: from, Local: netip.AddrPortFrom(local, 0)}.Dial(t.Context(), "udp", dst.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &wire{c, vxlan.Header{VNI: vxlan.DefaultVNI, Dst: node.DefaultMAC(to.Config.Address), Src: node.DefaultMAC(local)}}
}

func (w *wire) send(datagram []byte) error {
	_, err := w.conn.Write(datagram)
	return err
}

// wrap puts the right headers, after an edit, in front of an inner packet.
func (w *wire) wrap(inner []byte, edit ...func(*vxlan.Header)) []byte {
	h := w.header
	h.Type = vxlan.EtherTypeIPv4
	if inner[0]>>4 == 6 {
		h.Type = vxlan.EtherTypeIPv6
	}
	for _, e := range edit {
		e(&h)
	}
	b := make([]byte, vxlan.Overhead)
	h.Encode(b)
	return append(b, inner...)
}

func testFromWire(t *testing.T, n int) {
	s := newStage(t)
	stranger := netip.MustParseAddr("192.168.254.99")
	if err := s.peers[0].AddAddr("eth0", netip.PrefixFrom(stranger, 24)); err != nil {
		t.Fatal(err)
	}
	kernel := newWire(t, s.peers[0], lab.NodeAddr4(3).Addr(), s.node)
	peer := newWire(t, s.peers[1], lab.NodeAddr4(4).Addr(), s.node)
	unknown := newWire(t, s.peers[0], stranger, s.node)
	kinds := wireKinds(s, kernel, peer, unknown)
	f := flood{node: s.node, burst: 128}
	for _, k := range kinds {
		f.run(t, n/len(kinds)+1, k)
		if t.Failed() {
			break
		}
	}
	s.close(t)
}

// wireKinds are all the ways in which a datagram can be wrong.
func wireKinds(s *stage, kernel, peer, unknown *wire) (kinds []flooding) {
	random := rand.New(rand.NewPCG(5, 6))
	to4, to6 := s.target.Addr4, s.target.Addr6
	v4, v6 := flow{host(lab.PodCIDR4(4), 2), to4}, flow{host(lab.PodCIDR6(4), 2), to6}
	k4, k6 := flow{host(lab.PodCIDR4(3), 2), to4}, flow{host(lab.PodCIDR6(3), 2), to6}

	// each adds a kind whose packets are taken in turn.
	each := func(name string, want packet.DropReason, from *wire, datagrams ...[]byte) {
		kinds = append(kinds, flooding{name, want, func(i int) error { return from.send(datagrams[i%len(datagrams)]) }})
	}
	drawn := func(name string, want packet.DropReason, from *wire, draw func() []byte) {
		kinds = append(kinds, flooding{name, want, func(int) error { return from.send(draw()) }})
	}
	randomBytes := func(least, most int) []byte {
		b := make([]byte, least+random.IntN(most-least+1))
		fill(random, b)
		return b
	}

	drawn("random bytes", packet.DropNotVXLAN, peer, func() []byte { return randomBytes(0, 1400) })
	drawn("random inner packets", packet.Kept, peer, func() []byte { return peer.wrap(randomBytes(1, 1400)) })
	drawn("random headers behind right addresses", packet.Kept, peer, func() []byte {
		b := v4.tcp(100)
		copy(b[20:], randomBytes(20, 20))
		b[0], b[32] = 0x45, byte(random.IntN(5))<<4 // a TCP header that is too short
		return peer.wrap(resum(b))
	})

	var cut4, cutHead [][]byte
	for _, whole := range [][]byte{peer.wrap(v4.udp(60)), peer.wrap(v6.tcp(30))} {
		for i := range whole {
			if i < vxlan.Overhead {
				cutHead = append(cutHead, whole[:i])
			} else {
				cut4 = append(cut4, whole[:i])
			}
		}
	}
	each("cut in the tunnel's headers", packet.DropNotVXLAN, peer, cutHead...)
	each("cut behind them", packet.DropMalformed, peer, cut4...)

	each("wrong VNI", packet.DropVNI, peer,
		peer.wrap(v4.udp(9), func(h *vxlan.Header) { h.VNI = 0 }), peer.wrap(v6.udp(9), func(h *vxlan.Header) { h.VNI = 2 }),
		peer.wrap(v6.udp(9), func(h *vxlan.Header) { h.VNI = vxlan.MaxVNI }))
	each("unknown sender", packet.DropUnknownPeer, unknown, unknown.wrap(k4.udp(9)), unknown.wrap(v6.tcp(9)), nil, []byte{8})
	each("wrong VTEP", packet.DropVTEP, peer,
		peer.wrap(v4.udp(9), func(h *vxlan.Header) { h.Dst[5] ^= 1 }),
		peer.wrap(v4.udp(9), func(h *vxlan.Header) { h.Dst = vxlan.MAC{255, 255, 255, 255, 255, 255} }),
		peer.wrap(v4.udp(9), func(h *vxlan.Header) { h.Dst = h.Src }))
	each("source outside the sender's range", packet.DropPeerSource, peer,
		peer.wrap(k4.udp(9)), peer.wrap(k6.tcp(9)),
		peer.wrap(flow{lab.NodeAddr4(3).Addr(), to4}.udp(9)),  // another node's address
		peer.wrap(flow{host(lab.PodCIDR4(1), 2), to4}.tcp(9)), // one of our own pods
		peer.wrap(flow{netip.MustParseAddr("127.0.0.1"), to4}.udp(9)),
		peer.wrap(flow{netip.MustParseAddr("224.0.0.1"), to4}.udp(9)),
		peer.wrap(flow{netip.IPv4Unspecified(), to4}.udp(9)),
		peer.wrap(flow{netip.MustParseAddr("fe80::1"), to6}.udp(9)))
	reserved := func(at int, bits byte) []byte {
		b := peer.wrap(v4.udp(9))
		b[at] |= bits
		return b
	}
	noVNI := peer.wrap(v4.udp(9))
	noVNI[0] = 0
	each("reserved bits", packet.DropNotVXLAN, peer, noVNI,
		reserved(0, 0x80), reserved(0, 0x40), reserved(0, 0x04), reserved(0, 0x01), reserved(1, 0x10), reserved(1, 0x80),
		reserved(2, 1), reserved(3, 0xff), reserved(7, 1), reserved(7, 0x80), reserved(1, 0x20)) // RCO without a start
	each("neither IPv4 nor IPv6", packet.DropNotVXLAN, peer,
		peer.wrap(v4.udp(9), func(h *vxlan.Header) { h.Type = 0x0806 }), peer.wrap(v4.udp(9), func(h *vxlan.Header) { h.Type = 0x8100 }))
	each("the other family's Ethernet type", packet.DropMalformed, peer,
		peer.wrap(v4.udp(9), func(h *vxlan.Header) { h.Type = vxlan.EtherTypeIPv6 }),
		peer.wrap(v6.udp(9), func(h *vxlan.Header) { h.Type = vxlan.EtherTypeIPv4 }))

	rco := func(inner []byte, start uint8, udp bool) []byte {
		return peer.wrap(inner, func(h *vxlan.Header) { h.Remote = vxlan.RemoteChecksum{Start: start, UDP: udp} })
	}
	fragment := with(v4.udp(24), put16(6, 0x2000))
	each("checksum request that does not fit", packet.DropOffload, peer,
		rco(v4.udp(9), 14+20, false), rco(v4.tcp(9), 14+20, true), rco(v4.udp(9), 14+22, true), rco(v4.udp(9), 254, true),
		rco(v4.udp(9), 2, true), rco(v6.tcp(9), 14+20, false), rco(v4.echo(9), 14+20, true), rco(fragment, 14+20, true))
	each("checksum request of a kernel", packet.DropOffload, kernel,
		kernel.wrap(k4.udp(9), func(h *vxlan.Header) { h.Remote = vxlan.RemoteChecksum{Start: 14 + 20, UDP: true} }))

	each("transit", packet.DropTransit, peer,
		peer.wrap(flow{v4.src, host(lab.PodCIDR4(2), 2)}.udp(9)), peer.wrap(flow{v6.src, host(lab.PodCIDR6(2), 2)}.tcp(9)),
		peer.wrap(flow{v4.src, host(lab.PodCIDR4(4), 3)}.udp(9)), // back to the sender
		peer.wrap(flow{v4.src, host(lab.PodCIDR4(3), 3)}.echo(9)))
	each("no such pod", packet.DropNoPod, peer,
		peer.wrap(flow{v4.src, host(lab.PodCIDR4(1), 200)}.udp(9)), peer.wrap(flow{v6.src, host(lab.PodCIDR6(1), 200)}.tcp(9)))
	each("no route", packet.DropNoRoute, peer,
		peer.wrap(flow{v4.src, netip.MustParseAddr("203.0.113.1")}.udp(9)), peer.wrap(flow{v4.src, lab.NodeAddr4(9).Addr()}.tcp(9)))
	each("not to be forwarded", packet.DropScope, peer,
		peer.wrap(flow{v4.src, netip.MustParseAddr("224.0.0.1")}.udp(9)), peer.wrap(flow{v6.src, netip.MustParseAddr("ff02::1")}.udp(9)),
		peer.wrap(flow{v4.src, netip.MustParseAddr("255.255.255.255")}.udp(9)), peer.wrap(flow{v4.src, netip.MustParseAddr("127.0.0.1")}.udp(9)),
		peer.wrap(flow{v4.src, netip.MustParseAddr("169.254.1.1")}.udp(9)), peer.wrap(flow{v6.src, netip.MustParseAddr("::1")}.udp(9)))
	each("time to live used up", packet.DropTTL, peer,
		peer.wrap(with(v4.udp(9), put(8, 1))), peer.wrap(with(v6.udp(9), put(7, 1))),
		peer.wrap(with(v4.tcp(9), put(8, 0))), peer.wrap(with(v6.tcp(9), put(7, 0))))
	corrupt := flow{v4.src, host(lab.PodCIDR4(1), 1)}.tcp(9)
	corrupt[len(corrupt)-1] ^= 1
	each("wrong checksum, to the node", packet.DropChecksum, peer, peer.wrap(corrupt))
	whole := put16(6, 0x4000) // it may not be fragmented
	each("too big", packet.DropTooBig, peer,
		peer.wrap(with(v4.udp(1450-28+1), whole)), peer.wrap(v6.tcp(1500)), peer.wrap(with(v4.tcp(3000), whole)), peer.wrap(with(v4.echo(2000), whole)))
	each("too big, of a kernel, complete", packet.DropTooBig, kernel,
		kernel.wrap(with(k4.udp(1450-28+1), whole)), kernel.wrap(k6.tcp(3000)), kernel.wrap(with(k4.echo(2000), whole)))
	for _, broken := range brokenPackets(v4, v6) {
		each(broken.name, broken.want, peer, peer.wrap(broken.b, func(h *vxlan.Header) {
			h.Type = vxlan.EtherTypeIPv4
			if broken.b[0]>>4 == 6 {
				h.Type = vxlan.EtherTypeIPv6
			}
		}))
	}
	return kinds
}
