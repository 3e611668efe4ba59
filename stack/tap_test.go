package stack

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/middleway-net/middleway/stack/icmp"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
	"github.com/middleway-net/middleway/stack/tap"
)

// tally is what records say about the data path's counters.
type tally struct {
	forwarded, errors, undecided uint64
	dropped                      [256]uint64 // by reason

	// blind: the test calls functions before or behind which packets are noted, so that nothing is compared.
	blind bool
}

func (y *tally) add(r *tap.Record, _ []byte) {
	switch {
	case r.Verdict == tap.Forwarded:
		y.forwarded += uint64(r.Packets)
	case r.Verdict == tap.Dropped:
		y.dropped[r.Reason] += uint64(r.Packets)
	case r.Verdict == tap.None:
		y.undecided++
	}
	if r.Error && r.Direction == tap.In {
		y.errors++
	}
}

func (y *tally) drops() map[string]uint64 {
	named := map[string]uint64{}
	for r, n := range y.dropped {
		if n > 0 {
			named[packet.DropReason(r).String()] += n
		}
	}
	return named
}

// lookOn has a tap see everything that the test does. When it ends, its records have to say what the counters say.
func (d *bed) lookOn(t *testing.T) {
	watched, y := d.Tap(tap.Config{SnapLen: 64, Slots: 1 << 14, Bytes: 1 << 20}), &tally{}
	d.tally = y
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for add := y.add; ; {
			watched.Read(add)
			select {
			case <-stop:
				return
			default:
				time.Sleep(time.Millisecond)
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-stopped
		d.Untap(watched)
		watched.Read(y.add)
		if y.blind || len(watched.Lost()) > 0 {
			return
		}
		st := d.Stats()
		if y.forwarded != st.Packets || y.errors != st.ICMPErrors || y.undecided > 0 {
			t.Errorf("records: %d forwarded, %d errors, %d without a verdict; counters: %d and %d", y.forwarded, y.errors, y.undecided, st.Packets, st.ICMPErrors)
		}
		if diff := cmp.Diff(st.Drops, y.drops()); diff != "" {
			t.Errorf("dropped (-counters +records):\n%s", diff)
		}
	})
}

// trace says what a record says, in a line.
func trace(r *tap.Record) string {
	direction := map[tap.Direction]string{tap.In: "in", tap.Out: "out"}[r.Direction]
	s := fmt.Sprintf("%s %s: ", direction, at(r.At))
	switch r.Verdict {
	case tap.Forwarded:
		s += fmt.Sprintf("forwarded %d to %s", r.Packets, at(r.To))
	case tap.Dropped:
		s += fmt.Sprintf("dropped %d %v", r.Packets, r.Reason)
	case tap.Held:
		s += "held"
	case tap.Sent:
		s += "sent from " + at(r.From)
	default:
		s += fmt.Sprint("verdict ", r.Verdict)
	}
	if r.Route.IsValid() {
		s += fmt.Sprint(", route ", r.Route)
	}
	if r.Answer != 0 {
		s += fmt.Sprint(", answer ", icmp.Kind(r.Answer))
	}
	for what, is := range map[string]bool{", error": r.Error, ", late": r.Late} {
		if is {
			s += what
		}
	}
	if r.GSO != packet.GSONone {
		s += fmt.Sprintf(", %d in segments of %d", r.Payload, r.Segment)
	}
	return s
}

func at(p tap.Place) string {
	s := p.Layer.String()
	if p.Name != "" {
		s += " " + p.Name
	}
	if p.Peer.IsValid() {
		s += " " + p.Peer.String()
	}
	return s
}

// What is noted of packets, in order.
func TestTap(t *testing.T) {
	nobody := netip.MustParseAddr("203.0.113.1")
	fragments := func(src, dst netip.Addr) [][]byte {
		pieces := packettest.Fragments(packettest.Packet{Src: src, Dst: dst, ID: 7, Payload: make([]byte, 2000)}.Frame()[packet.VnetLen:], 1400, 7)
		slices.Reverse(pieces)
		for i, b := range pieces {
			pieces[i] = append(make([]byte, packet.VnetLen), b...)
		}
		return pieces
	}
	uncut := packettest.Packet{Src: podA, Dst: podB, Payload: make([]byte, 3000)}.Frame()
	mayFragment(uncut[packet.VnetLen:])
	var train [][]byte
	for i := range 3 {
		train = append(train, packettest.Packet{Src: farPod, Dst: podA, Proto: packet.TCP, Flags: packet.ACK, ID: uint16(i), Seq: uint32(i * 100), Payload: make([]byte, 100)}.Frame())
	}
	badSum := packettest.Packet{Src: podA, Dst: podB}.Frame()
	badSum[packet.VnetLen+10]++
	one := func(p packettest.Packet) [][]byte { return [][]byte{p.Frame()} }
	for _, tt := range []struct {
		name   string
		peer   bool // sends
		frames [][]byte
		want   []string
	}{
		{"to a pod", false, one(packettest.Packet{Src: podA, Dst: podB}), []string{
			"in pod a: forwarded 1 to pod b, route 10.244.1.3/32", "out pod b: sent from pod a"}},
		{"to a peer, IPv6", false, one(packettest.Packet{Src: podA6, Dst: farPod6}), []string{
			"in pod a: forwarded 1 to tunnel 192.168.254.12, route fd00:10:244:2::/64", "out tunnel 192.168.254.12: sent from pod a"}},
		{"to the node", false, one(packettest.Packet{Src: podA, Dst: gateway}), []string{
			"in pod a: forwarded 1 to gateway, route 10.244.1.1/32", "out gateway: sent from pod a"}},
		{"a super-packet", false, [][]byte{packettest.Packet{Src: podA, Dst: podB, Proto: packet.TCP, Payload: make([]byte, 3000)}.Super(1400)}, []string{
			"in pod a: forwarded 1 to pod b, route 10.244.1.3/32, 3000 in segments of 1400", "out pod b: sent from pod a, 3000 in segments of 1400"}},
		{"a train of a peer", true, train, []string{
			"in tunnel: forwarded 1 to pod a, route 10.244.1.2/32", "in tunnel: forwarded 1 to pod a, route 10.244.1.2/32",
			"in tunnel: forwarded 1 to pod a, route 10.244.1.2/32", "out pod a: sent from tunnel, 300 in segments of 100"}},
		{"a wrong checksum", false, [][]byte{badSum}, []string{"in pod a: dropped 1 checksum"}},
		{"nothing", false, [][]byte{make([]byte, packet.VnetLen)}, []string{"in pod a: dropped 1 malformed"}},
		{"another's source", false, one(packettest.Packet{Src: podB, Dst: podA}), []string{"in pod a: dropped 1 source"}},
		{"multicast", false, one(packettest.Packet{Src: podA, Dst: netip.MustParseAddr("224.0.0.1")}), []string{"in pod a: dropped 1 scope"}},
		{"no way", false, one(packettest.Packet{Src: podA, Dst: nobody}), []string{
			fmt.Sprint("in pod a: dropped 1 no-route, answer ", icmp.NetUnreachable),
			"in gateway: forwarded 1 to pod a, route 10.244.1.2/32, error", "out pod a: sent from gateway"}},
		{"no pod", false, one(packettest.Packet{Src: podA, Dst: netip.MustParseAddr("10.244.1.77")}), []string{
			fmt.Sprint("in pod a: dropped 1 no-pod, route 10.244.1.0/24, answer ", icmp.HostUnreachable),
			"in gateway: forwarded 1 to pod a, route 10.244.1.2/32, error", "out pod a: sent from gateway"}},
		{"from a peer to a peer", true, one(packettest.Packet{Src: farPod, Dst: netip.MustParseAddr("10.244.3.2")}), []string{
			fmt.Sprint("in tunnel: dropped 1 transit, route 10.244.3.0/24, answer ", icmp.Prohibited),
			"in gateway: forwarded 1 to tunnel 192.168.254.12, route 10.244.2.0/24, error", "out tunnel 192.168.254.12: sent from gateway"}},
		{"cut", false, [][]byte{uncut}, []string{
			"in pod a: forwarded 3 to pod b, route 10.244.1.3/32",
			"out pod b: sent from pod a", "out pod b: sent from pod a", "out pod b: sent from pod a"}},
		{"fragments, the first one last", false, fragments(podA, podB), []string{
			"in pod a: held", "in pod a: forwarded 1 to pod b, route 10.244.1.3/32", "out pod b: sent from pod a",
			"in pod a: forwarded 1 to pod b, route 10.244.1.3/32, late", "out pod b: sent from pod a"}},
		{"fragments of a peer", true, fragments(farPod6, podB6), []string{
			"in tunnel: held", "in tunnel: forwarded 1 to pod b, route fd00:10:244:1::3/128", "out pod b: sent from tunnel",
			"in tunnel 192.168.254.12: forwarded 1 to pod b, route fd00:10:244:1::3/128, late", "out pod b: sent from tunnel 192.168.254.12"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newBed(t, 1)
			watched := d.Tap(tap.Config{})
			d.run(t)
			for _, f := range tt.frames {
				if tt.peer {
					d.wire.Inject(0, f)
				} else {
					d.a.Inject(0, f)
				}
			}
			var got []string
			eventually(t, "all records come", func() bool {
				watched.Read(func(r *tap.Record, _ []byte) { got = append(got, trace(r)) })
				return len(got) >= len(tt.want)
			})
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("records (-want +got):\n%s", diff)
			}
		})
	}
}

// A fragment whose packet's first does not come is noted when it is dropped.
func TestTapTimeout(t *testing.T) {
	d := newBed(t, 1)
	watched := d.Tap(tap.Config{})
	d.run(t)
	pieces := packettest.Fragments(packettest.Packet{Src: podA, Dst: podB, Payload: make([]byte, 2000)}.Frame()[packet.VnetLen:], 1400, 7)
	d.a.Inject(0, append(make([]byte, packet.VnetLen), pieces[1]...))
	var got []string
	eventually(t, "it is dropped", func() bool {
		watched.Read(func(r *tap.Record, b []byte) {
			if !bytes.Equal(b, pieces[1]) {
				t.Errorf("%d bytes, not as they came", len(b))
			}
			got = append(got, trace(r))
		})
		return len(got) == 2
	})
	if diff := cmp.Diff([]string{"in pod a: held", "in pod a: dropped 1 fragment-timeout, late"}, got); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
}

// The record of where a packet came in has its bytes as they came, that of where it left as they left.
func TestTapBytes(t *testing.T) {
	d := newBed(t, 1)
	watched := d.Tap(tap.Config{SnapLen: 40})
	d.run(t)
	p := packettest.Packet{Src: podA, Dst: podB, Payload: []byte("what was sent, and more than is kept")}
	in := p.Frame()[packet.VnetLen:]
	p.TTL = 63
	out := p.Frame()[packet.VnetLen:]
	d.a.Inject(0, append(make([]byte, packet.VnetLen), in...))
	var got [][]byte
	eventually(t, "both records come", func() bool {
		watched.Read(func(r *tap.Record, b []byte) {
			if r.Length != len(in) || r.Flow.Src() != podA || r.Version != 4 || !r.HasPorts {
				t.Errorf("got %+v", r)
			}
			got = append(got, bytes.Clone(b))
		})
		return len(got) == 2
	})
	if diff := cmp.Diff([][]byte{in[:40], out[:40]}, got); diff != "" {
		t.Errorf("bytes (-want +got):\n%s", diff)
	}
}

// Each tap sees what it asked for, from Tap to Untap, and a full one harms neither the others nor the packets.
func TestTaps(t *testing.T) {
	d := newBed(t, 2)
	d.run(t)
	all, narrow := d.Tap(tap.Config{}), d.Tap(tap.Config{Filter: tap.Filter{Hosts: []netip.Prefix{netip.PrefixFrom(podB, 32)}}})
	drops, full := d.Tap(tap.Config{Filter: tap.Filter{Drops: true}}), d.Tap(tap.Config{Slots: 2})
	send := func(dst netip.Addr, n int) {
		for i := range n {
			d.a.Inject(i%2, packettest.Packet{Src: podA, Dst: dst}.Frame())
		}
		eventually(t, "they arrive", func() bool { n -= len(d.arrived()); return n <= 0 })
	}
	send(podB, 10)
	send(farPod, 10)
	d.a.Inject(0, packettest.Packet{Src: podB, Dst: podA}.Frame())
	eventually(t, "it is dropped", func() bool { return d.Stats().Drops["source"] == 1 })
	for _, w := range []*tap.Tap{all, narrow, drops, full} {
		d.Untap(w)
	}
	send(podB, 10)
	count := func(w *tap.Tap) (n int) {
		w.Read(func(*tap.Record, []byte) { n++ })
		for _, lost := range w.Lost() {
			n += int(lost)
		}
		return n
	}
	for name, want := range map[string]struct {
		tap  *tap.Tap
		want int
	}{"all": {all, 41}, "to and from pod b": {narrow, 21}, "drops": {drops, 1}, "full, with those that were lost": {full, 41}} {
		if got := count(want.tap); got != want.want {
			t.Errorf("%s: %d records, want %d", name, got, want.want)
		}
	}
	if len(full.Lost()) == 0 {
		t.Error("a ring of two records lost none")
	}
}

// A port has sent what it was given before others look on: it counts its datagrams from there.
func TestTapFlushes(t *testing.T) {
	d := bareBed(t, 1)
	w := d.workers[0]
	att := d.tables.Load().attachments[d.idA]
	send := func() {
		b := w.pool.Get()
		b.SetFrame(copy(b.Space(), packettest.Packet{Src: podA, Dst: farPod}.Frame()))
		w.fromPod(att, b)
	}
	w.begin()
	send()
	watched := d.Tap(tap.Config{})
	send()
	d.Untap(watched)
	if port := d.ports[0]; len(port.sent) != 2 || port.midway {
		t.Errorf("%d packets sent, want 2; taps changed while some were pending: %v", len(port.sent), port.midway)
	}
}

// Nobody looks on, or somebody does: no packet allocates.
func TestTapAllocs(t *testing.T) {
	for _, watchers := range []int{0, 1, 2} {
		d := bareBed(t, 1)
		w, att := d.benchWorker()
		var watched []*tap.Tap
		for range watchers {
			watched = append(watched, d.Tap(tap.Config{}))
		}
		records := 0
		take := func(*tap.Record, []byte) { records++ }
		for name, frame := range map[string][]byte{
			"to a pod":       packettest.Packet{Src: podA, Dst: podB, Payload: make([]byte, 1000)}.Frame(),
			"to a peer":      packettest.Packet{Src: podA6, Dst: farPod6, Payload: make([]byte, 1000)}.Frame(),
			"a super-packet": packettest.Packet{Src: podA, Dst: podB, Proto: packet.TCP, Payload: make([]byte, 60000)}.Super(1400),
			"dropped":        packettest.Packet{Src: podB, Dst: podA}.Frame(),
			"answered":       packettest.Packet{Src: podA, Dst: podB, TTL: 1}.Frame(),
		} {
			if n := testing.AllocsPerRun(1000, func() {
				w.begin()
				b := w.pool.Get()
				b.SetFrame(copy(b.Space(), frame))
				w.fromPod(att, b)
				w.flush()
				for _, tapped := range watched {
					tapped.Read(take)
				}
			}); n != 0 {
				t.Errorf("%d onlookers, %s: %v allocations a packet", watchers, name, n)
			}
		}
		if watchers > 0 && records < 5*1000*watchers {
			t.Errorf("%d onlookers saw %d packets", watchers, records)
		}
	}
}
