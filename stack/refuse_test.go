package stack

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/middleway-net/middleway/stack/icmp"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
	"github.com/middleway-net/middleway/stack/service"
)

// TestReset: a refused segment of TCP is answered as by a closed port, so that its sender believes the answer (RFC 9293, section
// 3.10.7.1).
func TestReset(t *testing.T) {
	const syn, ack, fin, rst = packet.SYN, packet.ACK, packet.FIN, packet.RST
	for _, tt := range []struct {
		name     string
		flags    byte
		payload  int
		size     int // of a segment, if it is a super-packet
		want     byte
		seq, ack uint32
	}{
		{"SYN", syn, 0, 0, rst | ack, 0, 1001},
		{"SYN with data", syn, 10, 0, rst | ack, 0, 1011},
		{"a segment of a connection", ack, 10, 0, rst, 1, 0},
		{"FIN", fin | ack, 0, 0, rst, 1, 0},
		{"FIN without ACK", fin, 5, 0, rst | ack, 0, 1006},
		{"no flags", 0, 5, 0, rst | ack, 0, 1005},
		{"a super-packet", ack, 20000, 1400, rst, 1, 0},
		{"a super-packet without ACK", 0, 20000, 1400, rst | ack, 0, 21000},
		{"RST", rst, 0, 0, 0, 0, 0},
		{"RST with ACK", rst | ack, 0, 0, 0, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, from := range []struct{ src, dst netip.Addr }{{podA, empty}, {podA6, empty6}} {
				d := newServiceBed(t, 1)
				att := d.tables.Load().attachments[d.idA]
				p := packettest.Packet{Src: from.src, Dst: from.dst, Proto: packet.TCP, SrcPort: 4000, DstPort: 80, Seq: 1000, Flags: tt.flags, Payload: make([]byte, tt.payload)}
				frame := p.Frame()
				if tt.size > 0 {
					frame = p.Super(tt.size)
				}
				got := d.traceFrame(d.tables.Load(), att, originPod, frame, false)
				if got.Reason != "no-backend" {
					t.Fatalf("got %+v", got)
				}
				if tt.want == 0 {
					if len(got.Answers) > 0 {
						t.Errorf("answered by % x", got.Answers[0])
					}
					continue
				}
				if len(got.Answers) != 1 {
					t.Fatalf("%d answers", len(got.Answers))
				}
				b := got.Answers[0]
				var r packet.Parsed
				if reason := packet.Parse(b, &r); reason != packet.Kept || !packet.TransportChecksumOK(b, &r) {
					t.Fatalf("%v, or its checksum is wrong", reason)
				}
				seg := b[r.L4:]
				if seq, ack := binary.BigEndian.Uint32(seg[4:]), binary.BigEndian.Uint32(seg[8:]); r.Flags != tt.want || seq != tt.seq || ack != tt.ack {
					t.Errorf("flags %#x seq %d ack %d, want %#x %d %d", r.Flags, seq, ack, tt.want, tt.seq, tt.ack)
				}
				if want := netip.AddrPortFrom(from.dst, 80); tupleOf(&r.Flow).Src != want {
					t.Errorf("from %v, want %v", r.Flow, want)
				}
				if n := d.flows.Len(); n != 0 {
					t.Errorf("%d flows were entered", n)
				}
			}
		})
	}
}

// What is refused leaves by the workers too, is counted, and not more often than other errors.
func TestRefusalsLimited(t *testing.T) {
	d := newServiceBed(t, 1)
	d.clock = func() time.Duration { return 0 } // however slow the machine is
	d.run(t)
	const n = 3 * icmp.Burst
	for range n {
		d.a.Inject(0, packettest.Packet{Src: podA, Dst: empty, Proto: packet.TCP, SrcPort: 4000, DstPort: 80, Flags: packet.SYN}.Frame())
	}
	eventually(t, "all are dropped", func() bool { return d.Stats().Drops["no-backend"] == n })
	resets := len(d.a.Written())
	if resets != icmp.Burst {
		t.Errorf("%d of %d were answered, want %d", resets, n, icmp.Burst)
	}
	if st := d.Stats(); st.ICMPErrors != 0 || int(st.Packets) != resets {
		t.Errorf("counted %d packets and %d errors, want %d and none", st.Packets, st.ICMPErrors, resets)
	}
}

// The netstack is refused too, by its own goroutine.
func TestNodeIsRefused(t *testing.T) {
	d := newServiceBed(t, 1)
	d.run(t)
	for _, proto := range []packet.Proto{packet.TCP, packet.UDP} {
		frame := packettest.Packet{Src: gateway, Dst: empty, Proto: proto, SrcPort: 4000, DstPort: 80, Flags: packet.SYN}.Frame()
		d.Inject(packet.Offload{}, frame[packet.VnetLen:])
		var got []byte
		eventually(t, "it hears of it", func() bool {
			d.node.mu.Lock()
			defer d.node.mu.Unlock()
			if len(d.node.got) == 0 {
				return false
			}
			got, d.node.got = d.node.got[0], nil
			return true
		})
		want := map[packet.Proto]string{packet.TCP: "tcp 10.96.0.24:80 -> 10.244.1.1:4000", packet.UDP: "icmp 10.96.0.24:0 -> 10.244.1.1:0"}[proto]
		if s := describe(t, got); s != want {
			t.Errorf("got %s, want %s", s, want)
		}
	}
}

// TestPing: a Service's address answers pings, whole and in pieces, and leaves no flow behind.
func TestPing(t *testing.T) {
	d := newServiceBed(t, 1)
	d.run(t)
	ping := packettest.Packet{Src: podA, Dst: web, Proto: packet.ICMP, SrcPort: 9, TTL: 3, Payload: bytes.Repeat([]byte("ping"), 700)}
	pong := ping
	pong.Src, pong.Dst, pong.TTL = web, podA, 64
	want := pong.Frame()[packet.VnetLen:]
	want[20] = 0 // a reply
	binary.BigEndian.PutUint16(want[22:], 0)
	binary.BigEndian.PutUint16(want[22:], ^packet.Checksum(want[20:], 0))
	pieces := packettest.Fragments(ping.Frame()[packet.VnetLen:], 1400, 0)
	for _, piece := range pieces {
		d.a.Inject(0, append(make([]byte, packet.VnetLen), piece...))
	}
	var got [][]byte
	eventually(t, "all pieces come back", func() bool {
		for _, o := range d.arrived() {
			got = append(got, o.packet)
		}
		return len(got) == len(pieces)
	})
	if diff := cmp.Diff(packettest.Fragments(want, 1400, 0), got); diff != "" {
		t.Errorf("pieces (-want +got):\n%s", diff)
	}
	if n := d.flows.Len(); n != 0 {
		t.Errorf("%d flows were entered", n)
	}
	// A reply that nobody has asked for is not answered.
	d.a.Inject(0, append(make([]byte, packet.VnetLen), answerlessReply(ping)...))
	if o := d.outcome(t); o.where != "service-port" {
		t.Errorf("a reply: got %s", o.where)
	}
}

// answerlessReply returns an echo reply with the addresses of a request.
func answerlessReply(ping packettest.Packet) []byte {
	ping.Payload = nil
	b := ping.Frame()[packet.VnetLen:]
	b[20] = 0
	binary.BigEndian.PutUint16(b[22:], 0)
	binary.BigEndian.PutUint16(b[22:], ^packet.Checksum(b[20:], 0))
	return b
}

// echoServer answers queries of up to ten bytes by repeating them, and leaves others to the node.
type echoServer struct{}

func (echoServer) Answer(out, query []byte, client netip.Addr) (int, bool) {
	if len(query) > 10 {
		return 0, false
	}
	n := copy(out, query)
	return n + copy(out[n:], client.String()), true
}

// TestDNS: the worker answers at the DNS Service's address, and leaves to the netstack what its server does not answer at once.
func TestDNS(t *testing.T) {
	for _, tt := range []struct {
		name string
		from string
		sent packettest.Packet
		want string
	}{
		{"a query", "a", packettest.Packet{Src: podA, Dst: dnsVIP, SrcPort: 4000, DstPort: 53, Payload: []byte("web")}, "a: udp 10.96.0.10:53 -> 10.244.1.2:4000 web10.244.1.2"},
		{"over IPv6", "a", packettest.Packet{Src: podA6, Dst: dnsVIP6, SrcPort: 4000, DstPort: 53, Payload: []byte("web")}, "a: udp [fd00:10:96::a]:53 -> [fd00:10:244:1::2]:4000 webfd00:10:244:1::2"},
		{"of the host", "host", packettest.Packet{Src: hostNode, Dst: dnsVIP, SrcPort: 4000, DstPort: 53, Payload: []byte("web")}, "host: udp 10.96.0.10:53 -> 192.168.254.11:4000 web192.168.254.11"},
		{"of the last hop", "a", packettest.Packet{Src: podA, Dst: dnsVIP, SrcPort: 4000, DstPort: 53, TTL: 1, Payload: []byte("web")}, "a: udp 10.96.0.10:53 -> 10.244.1.2:4000 web10.244.1.2"},
		{"not at once", "a", packettest.Packet{Src: podA, Dst: dnsVIP, SrcPort: 4000, DstPort: 53, Payload: []byte("outside.test")}, "node: udp 10.244.1.2:4000 -> 10.96.0.10:53 outside.test"},
		{"over TCP", "a", packettest.Packet{Src: podA, Dst: dnsVIP, Proto: packet.TCP, SrcPort: 4000, DstPort: 53, Flags: packet.SYN}, "node: tcp 10.244.1.2:4000 -> 10.96.0.10:53 "},
		{"another port", "a", packettest.Packet{Src: podA, Dst: dnsVIP, SrcPort: 4000, DstPort: 54}, "service-port"},
		{"another port that the Service has", "a", packettest.Packet{Src: podA, Dst: dnsVIP, Proto: packet.TCP, SrcPort: 4000, DstPort: 9153, Flags: packet.SYN}, "service-port"},
		{"SCTP", "a", packettest.Packet{Src: podA, Dst: dnsVIP, Proto: packet.SCTP, SrcPort: 4000, DstPort: 53}, "service-port"},
		{"from a peer", "peer", packettest.Packet{Src: farPod, Dst: dnsVIP, SrcPort: 4000, DstPort: 53, Payload: []byte("web")}, "no-service"},
		{"from a peer, over TCP", "peer", packettest.Packet{Src: farPod, Dst: dnsVIP, Proto: packet.TCP, SrcPort: 4000, DstPort: 53, Flags: packet.SYN}, "no-service"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newServiceBed(t, 1)
			d.dns, d.answer = keysOf([]netip.Addr{dnsVIP, dnsVIP6}), echoServer{}
			d.nodeAddrs(t, dnsVIP, dnsVIP6)
			dns := serving(dnsVIP, "udp:53", "10.244.1.3:53")
			for f, p := range serving(dnsVIP, "tcp:9153", "10.244.1.3:9153").Frontends {
				dns.Frontends[f] = p
			}
			d.SetServices(service.New(serviceRanges).With(map[string]*service.Service{"kube-system/kube-dns": dns}))
			d.run(t)
			for range 2 {
				d.from(tt.from).Inject(0, tt.sent.Frame())
				o := d.outcome(t)
				got := o.where
				if o.packet != nil {
					var p packet.Parsed
					packet.Parse(o.packet, &p)
					got += ": " + describe(t, o.packet) + " "
					if p.Proto == packet.UDP {
						got += string(packet.UDPPayload(o.packet, &p))
					}
				}
				if got != tt.want {
					t.Errorf("got %s, want %s", got, tt.want)
				}
				d.arrived() // the refusals
			}
			if n := d.flows.Len(); n > 2 || n > 0 && got0(tt.want) != "node" {
				t.Errorf("%d flows were entered", n)
			}
		})
	}
}

func got0(s string) string { return s[:min(4, len(s))] }

// nodeAddrs gives the node further addresses.
func (d *bed) nodeAddrs(t *testing.T, addrs ...netip.Addr) {
	t.Helper()
	tables := *d.tables.Load()
	tables.nodeAddrs = append([]netip.Addr{gateway, gateway6}, addrs...)
	d.tables.Store(&tables)
	if err := d.publish(tables.attachments); err != nil {
		t.Fatal(err)
	}
}

// The netstack's answer to a query that was left to it comes from the address that was asked.
func TestDNSAnswerOfNode(t *testing.T) {
	d := newServiceBed(t, 1)
	d.dns, d.answer = keysOf([]netip.Addr{dnsVIP}), echoServer{}
	d.nodeAddrs(t, dnsVIP)
	d.run(t)
	d.a.Inject(0, packettest.Packet{Src: podA, Dst: dnsVIP, SrcPort: 4000, DstPort: 53, Payload: []byte("outside.test")}.Frame())
	d.comesOut(t)
	d.Inject(packet.Offload{}, packettest.Packet{Src: dnsVIP, Dst: podA, SrcPort: 53, DstPort: 4000}.Frame()[packet.VnetLen:])
	if got, want := d.comesOut(t), "a: udp 10.96.0.10:53 -> 10.244.1.2:4000"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
