package tap

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
)

var (
	podA  = netip.MustParseAddr("10.244.1.2")
	podB  = netip.MustParseAddr("10.244.1.3")
	podA6 = netip.MustParseAddr("fd00:10:244:1::2")
	podB6 = netip.MustParseAddr("fd00:10:244:1::3")
	peer2 = netip.MustParseAddr("192.168.254.12")
	web   = Place{Layer: Pod, Name: "default/web-0"}
	db    = Place{Layer: Pod, Name: "default/db-0"}
	wire  = Place{Layer: Tunnel, Peer: peer2}
)

// of returns a described packet, ready to be noted.
func of(t testing.TB, d packettest.Packet) Packet {
	t.Helper()
	b, p := d.Frame()[packet.VnetLen:], &packet.Parsed{}
	if r := packet.Parse(b, p); r != packet.Kept {
		t.Fatal(r)
	}
	return Packet{P: p, Body: b}
}

// tapped returns a tap with one writer.
func tapped(c Config) (*Tap, Writers) {
	c.Writers = 1
	tap := New(c)
	return tap, Writers{tap.Writer(0)}
}

// records returns what was published, in words.
func records(tap *Tap) (all []string) {
	tap.Read(func(r *Record, _ []byte) {
		all = append(all, fmt.Sprint(r.At.Layer, " ", r.Direction, " verdict ", r.Verdict, " ", r.Reason, " ", r.Packets, " to ", r.To.Layer))
	})
	return all
}

func TestFilter(t *testing.T) {
	udp := packettest.Packet{Src: podA, Dst: podB, SrcPort: 4000, DstPort: 53}
	tcp6 := packettest.Packet{Src: podA6, Dst: podB6, Proto: packet.TCP, SrcPort: 4000, DstPort: 80}
	echo := packettest.Packet{Src: podA, Dst: podB, Proto: packet.ICMP, SrcPort: 53}
	hosts := func(s ...string) (f Filter) {
		for _, s := range s {
			f.Hosts = append(f.Hosts, netip.MustParsePrefix(s))
		}
		return f
	}
	for _, tt := range []struct {
		name string
		Filter
		at   Place
		p    packettest.Packet
		want bool
	}{
		{"all", Filter{}, web, udp, true},
		{"the pod", Filter{Places: []Place{web}}, web, udp, true},
		{"another pod", Filter{Places: []Place{web}}, db, udp, false},
		{"one of two pods", Filter{Places: []Place{web, db}}, db, udp, true},
		{"the tunnel, to whichever peer", Filter{Places: []Place{{Layer: Tunnel}}}, wire, udp, true},
		{"the tunnel, not a pod", Filter{Places: []Place{{Layer: Tunnel}}}, web, udp, false},
		{"source", hosts("10.244.1.2/32"), web, udp, true},
		{"destination", hosts("10.244.1.3/32"), web, udp, true},
		{"a range", hosts("10.244.0.0/16"), web, udp, true},
		{"another range", hosts("10.244.2.0/24", "fd00::/8"), web, udp, false},
		{"IPv6", hosts("10.244.2.0/24", "fd00::/8"), web, tcp6, true},
		{"the other node", hosts("192.168.254.12/32"), wire, udp, true},
		{"source port", Filter{Ports: []uint16{4000}}, web, udp, true},
		{"destination port", Filter{Ports: []uint16{1, 80}}, web, tcp6, true},
		{"another port", Filter{Ports: []uint16{54}}, web, udp, false},
		{"an echo's identifier is no port", Filter{Ports: []uint16{53}}, web, echo, false},
		{"protocol", Filter{Protos: []packet.Proto{packet.TCP, packet.ICMP}}, web, echo, true},
		{"another protocol", Filter{Protos: []packet.Proto{packet.TCP}}, web, udp, false},
		{"all fields", Filter{Places: []Place{web}, Hosts: hosts("10.244.1.2/32").Hosts, Ports: []uint16{53}, Protos: []packet.Proto{packet.UDP}}, web, udp, true},
		{"all fields but one", Filter{Places: []Place{web}, Hosts: hosts("10.244.1.2/32").Hosts, Ports: []uint16{53}, Protos: []packet.Proto{packet.TCP}}, web, udp, false},
	} {
		if got := tt.takes(&tt.at, of(t, tt.p).P); got != tt.want {
			t.Errorf("%s: got %v", tt.name, got)
		}
	}
	for _, f := range []Filter{hosts("0.0.0.0/0", "::/0"), {Ports: []uint16{0}}, {Protos: []packet.Proto{0}}} {
		if f.takes(&web, &packet.Parsed{}) {
			t.Errorf("%+v takes what could not be read", f)
		}
	}
}

// Verdicts may change until the batch is published, and not be seen before.
func TestVerdicts(t *testing.T) {
	p := of(t, packettest.Packet{Src: podA, Dst: podB})
	to := Judgement{To: db}
	for _, tt := range []struct {
		name string
		note func(ws Writers)
		want []string
	}{
		{"forwarded", func(ws Writers) { ws.Enter(web, p); ws.Judge(to); ws.Forwarded(1) }, []string{"pod 1 verdict 1 kept 1 to pod"}},
		{"forwarded in pieces", func(ws Writers) { ws.Enter(web, p); ws.Judge(to); ws.Forwarded(1); ws.Forwarded(1) }, []string{"pod 1 verdict 1 kept 2 to pod"}},
		{"one of its pieces dropped", func(ws Writers) {
			ws.Enter(web, p)
			ws.Judge(to)
			ws.Forwarded(1)
			ws.Dropped(packet.DropDevice, 1)
			ws.Dropped(packet.DropDevice, 1)
		}, []string{"pod 1 verdict 1 kept 1 to pod", "pod 1 verdict 2 device 2 to pod"}},
		{"held", func(ws Writers) { ws.Enter(web, p); ws.Held() }, []string{"pod 1 verdict 3 kept 0 to nowhere"}},
		{"a message", func(ws Writers) { ws.Enter(wire, p); ws.Taken() }, []string{"tunnel 1 verdict 4 kept 0 to nowhere"}},
		{"answered", func(ws Writers) {
			ws.Enter(web, p)
			ws.Dropped(packet.DropTTL, 1)
			ws.Nest()
			ws.Enter(Place{Layer: Gateway}, p)
			ws.Judge(Judgement{To: web})
			ws.Forwarded(1)
			ws.Unnest()
			ws.Dropped(packet.DropTTL, 1)
		}, []string{"pod 1 verdict 2 ttl 2 to nowhere", "gateway 1 verdict 1 kept 1 to pod"}},
		{"a train", func(ws Writers) {
			ws.Enter(wire, p)
			ws.Judge(to)
			ws.StartTrain()
			ws.Enter(wire, p)
			ws.Join()
			ws.Enter(wire, p) // not of the train, which ends before it is judged
			ws.EndTrain(packet.Kept)
			ws.LeaveTrain(db, p)
			ws.Dropped(packet.DropScope, 1)
		}, []string{"tunnel 1 verdict 1 kept 1 to pod", "tunnel 1 verdict 1 kept 1 to pod", "tunnel 1 verdict 2 scope 1 to nowhere", "pod 2 verdict 5 kept 0 to nowhere"}},
		{"a train dropped", func(ws Writers) { ws.Enter(wire, p); ws.StartTrain(); ws.EndTrain(packet.DropDevice) }, []string{"tunnel 1 verdict 2 device 1 to nowhere"}},
		{"sent, and failed", func(ws Writers) {
			ws.Enter(web, p)
			for key := range uint64(3) {
				ws.Leave(wire, p, 10+key)
			}
			ws.Forwarded(1)
			ws.Fail(11, 2, packet.DropSend)
		}, []string{"pod 1 verdict 1 kept 1 to nowhere", "tunnel 2 verdict 5 kept 0 to nowhere", "tunnel 2 verdict 2 send 1 to nowhere", "tunnel 2 verdict 2 send 1 to nowhere"}},
		{"refused", func(ws Writers) { ws.Refuse(wire, p, packet.DropTooBig) }, []string{"tunnel 2 verdict 2 too-big 1 to nowhere"}},
		{"told too late", func(ws Writers) { ws.Enter(web, p); ws.Publish(); ws.Forwarded(1) }, []string{"pod 1 verdict 0 kept 0 to nowhere"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tap, ws := tapped(Config{})
			tt.note(ws)
			if tt.name != "told too late" && records(tap) != nil {
				t.Error("seen before it was published")
			}
			ws.Publish()
			if diff := cmp.Diff(tt.want, records(tap)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			drops, ws := tapped(Config{Filter: Filter{Drops: true}})
			tt.note(ws)
			ws.Publish()
			drops.Read(func(r *Record, _ []byte) {
				if r.Verdict != Dropped {
					t.Errorf("verdict %d among the drops", r.Verdict)
				}
			})
		})
	}
}

// What has no room is counted by its interface, and neither what is there nor what comes later suffers.
func TestLost(t *testing.T) {
	p := of(t, packettest.Packet{Src: podA, Dst: podB, Payload: make([]byte, 100)})
	for name, c := range map[string]Config{"no slot": {Slots: 4}, "no bytes": {Bytes: 4*len(p.Body) + 10}} {
		tap, ws := tapped(c)
		for round := range 5 {
			for i := range 7 {
				at := web
				if i == 6 {
					at = wire
				}
				ws.Enter(at, p)
				ws.Forwarded(1)
			}
			ws.Publish()
			got := 0
			tap.Read(func(r *Record, b []byte) {
				if got++; r.At != web || !bytes.Equal(b, p.Body) {
					t.Errorf("%s: got %+v", name, r)
				}
			})
			lost := tap.Lost()
			if n := uint64(round + 1); lost[Place{Layer: Tunnel}] != n || lost[web]+lost[Place{Layer: Tunnel}]+uint64(got*(round+1)) > 7*n || got < 3 {
				t.Errorf("%s, round %d: got %d, lost %v", name, round, got, lost)
			}
		}
	}
}

// One goroutine writes and another reads: each record comes once, in order and whole, or is counted as lost.
func TestConcurrent(t *testing.T) {
	const packets = 20_000
	tap, ws := tapped(Config{Slots: 64, Bytes: 1 << 12, SnapLen: 300})
	random := rand.New(rand.NewPCG(1, 2))
	var writing sync.WaitGroup
	writing.Go(func() {
		p := &packet.Parsed{}
		body := make([]byte, 400)
		for i := range packets {
			n := 8 + random.IntN(len(body)-8)
			for j := range n {
				body[j] = byte(i)
			}
			binary.BigEndian.PutUint64(body, uint64(i))
			ws.Enter(web, Packet{P: p, Head: body[:5], Body: body[5:8], More: [][]byte{body[8:n]}})
			ws.Forwarded(1)
			if i%5 == 0 {
				ws.Publish()
			}
			if i%1000 == 0 {
				time.Sleep(time.Microsecond) // on one processor the reader runs too
			}
		}
		ws.Publish()
	})
	got, last := 0, int64(-1)
	read := func() {
		tap.Read(func(r *Record, b []byte) {
			got++
			i := int64(binary.BigEndian.Uint64(b))
			if i <= last || r.Verdict != Forwarded || len(b) != min(r.Length, 300) || bytes.Count(b[8:], []byte{byte(i)}) != len(b)-8 {
				t.Errorf("record of packet %d after that of %d: %d bytes, %+v", i, last, len(b), r)
			}
			last = i
		})
	}
	done := make(chan struct{})
	go func() { writing.Wait(); close(done) }()
	for ended := false; !ended; {
		select {
		case <-done:
			ended = true
		default:
		}
		read()
	}
	if lost := tap.Lost()[web]; got+int(lost) != packets || got == 0 {
		t.Errorf("%d came and %d were lost, of %d", got, lost, packets)
	}
}

// BenchmarkEnter is what a packet costs that somebody looks at, by how much of it is kept, or does not want.
func BenchmarkEnter(b *testing.B) {
	p := of(b, packettest.Packet{Src: podA, Dst: podB, Payload: make([]byte, 1400)})
	for name, c := range map[string]Config{
		"snaplen=all": {}, "snaplen=128": {SnapLen: 128}, "filter=other": {Filter: Filter{Hosts: []netip.Prefix{netip.PrefixFrom(peer2, 32)}}},
	} {
		b.Run(name, func(b *testing.B) {
			tap, ws := tapped(c)
			take := func(*Record, []byte) {}
			b.ReportAllocs()
			for b.Loop() {
				ws.Enter(web, p)
				ws.Forwarded(1)
				ws.Publish()
				tap.Read(take)
			}
		})
	}
}
