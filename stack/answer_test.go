package stack

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/icmp"

	nodeicmp "github.com/middleway-net/middleway/stack/icmp"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
)

// answered is an ICMP error, and where it came out.
type answered outcome

// isOurError reports whether b is an ICMP error of the node.
func isOurError(b []byte) bool {
	var p packet.Parsed
	if packet.Parse(b, &p) != packet.Kept || p.HasFlow || p.Flow.Src() != gateway && p.Flow.Src() != gateway6 {
		return false
	}
	from := p.Flow.Src()
	return (from == gateway || from == gateway6) && (p.Proto == packet.ICMP || p.Proto == packet.ICMPv6)
}

// String returns the error as "a: 3/4 mtu 1450 from 10.244.1.1 to 10.244.1.2 about udp …".
func (a answered) String() string {
	var p packet.Parsed
	if r := packet.Parse(a.packet, &p); r != packet.Kept || !packet.TransportChecksumOK(a.packet, &p) {
		return fmt.Sprintf("%s: no packet: %v", a.where, r)
	}
	m, err := icmp.ParseMessage(int(p.Proto), a.packet[p.L4:])
	if err != nil {
		return err.Error()
	}
	s := fmt.Sprintf("%s: %d/%d", a.where, a.packet[p.L4], m.Code)
	if big, ok := m.Body.(*icmp.PacketTooBig); ok {
		s += fmt.Sprint(" mtu ", big.MTU)
	} else if mtu := binary.BigEndian.Uint32(a.packet[p.L4+4:]); mtu > 0 {
		s += fmt.Sprint(" mtu ", mtu)
	}
	var q packet.Parsed
	packet.ParseQuoted(a.packet[p.L4+8:], &q)
	return s + fmt.Sprintf(" from %v to %v about %v", p.Flow.Src(), p.Flow.Dst(), q.Flow)
}

// TestAnswers: who is told what about a packet that does not get further.
func TestAnswers(t *testing.T) {
	nobody, nobody6 := netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("2001:db8::1")
	vacant, vacant6 := netip.MustParseAddr("10.244.1.77"), netip.MustParseAddr("fd00:10:244:1::77")
	big := make([]byte, 1500)
	for _, tt := range []struct {
		name string
		from *netip.Addr // a peer's pod sends
		packettest.Packet
		size int // of a segment, if it is a super-packet
		drop string
		want string
	}{
		{"TTL", nil, packettest.Packet{Src: podA, Dst: podB, TTL: 1}, 0, "ttl", "a: 11/0 from 10.244.1.1 to 10.244.1.2 about udp 10.244.1.2:0 -> 10.244.1.3:0"},
		{"TTL 0", nil, packettest.Packet{Src: podA, Dst: farPod, Proto: packet.TCP, TTL: 1}, 0, "ttl", "a: 11/0 from 10.244.1.1 to 10.244.1.2 about tcp 10.244.1.2:0 -> 10.244.2.2:0"},
		{"hop limit", nil, packettest.Packet{Src: podA6, Dst: podB6, TTL: 1}, 0, "ttl", "a: 3/0 from fd00:10:244:1::1 to fd00:10:244:1::2 about udp [fd00:10:244:1::2]:0 -> [fd00:10:244:1::3]:0"},
		{"TTL, from a peer", &farPod, packettest.Packet{Src: farPod, Dst: podB, TTL: 1}, 0, "ttl", "peer 192.168.254.12: 11/0 from 10.244.1.1 to 10.244.2.2 about udp 10.244.2.2:0 -> 10.244.1.3:0"},
		{"hop limit, from a peer", &farPod, packettest.Packet{Src: farPod6, Dst: podB6, TTL: 1}, 0, "ttl", "peer 192.168.254.12: 3/0 from fd00:10:244:1::1 to fd00:10:244:2::2 about udp [fd00:10:244:2::2]:0 -> [fd00:10:244:1::3]:0"},
		{"no route", nil, packettest.Packet{Src: podA, Dst: nobody}, 0, "no-route", "a: 3/0 from 10.244.1.1 to 10.244.1.2 about udp 10.244.1.2:0 -> 203.0.113.1:0"},
		{"no route, IPv6", nil, packettest.Packet{Src: podA6, Dst: nobody6}, 0, "no-route", "a: 1/0 from fd00:10:244:1::1 to fd00:10:244:1::2 about udp [fd00:10:244:1::2]:0 -> [2001:db8::1]:0"},
		{"no pod", nil, packettest.Packet{Src: podA, Dst: vacant}, 0, "no-pod", "a: 3/1 from 10.244.1.1 to 10.244.1.2 about udp 10.244.1.2:0 -> 10.244.1.77:0"},
		{"no pod, IPv6", nil, packettest.Packet{Src: podA6, Dst: vacant6}, 0, "no-pod", "a: 1/3 from fd00:10:244:1::1 to fd00:10:244:1::2 about udp [fd00:10:244:1::2]:0 -> [fd00:10:244:1::77]:0"},
		{"no pod, from a peer", &farPod, packettest.Packet{Src: farPod, Dst: vacant}, 0, "no-pod", "peer 192.168.254.12: 3/1 from 10.244.1.1 to 10.244.2.2 about udp 10.244.2.2:0 -> 10.244.1.77:0"},
		{"from a peer to a peer", &farPod, packettest.Packet{Src: farPod, Dst: netip.MustParseAddr("10.244.3.2")}, 0, "transit", "peer 192.168.254.12: 3/13 from 10.244.1.1 to 10.244.2.2 about udp 10.244.2.2:0 -> 10.244.3.2:0"},
		{"too big", nil, packettest.Packet{Src: podA, Dst: podB, Payload: big}, 0, "too-big", "a: 3/4 mtu 1450 from 10.244.1.1 to 10.244.1.2 about udp 10.244.1.2:0 -> 10.244.1.3:0"},
		{"too big for a peer", nil, packettest.Packet{Src: podA, Dst: farPod, Payload: big}, 0, "too-big", "a: 3/4 mtu 1450 from 10.244.1.1 to 10.244.1.2 about udp 10.244.1.2:0 -> 10.244.2.2:0"},
		{"too big, IPv6", nil, packettest.Packet{Src: podA6, Dst: farPod6, Payload: big}, 0, "too-big", "a: 2/0 mtu 1450 from fd00:10:244:1::1 to fd00:10:244:1::2 about udp [fd00:10:244:1::2]:0 -> [fd00:10:244:2::2]:0"},
		{"too big, from a peer", &farPod, packettest.Packet{Src: farPod, Dst: podA, Payload: big}, 0, "too-big", "peer 192.168.254.12: 3/4 mtu 1450 from 10.244.1.1 to 10.244.2.2 about udp 10.244.2.2:0 -> 10.244.1.2:0"},
		{"segments too big", nil, packettest.Packet{Src: podA, Dst: farPod, Proto: packet.TCP, Payload: make([]byte, 20000)}, 1411, "too-big", "a: 3/4 mtu 1450 from 10.244.1.1 to 10.244.1.2 about tcp 10.244.1.2:0 -> 10.244.2.2:0"},
		{"segments too big, TTL first", nil, packettest.Packet{Src: podA, Dst: farPod, Proto: packet.TCP, TTL: 1, Payload: make([]byte, 20000)}, 1411, "ttl", "a: 11/0 from 10.244.1.1 to 10.244.1.2 about tcp 10.244.1.2:0 -> 10.244.2.2:0"},
		{"datagrams too big, IPv6", nil, packettest.Packet{Src: podA6, Dst: podB6, Payload: make([]byte, 6000)}, 1403, "too-big", "a: 2/0 mtu 1450 from fd00:10:244:1::1 to fd00:10:244:1::2 about udp [fd00:10:244:1::2]:0 -> [fd00:10:244:1::3]:0"},
		{"another's source", nil, packettest.Packet{Src: podB, Dst: nobody}, 0, "source", ""},
		{"multicast", nil, packettest.Packet{Src: podA, Dst: netip.MustParseAddr("224.0.0.1"), TTL: 1}, 0, "scope", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newBed(t, 1)
			d.run(t)
			frame := tt.Frame()
			if tt.size > 0 {
				frame = tt.Super(tt.size)
			}
			for range 2 {
				d.errors = nil
				if tt.from == nil {
					d.a.Inject(0, frame)
				} else {
					d.wire.Inject(0, frame)
				}
				if got := d.outcome(t); got.where != tt.drop {
					t.Errorf("got %s, want %s", got.where, tt.drop)
				}
				var want []string
				if tt.want != "" {
					want = []string{tt.want}
					eventually(t, "the answer comes", func() bool {
						for _, a := range d.arrived() {
							d.errors = append(d.errors, answered(a))
						}
						return len(d.errors) > 0
					})
				}
				var got []string
				for _, a := range d.errors {
					got = append(got, a.String())
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("answers (-want +got):\n%s", diff)
				}
			}
		})
	}
}

// TestNodeIsTold: the netstack hears of its own packets too, though not within Inject.
func TestNodeIsTold(t *testing.T) {
	d := newBed(t, 1)
	d.run(t)
	for _, tt := range []struct {
		packettest.Packet
		want string
	}{
		{packettest.Packet{Src: gateway, Dst: farPod, Payload: make([]byte, 1500)}, "node: 3/4 mtu 1450 from 10.244.2.2 to 10.244.1.1 about udp 10.244.1.1:0 -> 10.244.2.2:0"},
		{packettest.Packet{Src: gateway6, Dst: podB6, Payload: make([]byte, 1500)}, "node: 2/0 mtu 1450 from fd00:10:244:1::3 to fd00:10:244:1::1 about udp [fd00:10:244:1::1]:0 -> [fd00:10:244:1::3]:0"},
		{packettest.Packet{Src: gateway, Dst: netip.MustParseAddr("203.0.113.1")}, "node: 3/0 from 203.0.113.1 to 10.244.1.1 about udp 10.244.1.1:0 -> 203.0.113.1:0"},
	} {
		d.Inject(packet.Offload{}, tt.Frame()[packet.VnetLen:])
		var got []byte
		eventually(t, "the node is told", func() bool {
			d.node.mu.Lock()
			defer d.node.mu.Unlock()
			if len(d.node.got) > 0 {
				got, d.node.got = d.node.got[0], nil
			}
			return got != nil
		})
		if a := (answered{"node", got}).String(); a != tt.want {
			t.Errorf("got %s\nwant %s", a, tt.want)
		}
	}
}

// TestAnswerQuotesTheWire: a super-packet is quoted as its first segment, with the checksum that it would have had.
func TestAnswerQuotesTheWire(t *testing.T) {
	d := newBed(t, 1)
	d.run(t)
	s := packettest.Packet{Src: podA6, Dst: farPod6, Proto: packet.TCP, Flags: packet.ACK, Seq: 77, Payload: bytes.Repeat([]byte("wire"), 900)}
	frame := s.Super(1390 + 1)
	d.a.Inject(0, frame)
	var got []outcome
	eventually(t, "the answer comes", func() bool { got = append(got, d.arrived()...); return len(got) > 0 })
	want := packettest.Split(frame)[0][:1280-48]
	if diff := cmp.Diff(want, got[0].packet[48:]); diff != "" {
		t.Errorf("quoted (-want +got):\n%s", diff)
	}
}

// errorsAbout has worker 0 take frames of a pod at one moment, and returns how many errors it answers.
func (d *bed) errorsAbout(w *worker, att *attachment, frame []byte, times int) int {
	before := d.Stats().ICMPErrors
	for range times {
		w.begin()
		b := w.pool.Get()
		b.SetFrame(copy(b.Space(), frame))
		w.fromPod(att, b)
		w.flush()
	}
	return int(d.Stats().ICMPErrors - before)
}

// TestNoAnswerToErrors: no error about an error, and no more than the limit allows.
func TestNoAnswerToErrors(t *testing.T) {
	d := newBed(t, 1)
	now := time.Duration(0)
	d.clock = func() time.Duration { return now }
	w, att := d.benchWorker()
	echo := packettest.Packet{Src: podA, Dst: podB, Proto: packet.ICMP, TTL: 1, Payload: make([]byte, 40)}.Frame()
	unreachable := bytes.Clone(echo)
	unreachable[packet.VnetLen+20] = 3
	for _, tt := range []struct {
		name  string
		frame []byte
		after time.Duration
		times int
		want  int
	}{
		{"an error", unreachable, 0, 1, 0},
		{"an echo request", echo, 0, 1, 1},
		{"10,000 echo requests", echo, 0, 10_000, nodeicmp.Burst - 1},
		{"more of them 10 ms later", echo, 10 * time.Millisecond, 10_000, 10},
		{"a packet too big, however many others were sent", packettest.Packet{Src: podA, Dst: podB, Payload: make([]byte, 2000)}.Frame(), 0, 1, 1},
	} {
		now += tt.after
		if got := d.errorsAbout(w, att, tt.frame, tt.times); got != tt.want {
			t.Errorf("%d errors about %s, want %d", got, tt.name, tt.want)
		}
	}
	if got := d.Stats().Drops["ttl"]; got != 20_002 {
		t.Errorf("%d dropped, want 20,002", got)
	}
}

// TestTooBigIsShared: a pod that sends packets too big without end leaves other sources what they need to find their MTU.
func TestTooBigIsShared(t *testing.T) {
	d := newBed(t, 1)
	d.clock = func() time.Duration { return 0 }
	w, a := d.benchWorker()
	b := d.tables.Load().attachments[1-d.idA]
	big := func(src, dst netip.Addr) []byte {
		return packettest.Packet{Src: src, Dst: dst, Payload: make([]byte, 2000)}.Frame()
	}
	share := func(src netip.Addr) uint64 {
		f := packet.NewFlow(packet.UDP, netip.AddrPortFrom(src, 0), netip.AddrPortFrom(src, 0))
		return f.HashSource(d.flows.Seed()) % nodeicmp.Shares
	}
	if got := d.errorsAbout(w, a, big(podA, farPod), 10_000); got < 1 || got > nodeicmp.Burst {
		t.Errorf("%d errors to the one that floods", got)
	}
	for _, tt := range []struct {
		att      *attachment
		src, dst netip.Addr
	}{{a, podA6, farPod6}, {b, podB, farPod}, {b, podB6, farPod6}} {
		if share(tt.src) == share(podA) {
			continue // by chance
		}
		if got := d.errorsAbout(w, tt.att, big(tt.src, tt.dst), 1); got != 1 {
			t.Errorf("%d errors to %v, want 1", got, tt.src)
		}
	}
}

// TestCut: what may be fragmented is, whole or in segments, and arrives as it was sent.
func TestCut(t *testing.T) {
	for _, tt := range []struct {
		name string
		dst  netip.Addr
		size int // of a segment, if it is a super-packet
		want int // packets
	}{
		{"to a pod", podB, 0, 3},
		{"to a peer", farPod, 0, 3},
		{"datagrams to a peer", farPod, 1500, 4},
		{"datagrams to a pod", podB, 2000, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newBed(t, 1)
			d.run(t)
			s := packettest.Packet{Src: podA, Dst: tt.dst, SrcPort: 9, DstPort: 7, ID: 300, Payload: make([]byte, 3000)}
			for i := range s.Payload {
				s.Payload[i] = byte(i >> 2)
			}
			frame := s.Frame()
			if tt.size > 0 {
				frame = s.Super(tt.size)
			}
			mayFragment(frame[packet.VnetLen:])
			d.a.Inject(0, frame)
			var got []outcome
			eventually(t, "all pieces come", func() bool { got = append(got, d.arrived()...); return len(got) >= tt.want })
			if len(got) != tt.want {
				t.Errorf("got %d packets, want %d", len(got), tt.want)
			}
			var payload []byte
			for _, o := range got {
				var p packet.Parsed
				if r := packet.Parse(o.packet, &p); r != packet.Kept || p.Len > testMTU || p.TTL != 63 {
					t.Errorf("a piece: %v, %+v", r, p)
				}
				b := o.packet[20:p.Len]
				if p.FragmentOffset == 0 {
					b = b[8:]
				}
				payload = append(payload, b...)
			}
			if !bytes.Equal(payload, s.Payload) {
				t.Errorf("%d bytes of payload came, not as they were sent", len(payload))
			}
			if st := d.Stats(); len(st.Drops) > 0 || st.Packets != uint64(tt.want) {
				t.Errorf("%d packets, dropped %v", st.Packets, st.Drops)
			}
		})
	}
}

// mayFragment takes away an IPv4 packet's flag that forbids it.
func mayFragment(b []byte) {
	b[6] &^= 0x40
	binary.BigEndian.PutUint16(b[10:], 0)
	binary.BigEndian.PutUint16(b[10:], ^packet.Checksum(b[:20], 0))
}
