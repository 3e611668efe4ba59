package stack

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
)

// TestFragmentsRandomWorker hands the fragments of many packets in random order to random workers, from pods, a peer and the
// node. Each comes out once, where its packet's flow leads.
func TestFragmentsRandomWorker(t *testing.T) {
	const workers, rounds, perRound = 4, 10, 4
	d := newBed(t, workers)
	d.clock = func() time.Duration { return 0 } // no fragment waits too long, however slow the machine is
	d.run(t)
	rnd := rand.New(rand.NewPCG(3, 4))
	frame := func(b []byte) []byte { return append(make([]byte, packet.VnetLen), b...) }
	directions := []struct {
		src, dst netip.Addr
		proto    packet.Proto
		inject   func(b []byte)
		out      string
	}{
		{podA, podB, packet.UDP, func(b []byte) { d.a.Inject(rnd.IntN(workers), frame(b)) }, "b"},
		{podA, podB, packet.ICMP, func(b []byte) { d.a.Inject(rnd.IntN(workers), frame(b)) }, "b"},
		{podA6, podB6, packet.UDP, func(b []byte) { d.a.Inject(rnd.IntN(workers), frame(b)) }, "b"},
		{podA, farPod, packet.UDP, func(b []byte) { d.a.Inject(rnd.IntN(workers), frame(b)) }, "peer 192.168.254.12"},
		{podA6, farPod6, 200, func(b []byte) { d.a.Inject(rnd.IntN(workers), frame(b)) }, "peer 192.168.254.12"},
		{farPod, podA, packet.UDP, func(b []byte) { d.wire.Inject(rnd.IntN(workers), frame(b)) }, "a"},
		{farPod6, podB6, packet.UDP, func(b []byte) { d.wire.Inject(rnd.IntN(workers), frame(b)) }, "b"},
		{gateway, podB, packet.UDP, func(b []byte) { d.Inject(packet.Offload{}, b) }, "b"},
	}
	for round := range rounds {
		type piece struct {
			b      []byte
			inject func([]byte)
		}
		var all []piece
		want := map[string]int{}
		for i, dir := range directions {
			for n := range perRound {
				id := round*perRound + n
				s := packettest.Packet{
					Src: dir.src, Dst: dir.dst, Proto: dir.proto, ID: uint16(id), TTL: 64,
					SrcPort: uint16(i), DstPort: uint16(id), Payload: make([]byte, 2000+rnd.IntN(4000)),
				}
				for _, b := range packettest.Fragments(s.Frame()[packet.VnetLen:], 1400, uint32(id)) {
					all = append(all, piece{b, dir.inject})
					want[nameOf(t, dir.out, b)]++
				}
			}
		}
		rnd.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		for _, p := range all {
			p.inject(p.b)
		}
		got := map[string]int{}
		total := 0
		eventually(t, "all fragments come out", func() bool {
			for _, o := range d.arrived() {
				got[nameOf(t, o.where, o.packet)]++
				total++
			}
			return total >= len(all)
		})
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("round %d: fragments (-want +got):\n%s", round, diff)
		}
	}
	if drops := d.Stats().Drops; len(drops) > 0 {
		t.Errorf("dropped %v", drops)
	}
}

// nameOf names a fragment and where it comes out.
func nameOf(t *testing.T, where string, b []byte) string {
	t.Helper()
	var p packet.Parsed
	if r := packet.Parse(b, &p); r != packet.Kept {
		t.Fatalf("fragment at %s: %v", where, r)
	}
	return fmt.Sprintf("%s: %v to %v, %d, %d at %d of %d", where, p.Flow.Src(), p.Flow.Dst(), p.Proto, p.Len-p.Piece, p.FragmentOffset, p.FragmentID)
}

// TestFragmentFlow: later fragments are of the flow of the first: the flow table knows one conversation, with ports.
func TestFragmentFlow(t *testing.T) {
	d := newBed(t, 1)
	w, att := d.benchWorker()
	all := packettest.Fragments(packettest.Packet{Src: podA, Dst: farPod, SrcPort: 4000, DstPort: 53, ID: 5, Payload: make([]byte, 4000)}.Frame()[packet.VnetLen:], 1400, 0)
	send := func(b []byte) {
		w.begin()
		nb := w.pool.Get()
		nb.SetFrame(packet.VnetLen + copy(nb.Space()[packet.VnetLen:], b))
		w.fromPod(att, nb)
		w.flush()
	}
	send(all[2])
	if st := d.Stats(); st.Packets != 0 || st.Flows != 0 {
		t.Errorf("a fragment before the first was forwarded: %+v", st)
	}
	send(all[0])
	send(all[1])
	if st := d.Stats(); st.Packets != 3 || st.Flows != 2 || len(st.Drops) > 0 {
		t.Errorf("got %+v, want 3 packets of one flow in two directions", st)
	}
	tiny := bytes.Clone(all[1])
	tiny[7], tiny[9] = 1, byte(packet.TCP)
	tiny[10], tiny[11] = 0, 0
	sum := ^packet.Checksum(tiny[:20], 0)
	tiny[10], tiny[11] = byte(sum>>8), byte(sum)
	send(tiny)
	if diff := cmp.Diff(map[string]uint64{"fragment": 1}, d.Stats().Drops); diff != "" {
		t.Errorf("drops (-want +got):\n%s", diff)
	}
	if n := testing.AllocsPerRun(100, func() {
		for _, b := range all {
			send(b)
		}
	}); n != 0 {
		t.Errorf("%v allocations for a packet in fragments that come in order", n)
	}
}
