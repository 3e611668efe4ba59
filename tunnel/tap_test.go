package tunnel

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
	"github.com/middleway-net/middleway/stack/tap"
	"github.com/middleway-net/middleway/tunnel/hello"
	"github.com/middleway-net/middleway/tunnel/vxlan"
)

// noted is a record and its bytes.
type noted struct {
	tap.Record
	data []byte
}

// lookOn has a tap see what a tunnel's first port does, and returns what it saw since the last call.
func lookOn(tn *Tunnel) func() []noted {
	t := tap.New(tap.Config{Writers: 1})
	ws := tap.Writers{t.Writer(0)}
	tn.Port(0).Tap(ws)
	return func() (all []noted) {
		ws.Publish()
		t.Read(func(r *tap.Record, b []byte) { all = append(all, noted{*r, bytes.Clone(b)}) })
		return all
	}
}

// mustOpen returns source, destination and payload of a datagram that was noted.
func mustOpen(t *testing.T, n noted) (src, dst netip.AddrPort, payload []byte) {
	t.Helper()
	var p packet.Parsed
	if r := packet.Parse(n.data, &p); r != packet.Kept || p.Proto != packet.UDP || p.Len != len(n.data) || len(n.data) != n.Length {
		t.Fatalf("%v, %+v: no datagram of %d bytes", r, p, n.Length)
	}
	return netip.AddrPortFrom(p.Flow.Src(), p.Flow.SrcPort()), netip.AddrPortFrom(p.Flow.Dst(), p.Flow.DstPort()), n.data[p.Payload:]
}

// Datagrams are noted with the outer headers that they had on the wire, as far as sockets tell.
func TestTap(t *testing.T) {
	for name, frame := range map[string][]byte{
		"a packet":       packettest.Packet{Src: pod1, Dst: pod2, SrcPort: 4000, DstPort: 53, TOS: byte(packet.CE), Payload: []byte("hello")}.Frame(),
		"a super-packet": packettest.Packet{Src: pod16, Dst: pod26, Proto: packet.TCP, Flags: packet.ACK, Payload: make([]byte, 4000)}.Super(innerMTU - 60),
	} {
		t.Run(name, func(t *testing.T) {
			one, two := pair(t, func(p *Peer) { p.Trains = true })
			sent, received := lookOn(one), lookOn(two)
			want := packettest.Split(frame)
			var pool packet.Pool
			send(one, &pool, frame, node2)
			receive(t, two, len(want))
			out, in := sent(), received()
			if len(out) != len(want) || len(in) != len(want) {
				t.Fatalf("%d sent and %d received, want %d", len(out), len(in), len(want))
			}
			lanes := map[uint16]bool{}
			for _, l := range one.Port(0).lanes {
				lanes[l.conn.Local().Port()] = true
			}
			for i := range want {
				src, dst, payload := mustOpen(t, out[i])
				if out[i].Direction != tap.Out || out[i].Verdict != tap.Sent || out[i].At != (tap.Place{Layer: tap.Tunnel, Peer: node2}) {
					t.Errorf("sent: %+v", out[i].Record)
				}
				if src.Addr() != node1 || !lanes[src.Port()] || dst != netip.AddrPortFrom(node2, one.config.Port) {
					t.Errorf("sent from %v to %v", src, dst)
				}
				if packet.ECNOf(out[i].data) != packet.ECNOf(frame[packet.VnetLen:]) {
					t.Errorf("sent with ECN field %d", packet.ECNOf(out[i].data))
				}
				var h vxlan.Header
				if err := vxlan.Decode(payload, &h); err != nil || h.VNI != vxlan.DefaultVNI || h.Dst != mac2 || !bytes.Equal(payload[vxlan.Overhead:], want[i]) {
					t.Errorf("packet %d: %+v, %v, %d bytes", i, h, err, len(payload))
				}
				if in[i].Direction != tap.In || in[i].At != (tap.Place{Layer: tap.Tunnel, Peer: node1}) || in[i].Flow != out[i].Flow || !bytes.Equal(in[i].data, out[i].data) {
					t.Errorf("packet %d was received as %+v\n% x, sent as\n% x", i, in[i].Record, in[i].data, out[i].data)
				}
			}
		})
	}
}

// What the tunnel drops is noted with the reason, on receiving and on sending.
func TestTapDrops(t *testing.T) {
	one, two := pair(t, func(p *Peer) { p.Trains = true })
	sent, received := lookOn(one), lookOn(two)
	var pool packet.Pool
	plain := packettest.Packet{Src: pod1, Dst: pod2, Payload: []byte("hello")}.Frame()

	send(one, &pool, packettest.Packet{Src: pod2, Dst: pod1}.Frame(), node2) // from a source that is not the peer's
	receive(t, two, 1)
	if in := received(); len(in) != 1 || in[0].Verdict != tap.Dropped || in[0].Reason != packet.DropPeerSource || in[0].Packets != 1 {
		t.Errorf("received: %+v", in)
	}
	sent()
	send(one, &pool, plain, node3)
	send(one, &pool, packettest.Packet{Src: pod1, Dst: pod2, Payload: make([]byte, innerMTU)}.Frame(), node2)
	if out := sent(); len(out) != 2 || out[0].Reason != packet.DropSend || out[1].Reason != packet.DropTooBig || !out[0].Bare {
		t.Errorf("sent: %+v", out)
	}
	// A socket that sends nothing any more: its datagrams fail, by the message.
	for _, l := range one.Port(0).lanes {
		if err := l.conn.Close(); err != nil {
			t.Fatal(err)
		}
	}
	before := map[string]uint64{}
	one.Port(0).Drops().AddTo(before)
	send(one, &pool, packettest.Packet{Src: pod1, Dst: pod2, Proto: packet.TCP, Payload: make([]byte, 4000)}.Super(1000), node2)
	send(one, &pool, plain, node2)
	out := sent()
	for _, n := range out {
		if n.Verdict != tap.Dropped || n.Reason != packet.DropSend || n.Packets != 1 {
			t.Errorf("got %+v", n.Record)
		}
	}
	after := map[string]uint64{}
	one.Port(0).Drops().AddTo(after)
	if got := after["send"] - before["send"]; got != 5 || len(out) != 5 {
		t.Errorf("%d counted and %d noted, want 5", got, len(out))
	}
	one.Port(0).lanes = nil // are closed
}

// A message between nodes is noted as one, whether it is taken or dropped, and has no flow.
func TestTapMessage(t *testing.T) {
	for name, tt := range map[string]struct {
		hello bool
		want  tap.Verdict
	}{"taken": {true, tap.Taken}, "of a peer that says none": {false, tap.Dropped}} {
		t.Run(name, func(t *testing.T) {
			one, two := pair(t, func(p *Peer) { p.Hello = tt.hello })
			received := lookOn(two)
			h, err := newHerald(one)
			if err != nil {
				t.Fatal(err)
			}
			defer h.conn.Close()
			m := hello.Message{Version: hello.Version, Kind: hello.Answer, MTU: innerMTU, Length: hello.HeaderLen}
			h.send(one.peers.Load().byAddr[node2], m, nil)
			receive(t, two, 1)
			in := received()
			if len(in) != 1 || !in[0].Message || in[0].Verdict != tt.want || in[0].Version != 0 {
				t.Errorf("got %+v", in)
			}
		})
	}
}

// The outer headers of either family, and what they leave out.
func TestOuterHeaders(t *testing.T) {
	for _, tt := range []struct{ src, dst string }{{"192.168.254.11:40000", "192.168.254.12:8472"}, {"[fd00:254::11]:40000", "[fd00:254::12]:8472"}} {
		src, dst := netip.MustParseAddrPort(tt.src), netip.MustParseAddrPort(tt.dst)
		var s seen
		var p packet.Parsed
		b := append(bytes.Clone(s.encodeOuter(src, dst, packet.ECT0, 100)), make([]byte, 100)...)
		if r := packet.Parse(b, &p); r != packet.Kept || p.Len != len(b) || p.TTL != outerTTL || packet.ECNOf(b) != packet.ECT0 ||
			p.Flow != packet.NewFlow(packet.UDP, src, dst) {
			t.Errorf("%v: %v, %+v", src, r, p)
		}
	}
}

func TestTapAllocs(t *testing.T) {
	one, two := pair(t, func(p *Peer) { p.Trains = true })
	watched := tap.New(tap.Config{Writers: 2})
	ws := [2]tap.Writers{{watched.Writer(0)}, {watched.Writer(1)}}
	one.Port(0).Tap(ws[0])
	two.Port(0).Tap(ws[1])
	var pool packet.Pool
	frame := packettest.Packet{Src: pod1, Dst: pod2, Proto: packet.TCP, Flags: packet.ACK, Payload: make([]byte, 60000)}.Super(innerMTU - 40)
	deliver := func([]byte, *packet.Parsed, packet.Offload) {}
	records := 0
	take := func(*tap.Record, []byte) { records++ }
	if got := testing.AllocsPerRun(200, func() {
		send(one, &pool, frame, node2)
		for two.Port(0).Receive(deliver) == 0 {
		}
		ws[0].Publish()
		ws[1].Publish()
		watched.Read(take)
	}); got != 0 {
		t.Errorf("%v allocations a train", got)
	}
	if records < 200*43 {
		t.Errorf("%d records", records)
	}
}
