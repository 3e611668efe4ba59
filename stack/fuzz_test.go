package stack

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
)

// FuzzFromPod hands whatever a pod can send, from its own address and with a right header checksum, through the whole way: what
// is cut, answered, translated, or made to wait among it. Nothing may panic, no buffer may be lost, what leaves fits its way, and nothing
// leaves the cluster to what is inside or the node's own.
func FuzzFromPod(f *testing.F) {
	d := newBed(f, 1, func(c *Config) {
		c.Outside, c.TunnelPort, c.ClusterCIDRs = &checkedOutside{}, tunnelPort, clusterRanges
	})
	d.SetFrontAddrs([]netip.Addr{hostNode, hostNode6, loopback, loopback6})
	w, att := d.benchWorker()
	d.SetServices(randomServices())
	d.dns, d.answer = keysOf([]netip.Addr{dnsVIP, dnsVIP6}), quietServer{}
	out := &checkedQueue{}
	w.port = checkedPort{lossyPort{d.ports[0]}}
	for _, a := range d.tables.Load().attachments {
		a.queues[0] = out
	}
	udp := packettest.Packet{Src: podA, Dst: farPod, SrcPort: 9, DstPort: 7, ID: 1, Payload: make([]byte, 3000)}
	six := packettest.Packet{Src: podA6, Dst: podB6, SrcPort: 9, DstPort: 7, Payload: make([]byte, 3000)}
	tcp := packettest.Packet{Src: podA, Dst: podB, Proto: packet.TCP, Payload: make([]byte, 5000)}
	mayBeCut := func(frame []byte) []byte { mayFragment(frame[packet.VnetLen:]); return frame }
	f.Add(udp.Frame())                                                                                               // too big
	f.Add(mayBeCut(udp.Frame()))                                                                                     // fragmented
	f.Add(mayBeCut(udp.Super(1500)))                                                                                 // segments that are fragmented
	f.Add(mayBeCut(tcp.Super(2000)))                                                                                 // the same of TCP
	f.Add(six.Frame())                                                                                               // too big, IPv6
	f.Add(tcp.Super(1000))                                                                                           // passes whole
	f.Add(packettest.Packet{Src: podA, Dst: netip.MustParseAddr("10.244.1.77"), Proto: packet.ICMP, TTL: 1}.Frame()) // nobody
	for _, vip := range []netip.Addr{web, self, far, empty, dnsVIP, unallocated, netip.AddrFrom4([4]byte{10, 96, 1, 0})} {
		f.Add(packettest.Packet{Src: podA, Dst: vip, Proto: packet.TCP, SrcPort: 9, DstPort: 80, Flags: packet.SYN}.Frame())
		f.Add(packettest.Packet{Src: podA, Dst: vip, Proto: packet.ICMP, SrcPort: 9}.Frame())
		f.Add(packettest.Packet{Src: podA, Dst: vip, SrcPort: 9, DstPort: 53, Payload: make([]byte, 1300)}.Frame())
	}
	f.Add(packettest.Packet{Src: podA, Dst: server, Proto: packet.TCP, SrcPort: 9, DstPort: 80, Flags: packet.SYN}.Frame())
	f.Add(packettest.Packet{Src: podA, Dst: server, SrcPort: 9, DstPort: tunnelPort}.Frame())
	f.Add(packettest.Packet{Src: podA6, Dst: server6, SrcPort: 9, DstPort: 53, Payload: make([]byte, 5000)}.Super(1000))
	f.Add(about(podA, server, packettest.Packet{Src: server, Dst: podA, SrcPort: 53, DstPort: 9}.Frame()[packet.VnetLen:]))
	f.Add(packettest.Packet{Src: podA, Dst: hostNode, SrcPort: 9, DstPort: 30080}.Frame())
	f.Add(packettest.Packet{Src: podA, Dst: web, Proto: packet.SCTP, SrcPort: 9, DstPort: 80}.Frame())
	f.Add(packettest.Packet{Src: podA6, Dst: web6, SrcPort: 9, DstPort: 80}.Super(100))
	f.Add(about(podA, web, packettest.Packet{Src: web, Dst: podA, SrcPort: 80, DstPort: 9}.Frame()[packet.VnetLen:])) // an error
	for _, b := range packettest.Fragments(udp.Frame()[packet.VnetLen:], 1400, 0) {
		f.Add(append(make([]byte, packet.VnetLen), b...)) // pieces
	}
	for _, b := range packettest.Fragments(six.Frame()[packet.VnetLen:], 1400, 7) {
		f.Add(append(make([]byte, packet.VnetLen), b...))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) < packet.VnetLen+40 || len(frame) > 1<<16 {
			return
		}
		ip := frame[packet.VnetLen:]
		if ip[0]>>4 == 4 {
			copy(ip[12:], podA.AsSlice())
			if head := int(ip[0]&0xf) * 4; head >= 20 && head <= len(ip) {
				binary.BigEndian.PutUint16(ip[10:], 0)
				binary.BigEndian.PutUint16(ip[10:], ^packet.Checksum(ip[:head], 0))
			}
		} else {
			copy(ip[8:], podA6.AsSlice())
		}
		w.begin()
		b := w.pool.Get()
		b.SetFrame(copy(b.Space(), frame))
		w.fromPod(att, b)
		w.flush()
		if n := w.pool.Made(); n > 4 { // the packet, a segment, a fragment of it, an answer
			t.Fatalf("%d buffers were made: some are lost", n)
		}
	})
}

// checkedQueue panics if a packet is written that does not fit.
type checkedQueue struct {
	discard
	p packet.Parsed
}

func (q *checkedQueue) Write(frame []byte, _ [][]byte) error {
	o, err := packet.DecodeOffload(frame)
	if r := packet.Parse(frame[packet.VnetLen:], &q.p); err != nil || r != packet.Kept {
		panic(r.String())
	}
	mustFit(&q.p, o)
	return nil
}

// clusterRanges are the ranges of the plan's pods.
var clusterRanges = []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:10:244::/48")}

// checkedOutside panics if a packet leaves the cluster that must not.
type checkedOutside struct{}

func (*checkedOutside) Deliver(b []byte, p *packet.Parsed, o packet.Offload) {
	dst := p.Flow.Dst()
	inside := func(r netip.Prefix) bool { return r.Contains(dst) }
	switch {
	case slices.ContainsFunc(clusterRanges, inside), slices.ContainsFunc(serviceRanges, inside):
		panic("to the inside: " + p.Flow.String())
	case !dst.IsGlobalUnicast() || dst == hostNode || dst == hostNode6:
		panic("to the node: " + p.Flow.String())
	case p.Proto == packet.UDP && p.Flow.DstPort() == tunnelPort:
		panic("to the tunnel's port: " + p.Flow.String())
	case p.Proto != packet.TCP && p.Proto != packet.UDP && p.Proto != packet.ICMP && p.Proto != packet.ICMPv6:
		panic("no socket carries " + p.Flow.String())
	}
	if !o.NeedsChecksum && !packet.TransportChecksumOK(b, p) {
		panic("its checksum is wrong")
	}
	mustFit(p, o)
}

// checkedPort is checkedQueue toward peers.
type checkedPort struct{ lossyPort }

func (c checkedPort) Send(b *packet.Buffer, p *packet.Parsed, o packet.Offload, to netip.Addr) {
	mustFit(p, o)
	c.lossyPort.Send(b, p, o, to)
}

func mustFit(p *packet.Parsed, o packet.Offload) {
	n := p.Len
	if o.GSO != packet.GSONone {
		n = min(n, p.Payload+int(o.Size))
	}
	if n > testMTU {
		panic("a packet larger than its way takes")
	}
}
