package stack

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/middleway-net/middleway/stack/fib"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
	"github.com/middleway-net/middleway/stack/tun/tuntest"
)

// Addresses of the plan: the host's on its attachment, of its underlay, and one that only it knows.
var (
	hostZero  = netip.MustParseAddr("10.244.1.0")
	hostZero6 = netip.MustParseAddr("fd00:10:244:1::")
	hostNode  = netip.MustParseAddr("192.168.254.11")
	hostNode6 = netip.MustParseAddr("fd00:254::11")
	hostOther = netip.MustParseAddr("203.0.113.5")
	farHost   = netip.MustParseAddr("10.244.2.0")
	stranger  = netip.MustParseAddr("203.0.113.99")
)

// hostBed is a bed whose host is attached too.
type hostBed struct {
	*bed
	idHost uint32
}

func newHostBed(t testing.TB, workers int, change ...func(*Config)) *hostBed {
	t.Helper()
	d := &hostBed{bed: newBed(t, workers, change...)}
	d.host = device(t, workers)
	id, err := d.Attach(d.hostAttachment())
	if err != nil {
		t.Fatal(err)
	}
	d.idHost = id
	if err := d.SetHostAddrs([]netip.Addr{hostNode, hostNode6, hostOther}); err != nil {
		t.Fatal(err)
	}
	to := fib.Destination{Kind: fib.Peer, Peer: peer2, Host: true}
	if err := d.SetRoutes(append(peerRoutes,
		fib.Route{Prefix: netip.PrefixFrom(peer2, 32), Destination: to}, fib.Route{Prefix: netip.PrefixFrom(peer2b, 32), Destination: to},
	)); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *hostBed) hostAttachment() Attachment {
	a := Attachment{Name: "mw0", Host: true, Addrs: []netip.Addr{hostZero, hostZero6}, Device: d.host}
	for _, q := range d.host.Queues() {
		a.Queues = append(a.Queues, q)
	}
	return a
}

// TestHostVerdicts sends packets from and to the host and says where they come out, and as what.
func TestHostVerdicts(t *testing.T) {
	for _, tt := range []struct {
		name string
		from string // host, pod, peer
		packettest.Packet
		want string
		src  netip.Addr // of what comes out; default as sent
		ttl  byte       // of what comes out; default one less than sent
	}{
		{"host to pod", "host", packettest.Packet{Src: hostZero, Dst: podA}, "a", hostZero, 64},
		{"host to pod, from another address", "host", packettest.Packet{Src: hostNode, Dst: podA}, "a", hostNode, 64},
		{"host to far pod", "host", packettest.Packet{Src: hostZero, Dst: farPod}, "peer 192.168.254.12", hostZero, 64},
		{"host to far pod, from the node's address", "host", packettest.Packet{Src: hostNode, Dst: farPod}, "peer 192.168.254.12", hostZero, 64},
		{"host to far pod, from an address of its own", "host", packettest.Packet{Src: hostOther, Dst: farPod, Proto: packet.TCP, Flags: packet.SYN}, "peer 192.168.254.12", hostZero, 64},
		{"host to far pod over IPv6", "host", packettest.Packet{Src: hostNode6, Dst: farPod6}, "peer 192.168.254.12", hostZero6, 64},
		{"host pings far pod", "host", packettest.Packet{Src: hostNode, Dst: farPod, Proto: packet.ICMP, SrcPort: 7}, "peer 192.168.254.12", hostZero, 64},
		{"host, protocol without ports", "host", packettest.Packet{Src: hostNode, Dst: farPod, Proto: 50}, "peer 192.168.254.12", hostZero, 64},
		{"host, SCTP", "host", packettest.Packet{Src: hostNode, Dst: farPod, Proto: packet.SCTP, SrcPort: 5, DstPort: 6, Payload: make([]byte, 8)}, "peer 192.168.254.12", hostZero, 64},
		{"host to far host", "host", packettest.Packet{Src: hostNode, Dst: farHost}, "peer 192.168.254.12", hostZero, 64},
		{"host to gateway", "host", packettest.Packet{Src: hostZero, Dst: gateway}, "node", hostZero, 64},
		{"host with its last TTL", "host", packettest.Packet{Src: hostZero, Dst: podA, TTL: 1}, "a", hostZero, 1},
		{"host with a stranger's source", "host", packettest.Packet{Src: stranger, Dst: podA}, "source", stranger, 0},
		{"host with a pod's source", "host", packettest.Packet{Src: podB, Dst: podA}, "source", podB, 0},
		{"host to nobody", "host", packettest.Packet{Src: hostZero, Dst: stranger}, "no-route", hostZero, 0},
		{"a peer's plain packet to a pod", "host", packettest.Packet{Src: farPod, Dst: podA}, "a", farPod, 63},
		{"a peer's host's plain packet to a pod", "host", packettest.Packet{Src: peer2, Dst: podA}, "a", peer2, 63},
		{"a peer's plain packet to another peer", "host", packettest.Packet{Src: farPod, Dst: netip.MustParseAddr("10.244.3.2")}, "transit", farPod, 0},
		{"pod to the node's address", "pod", packettest.Packet{Src: podA, Dst: hostNode}, "host", podA, 64},
		{"pod to another address of the host", "pod", packettest.Packet{Src: podA, Dst: hostOther}, "host", podA, 64},
		{"pod to .0", "pod", packettest.Packet{Src: podA, Dst: hostZero, TTL: 1}, "host", podA, 1},
		{"pod to the node over IPv6", "pod", packettest.Packet{Src: podA6, Dst: hostNode6}, "host", podA6, 64},
		{"pod to a far node", "pod", packettest.Packet{Src: podA, Dst: peer2}, "peer 192.168.254.12", podA, 63},
		{"pod to a far .0", "pod", packettest.Packet{Src: podA, Dst: farHost}, "peer 192.168.254.12", podA, 63},
		{"pod with the host's source", "pod", packettest.Packet{Src: hostNode, Dst: podB}, "source", hostNode, 0},
		{"peer to the node's address", "peer", packettest.Packet{Src: farPod, Dst: hostNode}, "host", farPod, 64},
		{"peer to .0", "peer", packettest.Packet{Src: farHost, Dst: hostZero}, "host", farHost, 64},
		{"peer's .0 to a pod", "peer", packettest.Packet{Src: farHost, Dst: podA}, "a", farHost, 63},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newHostBed(t, 1)
			d.run(t)
			for range 2 { // the second packet is decided by the flow cache
				map[string]*tuntest.Device{"host": d.host, "pod": d.a, "peer": d.wire}[tt.from].Inject(0, tt.Frame())
				got := d.outcome(t)
				if got.where != tt.want {
					t.Fatalf("got %s, want %s", got.where, tt.want)
				}
				if got.packet == nil {
					continue
				}
				want := tt.Packet
				want.Src, want.TTL = tt.src, tt.ttl
				if w := want.Frame()[packet.VnetLen:]; !bytes.Equal(got.packet, w) {
					t.Errorf("got  %x\nwant %x", got.packet, w)
				}
			}
		})
	}
}

// TestHostConversation: what the host sends from another address comes back to that address, and what it answers to others
// keeps the address that was asked.
func TestHostConversation(t *testing.T) {
	d := newHostBed(t, 1)
	d.run(t)
	step := func(what string, dev *tuntest.Device, sent, want packettest.Packet, where string) {
		t.Helper()
		dev.Inject(0, sent.Frame())
		got := d.outcome(t)
		if w := want.Frame()[packet.VnetLen:]; got.where != where || !bytes.Equal(got.packet, w) {
			t.Fatalf("%s: got %s %x\nwant %s %x", what, got.where, got.packet, where, w)
		}
	}
	p := func(src netip.Addr, sport uint16, dst netip.Addr, dport uint16) packettest.Packet {
		return packettest.Packet{Src: src, SrcPort: sport, Dst: dst, DstPort: dport}
	}
	const far = "peer 192.168.254.12"
	step("asks", d.host, p(hostNode, 4000, farPod, 53), p(hostZero, 4000, farPod, 53), far)
	step("is answered", d.wire, p(farPod, 53, hostZero, 4000), p(farPod, 53, hostNode, 4000), "host")
	step("is asked at the node's address", d.wire, p(farPod, 9, hostNode, 80), p(farPod, 9, hostNode, 80), "host")
	step("answers from there", d.host, p(hostNode, 80, farPod, 9), p(hostNode, 80, farPod, 9), far)
	if err := d.SetRoutes(append(peerRoutes, fib.Route{Prefix: netip.PrefixFrom(peer2, 32), Destination: fib.Destination{Kind: fib.Peer, Peer: peer2}})); err != nil {
		t.Fatal(err)
	}
	step("asks again, by new tables", d.host, p(hostNode, 4000, farPod, 53), p(hostZero, 4000, farPod, 53), far)
	step("is answered, by new tables", d.wire, p(farPod, 53, hostZero, 4000), p(farPod, 53, hostNode, 4000), "host")
	// The port is taken for 4000 at the same far port, from whatever other address.
	d.host.Inject(0, p(hostOther, 4000, farPod, 53).Frame())
	got := d.outcome(t)
	var q packet.Parsed
	if packet.Parse(got.packet, &q); got.where != far || q.Flow.Src() != hostZero || q.Flow.SrcPort() == 4000 || !packet.TransportChecksumOK(got.packet, &q) {
		t.Fatalf("got %s %v", got.where, q.Flow)
	}
	port := q.Flow.SrcPort()
	step("the third is answered", d.wire, p(farPod, 53, hostZero, port), p(farPod, 53, hostOther, 4000), "host")
	// Protocols without ports cannot be told apart by another one.
	esp := packettest.Packet{Src: hostNode, Dst: farPod, Proto: 50}
	left := esp
	left.Src = hostZero
	step("a protocol without ports", d.host, esp, left, far)
	esp.Src = hostOther
	d.host.Inject(0, esp.Frame())
	if got := d.outcome(t); got.where != "translate" {
		t.Errorf("a second one: got %s, want translate", got.where)
	}
}

// icmpAbout returns an ICMP port unreachable about a packet, quoted whole.
func icmpAbout(src, dst netip.Addr, about []byte) []byte {
	b := append([]byte{3, 3, 0, 0, 0, 0, 0, 0}, about...)
	binary.BigEndian.PutUint16(b[2:], ^packet.Checksum(b, 0))
	ip := []byte{0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 1, 0, 0}
	ip = append(append(ip, src.AsSlice()...), dst.AsSlice()...)
	binary.BigEndian.PutUint16(ip[2:], uint16(20+len(b)))
	binary.BigEndian.PutUint16(ip[10:], ^packet.Checksum(ip, 0))
	return append(make([]byte, packet.VnetLen), append(ip, b...)...)
}

// TestHostErrors: an error about a translated packet quotes what its receiver sent, in both directions, and a router in the
// middle keeps its address.
func TestHostErrors(t *testing.T) {
	router := netip.MustParseAddr("10.244.2.77")
	asked := packettest.Packet{Src: hostNode, SrcPort: 4000, Dst: farPod, DstPort: 53, Payload: []byte("question")}
	left := asked
	left.Src = hostZero
	answer := packettest.Packet{Src: farPod, SrcPort: 53, Dst: hostZero, DstPort: 4000, Payload: []byte("answer")}
	arrived := answer
	arrived.Dst = hostNode
	ip := func(p packettest.Packet) []byte { return p.Frame()[packet.VnetLen:] }
	for _, tt := range []struct {
		name       string
		toHost     bool
		sent, want []byte
	}{
		{"the far pod refuses", true, icmpAbout(farPod, hostZero, ip(left)), icmpAbout(farPod, hostNode, ip(asked))},
		{"a router on the way", true, icmpAbout(router, hostZero, ip(left)), icmpAbout(router, hostNode, ip(asked))},
		{"the host refuses the answer", false, icmpAbout(hostNode, farPod, ip(arrived)), icmpAbout(hostZero, farPod, ip(answer))},
		{"about a flow that nobody translates", true, icmpAbout(farPod, hostNode, ip(asked)), icmpAbout(farPod, hostNode, ip(asked))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newHostBed(t, 1)
			d.run(t)
			d.host.Inject(0, asked.Frame())
			if got := d.outcome(t); !bytes.Equal(got.packet, ip(left)) {
				t.Fatalf("the packet leaves as %s %x", got.where, got.packet)
			}
			dev, where := d.host, "peer 192.168.254.12"
			if tt.toHost {
				dev, where = d.wire, "host"
			}
			dev.Inject(0, tt.sent)
			got := d.outcome(t)
			if want := tt.want[packet.VnetLen:]; got.where != where || !bytes.Equal(got.packet, want) {
				t.Errorf("got  %s %x\nwant %s %x", got.where, got.packet, where, want)
			}
		})
	}
}

// TestHostTrain: packets of a flow that is translated are merged as others are.
func TestHostTrain(t *testing.T) {
	d := newHostBed(t, 1)
	out := packettest.Packet{Src: hostNode, SrcPort: 4000, Dst: farPod, DstPort: 80, Proto: packet.TCP, Flags: packet.SYN}
	d.run(t)
	d.host.Inject(0, out.Frame())
	d.outcome(t)
	const n, size = 8, 100
	if err := d.workers[0].call(func() error { // all of them in one batch
		for i := range n {
			d.wire.Inject(0, packettest.Packet{
				Src: farPod, SrcPort: 80, Dst: hostZero, DstPort: 4000, Proto: packet.TCP, Flags: packet.ACK,
				ID: uint16(i), Seq: uint32(1000 + i*size), Payload: bytes.Repeat([]byte{byte(i)}, size),
			}.Frame())
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	var frames [][]byte
	eventually(t, "all packets come out", func() bool {
		for _, w := range d.host.Written() {
			frames = append(frames, w.Frame)
		}
		got := 0
		for _, f := range frames {
			got += len(packettest.Split(f))
		}
		return got == n
	})
	if len(frames) != 1 {
		t.Errorf("%d frames, want one super-packet", len(frames))
	}
	for i, b := range packettest.Split(frames[0]) {
		want := packettest.Packet{
			Src: farPod, SrcPort: 80, Dst: hostNode, DstPort: 4000, Proto: packet.TCP, Flags: packet.ACK,
			ID: uint16(i), Seq: uint32(1000 + i*size), Payload: bytes.Repeat([]byte{byte(i)}, size),
		}.Frame()[packet.VnetLen:]
		if !bytes.Equal(b, want) {
			t.Fatalf("packet %d:\ngot  %x\nwant %x", i, b, want)
		}
	}
}

// TestHostRandomWorker hands every packet of translated flows, whose ports collide, to a random one of four workers, in both
// directions. Each flow must leave as one at all of them, no two as the same, and every answer must find its asker.
func TestHostRandomWorker(t *testing.T) {
	const workers, ports, rounds = 4, 30, 16
	d := newHostBed(t, workers)
	d.run(t)
	sources := []netip.Addr{hostZero, hostNode, hostOther}
	type asker struct {
		src  netip.Addr
		port uint16
	}
	leaves := map[asker]uint16{} // as which port of .0
	for round := range rounds {
		for i := range ports * len(sources) {
			a := asker{sources[i%len(sources)], uint16(5000 + i/len(sources))}
			question := binary.BigEndian.AppendUint16(nil, uint16(round))
			d.host.Inject(rand.IntN(workers), packettest.Packet{Src: a.src, SrcPort: a.port, Dst: farPod, DstPort: 53, Payload: question}.Frame())
			got := d.outcome(t)
			var p packet.Parsed
			if packet.Parse(got.packet, &p); !strings.HasPrefix(got.where, "peer") || p.Flow.Src() != hostZero || !packet.TransportChecksumOK(got.packet, &p) {
				t.Fatalf("round %d, %v: %s %v", round, a, got.where, p.Flow)
			}
			if was, ok := leaves[a]; ok && was != p.Flow.SrcPort() {
				t.Fatalf("round %d, %v left from port %d, and now %d", round, a, was, p.Flow.SrcPort())
			}
			leaves[a] = p.Flow.SrcPort()
			d.wire.Inject(rand.IntN(workers), packettest.Packet{Src: farPod, SrcPort: 53, Dst: hostZero, DstPort: leaves[a], Payload: question}.Frame())
			want := packettest.Packet{Src: farPod, SrcPort: 53, Dst: a.src, DstPort: a.port, Payload: question}.Frame()[packet.VnetLen:]
			if got := d.outcome(t); got.where != "host" || !bytes.Equal(got.packet, want) {
				t.Fatalf("round %d, %v: the answer came as %s %x, want %x", round, a, got.where, got.packet, want)
			}
		}
		if round == rounds/2 { // every flow is judged again
			if err := d.SetHostAddrs([]netip.Addr{hostOther, hostNode}); err != nil {
				t.Fatal(err)
			}
		}
	}
	taken := map[uint16]bool{}
	for a, port := range leaves {
		if taken[port] {
			t.Errorf("%v leaves from port %d as another one does", a, port)
		}
		taken[port] = true
	}
	if got, want := d.Stats().Flows, 2*len(leaves); got != want {
		t.Errorf("%d directions of flows, want %d", got, want)
	}
}

func TestSetHostAddrs(t *testing.T) {
	d := newHostBed(t, 1)
	d.run(t)
	generation := d.tables.Load().generation
	if err := d.SetHostAddrs([]netip.Addr{hostNode, hostNode6, hostOther}); err != nil || d.tables.Load().generation != generation {
		t.Errorf("%v: the same addresses made new tables", err)
	}
	if err := d.SetHostAddrs([]netip.Addr{hostNode, podA, gateway}); err != nil {
		t.Fatal(err)
	}
	for dst, want := range map[netip.Addr]string{hostOther: "no-route", hostNode: "host", podA: "a", gateway: "node"} {
		d.b.Inject(0, packettest.Packet{Src: podB, Dst: dst}.Frame())
		if got := d.outcome(t); got.where != want {
			t.Errorf("to %v: got %s, want %s", dst, got.where, want)
		}
	}
	if _, err := d.Attach(Attachment{Name: "mw1", Host: true, Addrs: []netip.Addr{hostOther}, Queues: []Queue{discard{}}}); err == nil || !strings.Contains(err.Error(), "mw0") {
		t.Errorf("a second host: %v", err)
	}
	if _, err := d.Attach(Attachment{Name: "c", Addrs: []netip.Addr{hostNode}, Queues: []Queue{discard{}}}); err == nil || !strings.Contains(err.Error(), "belongs to mw0") {
		t.Errorf("a pod with the host's address: %v", err)
	}
	if err := d.Detach(d.idHost); err != nil {
		t.Fatal(err)
	}
	d.b.Inject(0, packettest.Packet{Src: podB, Dst: hostNode}.Frame())
	if got := d.outcome(t); got.where != "no-route" {
		t.Errorf("without a host: got %s, want no-route", got.where)
	}
}

// TestHostNoAllocs: no packet of the host allocates, translated or not, new or known.
func TestHostNoAllocs(t *testing.T) {
	d := newHostBed(t, 1)
	d.tally.blind = true
	w := d.workers[0]
	host := d.tables.Load().host
	host.queues[0] = discard{}
	port := uint16(0)
	for _, tt := range []struct {
		name string
		packettest.Packet
		fresh bool // each packet opens a flow
	}{
		{"translated", packettest.Packet{Src: hostNode, Dst: farPod, SrcPort: 1, Proto: packet.TCP, Flags: packet.ACK}, false},
		{"new flow", packettest.Packet{Src: hostOther, Dst: farPod, SrcPort: 2}, true},
		{"plain packet of a peer", packettest.Packet{Src: farPod, Dst: hostNode}, false},
		{"stranger", packettest.Packet{Src: stranger, Dst: podA}, false},
	} {
		frame := tt.Frame()
		fake := d.ports[0]
		got := testing.AllocsPerRun(1000, func() {
			if tt.fresh {
				port++
				binary.BigEndian.PutUint16(frame[packet.VnetLen+20:], port)
			}
			w.begin()
			b := w.pool.Get()
			b.SetFrame(copy(b.Space(), frame))
			w.port = nil // the fake one keeps what it sends
			w.fromPod(host, b)
			w.port = fake
		})
		if got != 0 {
			t.Errorf("%s: %v allocations a packet", tt.name, got)
		}
	}
	about := icmpAbout(farPod, hostZero, packettest.Packet{Src: hostZero, SrcPort: 1, Dst: farPod, Proto: packet.TCP}.Frame()[packet.VnetLen:])
	var p packet.Parsed
	if got := testing.AllocsPerRun(1000, func() {
		w.begin()
		packet.Parse(about[packet.VnetLen:], &p)
		w.fromPeer(about, &p, packet.Offload{})
		w.flushTrain()
	}); got != 0 {
		t.Errorf("an error: %v allocations", got)
	}
}
