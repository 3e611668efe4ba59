package stack

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
)

// TestVerdicts sends one packet each way that a packet can go and says where it comes out.
func TestVerdicts(t *testing.T) {
	const fromPod, fromPeer = "pod", "peer"
	for _, tt := range []struct {
		name string
		from string
		packettest.Packet
		want string // b, a, peer ADDR, node, or the drop's reason
	}{
		{"pod to pod", fromPod, packettest.Packet{Src: podA, Dst: podB}, "b"},
		{"pod to pod IPv6", fromPod, packettest.Packet{Src: podA6, Dst: podB6}, "b"},
		{"pod to pod TCP", fromPod, packettest.Packet{Src: podA, Dst: podB, Proto: packet.TCP, Flags: packet.SYN}, "b"},
		{"pod to pod ICMP", fromPod, packettest.Packet{Src: podA, Dst: podB, Proto: packet.ICMP, SrcPort: 9}, "b"},
		{"pod to pod, protocol without ports", fromPod, packettest.Packet{Src: podA, Dst: podB, Proto: 50}, "b"},
		{"pod to pod SCTP", fromPod, packettest.Packet{Src: podA6, Dst: podB6, Proto: packet.SCTP, SrcPort: 7, DstPort: 9, Payload: make([]byte, 12)}, "b"},
		{"pod to far pod, protocol without ports", fromPod, packettest.Packet{Src: podA6, Dst: farPod6, Proto: 253}, "peer 192.168.254.12"},
		{"pod to itself", fromPod, packettest.Packet{Src: podA, Dst: podA}, "a"},
		{"pod to far pod", fromPod, packettest.Packet{Src: podA, Dst: farPod}, "peer 192.168.254.12"},
		{"pod to gateway", fromPod, packettest.Packet{Src: podA, Dst: gateway}, "node"},
		{"pod to nobody", fromPod, packettest.Packet{Src: podA, Dst: netip.MustParseAddr("203.0.113.1")}, "no-route"},
		{"pod with another's source", fromPod, packettest.Packet{Src: podB, Dst: podB}, "source"},
		{"pod with a far source", fromPod, packettest.Packet{Src: farPod, Dst: podB}, "source"},
		{"pod to multicast", fromPod, packettest.Packet{Src: podA, Dst: netip.MustParseAddr("224.0.0.1")}, "scope"},
		{"pod to loopback", fromPod, packettest.Packet{Src: podA, Dst: netip.MustParseAddr("127.0.0.1")}, "scope"},
		{"pod from link-local", fromPod, packettest.Packet{Src: netip.MustParseAddr("fe80::1"), Dst: podB6}, "scope"},
		{"TTL used up", fromPod, packettest.Packet{Src: podA, Dst: podB, TTL: 1}, "ttl"},
		{"TTL used up, to the node", fromPod, packettest.Packet{Src: podA, Dst: gateway, TTL: 1}, "node"},
		{"TTL used up, to far pod", fromPod, packettest.Packet{Src: podA, Dst: farPod, TTL: 1}, "ttl"},
		{"peer to pod", fromPeer, packettest.Packet{Src: farPod, Dst: podA}, "a"},
		{"peer to gateway", fromPeer, packettest.Packet{Src: farPod, Dst: gateway}, "node"},
		{"peer to another peer", fromPeer, packettest.Packet{Src: farPod, Dst: netip.MustParseAddr("10.244.3.2")}, "transit"},
		{"peer to nobody", fromPeer, packettest.Packet{Src: farPod, Dst: netip.MustParseAddr("203.0.113.1")}, "no-route"},
		{"peer, TTL used up", fromPeer, packettest.Packet{Src: farPod, Dst: podA, TTL: 1}, "ttl"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newBed(t, 1)
			d.run(t)
			frame := tt.Frame()
			// Twice: the second packet is decided by the flow cache.
			for range 2 {
				if tt.from == fromPod {
					d.a.Inject(0, frame)
				} else {
					d.wire.Inject(0, frame)
				}
				got := d.outcome(t)
				if got.where != tt.want {
					t.Fatalf("got %s, want %s", got.where, tt.want)
				}
				if got.packet != nil {
					checkForwarded(t, frame[packet.VnetLen:], got.packet, tt.want == "node")
				}
			}
		})
	}
}

type outcome struct {
	where  string
	packet []byte
}

// outcome waits for the one packet under way and says where it went.
func (d *bed) outcome(t *testing.T) (o outcome) {
	t.Helper()
	eventually(t, "the packet comes out or is dropped", func() bool {
		for _, got := range d.arrived() {
			if isOurError(got.packet) {
				d.errors = append(d.errors, answered(got))
			} else {
				o = got
			}
		}
		d.node.mu.Lock()
		if len(d.node.got) > 0 {
			o = outcome{"node", d.node.got[0]}
			d.node.got = nil
		}
		d.node.mu.Unlock()
		for _, b := range d.leftOutside() {
			o = outcome{"outside", b}
		}
		for reason, n := range d.Stats().Drops {
			if n > d.dropped[reason] {
				d.dropped[reason] = n
				o = outcome{where: reason}
			}
		}
		return o.where != ""
	})
	return o
}

// leftOutside returns what left the cluster since the last call.
func (d *bed) leftOutside() (all [][]byte) {
	if d.out == nil {
		return nil
	}
	d.out.mu.Lock()
	defer d.out.mu.Unlock()
	all, d.out.got = d.out.got, nil
	return all
}

// arrived returns what came out since the last call, at pods and toward peers.
func (d *bed) arrived() (all []outcome) {
	for _, w := range d.a.Written() {
		all = append(all, outcome{"a", w.Frame[packet.VnetLen:]})
	}
	for _, w := range d.b.Written() {
		all = append(all, outcome{"b", w.Frame[packet.VnetLen:]})
	}
	if d.host != nil {
		for _, w := range d.host.Written() {
			all = append(all, outcome{"host", w.Frame[packet.VnetLen:]})
		}
	}
	for _, s := range d.sentTo() {
		all = append(all, outcome{"peer " + s.peer.String(), s.packet})
	}
	return all
}

// checkForwarded: a forwarded packet differs from what was sent by its TTL and header checksum, and still parses.
func checkForwarded(t *testing.T, sent, got []byte, local bool) {
	t.Helper()
	var p packet.Parsed
	if r := packet.Parse(got, &p); r != packet.Kept {
		t.Fatalf("forwarded packet does not parse: %v", r)
	}
	want := bytes.Clone(sent)
	if !local {
		var w packet.Parsed
		packet.Parse(want, &w)
		packet.DecrementTTL(want, &w)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("forwarded packet (-want +got):\n%s", diff)
	}
	if !packet.TransportChecksumOK(got, &p) {
		t.Error("checksum of the forwarded packet is wrong")
	}
}

// TestMalformedFromPod: what a pod's device may hand over and must not get further.
func TestMalformedFromPod(t *testing.T) {
	good := packettest.Packet{Src: podA, Dst: podB, Payload: []byte("hello")}.Frame()
	edit := func(f func(b []byte) []byte) []byte { return f(bytes.Clone(good)) }
	for _, tt := range []struct {
		name  string
		frame []byte
		want  string
	}{
		{"only a vnet header", good[:packet.VnetLen], "malformed"},
		{"half a vnet header", good[:4], "malformed"},
		{"half an IP header", good[:packet.VnetLen+12], "malformed"},
		{"version 5", edit(func(b []byte) []byte { b[packet.VnetLen] = 0x55; return b }), "malformed"},
		{"header checksum", edit(func(b []byte) []byte { b[packet.VnetLen+10] ^= 1; return b }), "checksum"},
		{"unknown GSO type", edit(func(b []byte) []byte { b[1] = 3; binary.NativeEndian.PutUint16(b[4:], 100); return b }), "offload"},
		{"checksum outside", edit(func(b []byte) []byte {
			packet.Offload{NeedsChecksum: true, ChecksumStart: 20, ChecksumOffset: 400}.Encode(b)
			return b
		}), "offload"},
		{"TCP super-packet that is UDP", edit(func(b []byte) []byte {
			packet.Offload{NeedsChecksum: true, ChecksumStart: 20, ChecksumOffset: 6, GSO: packet.GSOTCP4, Size: 2}.Encode(b)
			return b
		}), "offload"},
		{"a segment a byte", packettest.Packet{Src: podA, Dst: podB, Proto: packet.TCP, Payload: make([]byte, 2000)}.Super(1), "offload"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newBed(t, 1)
			d.run(t)
			d.a.Inject(0, tt.frame)
			eventually(t, "the packet is dropped", func() bool { return len(d.Stats().Drops) > 0 })
			if diff := cmp.Diff(map[string]uint64{tt.want: 1}, d.Stats().Drops); diff != "" {
				t.Errorf("drops (-want +got):\n%s", diff)
			}
			if w := d.b.Written(); len(w) != 0 {
				t.Errorf("reached the other pod: %x", w[0].Frame)
			}
			d.a.Inject(0, good)
			eventually(t, "a good packet passes afterwards", func() bool { return len(d.b.Written()) == 1 })
		})
	}
}

// TestTrain: packets of one flow that a peer sent come out as one super-packet; one with a wrong checksum stays alone.
func TestTrain(t *testing.T) {
	d := newBed(t, 1)
	const n, size = 10, 100
	var want []byte
	for i := range n {
		payload := bytes.Repeat([]byte{byte(i)}, size)
		want = append(want, payload...)
		f := packettest.Packet{
			Src: farPod, Dst: podA, Proto: packet.TCP, Flags: packet.ACK, SrcPort: 80, DstPort: 4000,
			ID: uint16(i), Seq: uint32(1000 + i*size), Payload: payload,
		}.Frame()
		d.wire.Inject(0, f)
	}
	bad := packettest.Packet{Src: farPod, Dst: podA, Proto: packet.TCP, Flags: packet.ACK, SrcPort: 80, DstPort: 4000, ID: n, Seq: 1000 + n*size, Payload: make([]byte, size)}.Frame()
	bad[len(bad)-1] ^= 1
	d.wire.Inject(0, bad)
	d.run(t)
	var got [][]byte
	eventually(t, "two frames are written", func() bool {
		for _, w := range d.a.Written() {
			got = append(got, w.Frame)
		}
		return len(got) == 2
	})
	o, err := packet.DecodeOffload(got[0])
	if err != nil || o.GSO != packet.GSOTCP4 || o.Size != size || !o.NeedsChecksum {
		t.Errorf("offload of the train: %+v, %v", o, err)
	}
	if !bytes.HasSuffix(got[0], want) {
		t.Error("payload of the train is not what was sent")
	}
	if o, _ := packet.DecodeOffload(got[1]); o != (packet.Offload{}) {
		t.Errorf("the packet with a wrong checksum is marked %+v: nobody would verify it", o)
	}
}

// TestRandomWorker hands every packet of many flows, in both directions, to a random one of four workers. None may be lost
// or go astray, and a packet may be overtaken only by packets that were under way at the same time.
func TestRandomWorker(t *testing.T) {
	const workers, flows, perFlow, window = 4, 50, 200, 32
	d := newBed(t, workers)
	d.run(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	directions := []struct {
		src, dst netip.Addr
		inject   func(queue int, frame []byte)
		out      string
	}{
		{podA, podB, d.a.Inject, "b"}, {podB, podA, d.b.Inject, "a"},
		{podA, farPod, d.a.Inject, "peer"}, {farPod, podA, d.wire.Inject, "a"},
		{podA6, podB6, d.a.Inject, "b"}, {podB6, podA6, d.b.Inject, "a"},
	}
	seen := map[packet.Flow]map[uint32]bool{}
	highest := map[packet.Flow]uint32{}
	total := 0
	take := func(where string, b []byte) {
		var p packet.Parsed
		if r := packet.Parse(b, &p); r != packet.Kept {
			t.Fatalf("packet at %s does not parse: %v", where, r)
		}
		i := p.Flow.SrcPort() // names the direction, see below
		if want := directions[i/1000].out; where != want {
			t.Fatalf("%v came out at %s, want %s", p.Flow, where, want)
		}
		seq := binary.BigEndian.Uint32(b[p.Payload:])
		if seen[p.Flow] == nil {
			seen[p.Flow] = map[uint32]bool{}
		}
		if seen[p.Flow][seq] {
			t.Fatalf("%v number %d came twice", p.Flow, seq)
		}
		seen[p.Flow][seq] = true
		if h := highest[p.Flow]; seq+window < h {
			t.Fatalf("%v number %d came after %d: overtaken by more than what was under way", p.Flow, seq, h)
		}
		highest[p.Flow] = max(highest[p.Flow], seq)
		total++
	}
	collect := func() {
		for _, w := range d.a.Written() {
			for _, b := range packettest.Split(w.Frame) {
				take("a", b)
			}
		}
		for _, w := range d.b.Written() {
			for _, b := range packettest.Split(w.Frame) {
				take("b", b)
			}
		}
		for _, s := range d.sentTo() {
			if s.peer != peer2 {
				t.Fatalf("sent to peer %v, want %v", s.peer, peer2)
			}
			take("peer", s.packet)
		}
	}
	sent := 0
	for n := range perFlow {
		for f := range flows {
			dir := f % len(directions)
			s := packettest.Packet{Src: directions[dir].src, Dst: directions[dir].dst, SrcPort: uint16(dir*1000 + f), DstPort: 7}
			s.Payload = binary.BigEndian.AppendUint32(nil, uint32(n))
			directions[dir].inject(rnd.IntN(workers), s.Frame())
			if sent++; sent-total >= window {
				eventually(t, "the window moves", func() bool { collect(); return sent-total < window })
			}
		}
		if n == perFlow/2 { // new tables in the middle: every flow is judged again
			if err := d.SetRoutes(peerRoutes); err != nil {
				t.Fatal(err)
			}
		}
	}
	eventually(t, "all packets come out", func() bool { collect(); return total == sent })
	if drops := d.Stats().Drops; len(drops) != 0 {
		t.Errorf("drops: %v", drops)
	}
	if got, want := d.Stats().Flows, 2*flows; got != want {
		t.Errorf("got %d directions of flows, want %d", got, want)
	}
}

// TestDetach: after Detach returned nothing reaches the device, its addresses have no route, and another pod can have them.
func TestDetach(t *testing.T) {
	d := newBed(t, 2)
	d.run(t)
	frame := packettest.Packet{Src: podB, Dst: podA, Payload: []byte("x")}.Frame()
	d.b.Inject(0, frame)
	eventually(t, "the packet comes out at a", func() bool { return len(d.a.Written()) == 1 })
	if err := d.Detach(d.idA); err != nil {
		t.Fatal(err)
	}
	if err := d.Detach(d.idA); err == nil {
		t.Error("a second Detach is no error")
	}
	d.b.Inject(1, frame)
	eventually(t, "the packet is dropped", func() bool { return d.Stats().Drops["no-pod"] == 1 })
	c := device(t, 2)
	d.attach(t, "c", c, podA)
	d.b.Inject(0, frame)
	eventually(t, "the packet comes out at c", func() bool { return len(c.Written()) == 1 })
	if len(d.a.Written()) != 0 {
		t.Error("something reached a detached device")
	}
}

func TestAttachErrors(t *testing.T) {
	d := newBed(t, 1)
	q := []Queue{device(t, 1).Queues()[0]}
	for _, tt := range []struct {
		name string
		a    Attachment
		want string
	}{
		{"address of another pod", Attachment{Name: "c", Addrs: []netip.Addr{podA}, Queues: q}, "belongs to a"},
		{"address of the node", Attachment{Name: "c", Addrs: []netip.Addr{gateway}, Queues: q}, "belongs to the node"},
		{"no address", Attachment{Name: "c", Queues: q}, "at least one address"},
		{"no device", Attachment{Name: "c", Addrs: []netip.Addr{farPod}}, "a device"},
	} {
		if _, err := d.Attach(tt.a); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", tt.name, err, tt.want)
		}
	}
}

// TestInject: packets of the node itself reach pods and peers, with their TTL and offload as they are.
func TestInject(t *testing.T) {
	d := newBed(t, 1)
	d.run(t)
	frame := packettest.Packet{Src: gateway, Dst: podA, Payload: []byte("from the node"), TTL: 1}.Frame()
	b := frame[packet.VnetLen:]
	d.Inject(packet.Offload{}, b[:20], b[20:30], b[30:])
	if got := d.outcome(t); got.where != "a" || !bytes.Equal(got.packet, b) {
		t.Errorf("got %s %x, want a %x", got.where, got.packet, b)
	}
	far := packettest.Packet{Src: gateway, Dst: farPod}.Frame()[packet.VnetLen:]
	d.Inject(packet.Offload{}, far)
	if got := d.outcome(t); got.where != "peer 192.168.254.12" || !bytes.Equal(got.packet, far) {
		t.Errorf("got %s %x, want the peer, %x", got.where, got.packet, far)
	}
	d.Inject(packet.Offload{}, make([]byte, packet.MaxSize), make([]byte, 1))
	if got := d.outcome(t); got.where != "too-big" {
		t.Errorf("got %s, want too-big", got.where)
	}
}

// TestNoAllocs: no packet on its way allocates.
func TestNoAllocs(t *testing.T) {
	d := newBed(t, 1)
	d.tally.blind = true
	w := d.workers[0]
	att := d.tables.Load().attachments[d.idA]
	for name, s := range map[string]packettest.Packet{
		"to a pod":  {Src: podA, Dst: podB, Proto: packet.TCP, Flags: packet.ACK, Payload: make([]byte, 1000)},
		"dropped":   {Src: podA, Dst: netip.MustParseAddr("203.0.113.1")},
		"malformed": {Src: podB, Dst: podA},
		"answered":  {Src: podA, Dst: podB, TTL: 1},
	} {
		frame := s.Frame()
		att.queues[0] = discard{}
		d.tables.Load().attachments[1].queues[0] = discard{}
		got := testing.AllocsPerRun(1000, func() {
			w.begin()
			b := w.pool.Get()
			b.SetFrame(copy(b.Space(), frame))
			w.fromPod(att, b)
			w.flush()
		})
		if got != 0 {
			t.Errorf("%s: %v allocations a packet", name, got)
		}
	}
	train := [2][]byte{}
	for i := range train {
		train[i] = packettest.Packet{Src: farPod, Dst: podA, Proto: packet.TCP, Flags: packet.ACK, ID: uint16(i), Seq: uint32(i * 100), Payload: make([]byte, 100)}.Frame()
	}
	var p packet.Parsed
	got := testing.AllocsPerRun(1000, func() {
		w.begin()
		for i := range train {
			packet.Parse(train[i][packet.VnetLen:], &p)
			w.fromPeer(train[i], &p, packet.Offload{})
		}
		w.flushTrain()
	})
	if got != 0 {
		t.Errorf("from a peer: %v allocations a train", got)
	}
}

// TestNoMerging: for a device that takes no super-packets the packets of a peer stay apart.
func TestNoMerging(t *testing.T) {
	for _, plain := range []bool{false, true} {
		d := newBed(t, 1)
		c := device(t, 1)
		if plain {
			c.TakeNoTrains()
		}
		pod := netip.MustParseAddr("10.244.1.9")
		d.attach(t, "c", c, pod)
		for i := range 3 {
			d.wire.Inject(0, packettest.Packet{
				Src: farPod, Dst: pod, Proto: packet.TCP, Flags: packet.ACK, ID: uint16(i), Seq: uint32(100 * i), Payload: make([]byte, 100),
			}.Frame())
		}
		d.workers[0].begin()
		d.workers[0].receive()
		want := 1
		if plain {
			want = 3
		}
		if got := len(c.Written()); got != want {
			t.Errorf("device without super-packets: %v: %d frames written, want %d", plain, got, want)
		}
	}
}

// discard is a queue whose writes are lost.
type discard struct{}

func (discard) FD() int                      { return -1 }
func (discard) Takes(packet.GSO) bool        { return true }
func (discard) Read([]byte) (int, error)     { return 0, nil }
func (discard) Write([]byte, [][]byte) error { return nil }

// TestRunLeavesNoGoroutine also covers a stack that is stopped while it is idle.
func TestRunLeavesNoGoroutine(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("run", func(t *testing.T) {
		newBed(t, 4).run(t)
		time.Sleep(5 * time.Millisecond)
	})
	eventually(t, "goroutines end", func() bool { return runtime.NumGoroutine() <= before })
}
