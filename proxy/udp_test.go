package proxy

import (
	"bytes"
	"net"
	"net/netip"
	"testing"

	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
)

// families are pods with a place outside, here the loopback device of the test's machine.
var families = []struct {
	name                 string
	pod, outside, router netip.Addr
}{
	{"IPv4", podA, local, gateway},
	{"IPv6", podA6, local6, gateway6},
}

func TestUDPEgress(t *testing.T) {
	for _, tt := range families {
		t.Run(tt.name, func(t *testing.T) {
			n := start(t, Config{})
			server := serveUDP(t, tt.outside)
			pod := netip.AddrPortFrom(tt.pod, 4000)
			for _, size := range []int{0, 1, 100, 1400} {
				d := packettest.Packet{Src: pod.Addr(), Dst: server.Addr(), SrcPort: pod.Port(), DstPort: server.Port(), Payload: pattern(size), TTL: 63, TOS: 0xb8}
				n.deliver(d.Frame())
				if got := expectDatagram(t, n.out, server, pod); !bytes.Equal(got, d.Payload) {
					t.Errorf("%d bytes: got %d others", size, len(got))
				}
			}
			if s := n.Stats().UDP; s.Open != 1 || s.Opened != 1 || s.Sent != 4 || s.Received != 4 || s.Dropped != 0 {
				t.Errorf("got %+v, want one flow that sent and received 4", s)
			}
		})
	}
}

// TestUDPTrain: a pod's train leaves as datagrams, and comes back as one.
func TestUDPTrain(t *testing.T) {
	for _, tt := range families {
		t.Run(tt.name, func(t *testing.T) {
			n := start(t, Config{})
			server := serveUDP(t, tt.outside)
			pod := netip.AddrPortFrom(tt.pod, 4000)
			d := packettest.Packet{Src: pod.Addr(), Dst: server.Addr(), SrcPort: pod.Port(), DstPort: server.Port(), Payload: pattern(10_050)}
			n.deliver(d.Super(1000))
			var got []byte
			for range 11 {
				got = append(got, expectDatagram(t, n.out, server, pod)...)
			}
			if !bytes.Equal(got, d.Payload) {
				t.Error("the datagrams are others")
			}
		})
	}
}

// TestUDPRefused: the pod hears that nobody listens, from whom the kernel heard it.
func TestUDPRefused(t *testing.T) {
	for _, tt := range families {
		t.Run(tt.name, func(t *testing.T) {
			n := start(t, Config{})
			closed := netip.AddrPortFrom(tt.outside, closedPort(t, tt.outside))
			d := packettest.Packet{Src: tt.pod, Dst: closed.Addr(), SrcPort: 4000, DstPort: closed.Port(), Payload: []byte("hello")}
			for range 3 { // the second and third meet the error that waits at the socket
				n.deliver(d.Frame())
				b, h := receive(t, n.out)
				var q packet.Quote
				if !packet.ParseQuote(b, &h, &q) || q.Flow != packet.NewFlow(packet.UDP, netip.AddrPortFrom(tt.pod, 4000), closed) {
					t.Fatalf("got %x, want an error about the flow", b)
				}
				kind := [2]byte(b[h.L4:])
				if want := map[bool][2]byte{true: {3, 3}, false: {1, 4}}[tt.pod.Is4()]; kind != want || h.Flow.Src() != tt.outside {
					t.Errorf("got %v from %v, want %v from %v", kind, h.Flow.Src(), want, tt.outside)
				}
				if !bytes.HasSuffix(b, []byte("hello")) {
					t.Errorf("the data is not quoted: %x", b)
				}
			}
		})
	}
}

// closedPort returns a port at which nobody listens.
func closedPort(t *testing.T, addr netip.Addr) uint16 {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Port()
}

// TestUDPLargeDatagrams: what a pod's kernel has cut is put together, and the answer is cut where routers may not.
func TestUDPLargeDatagrams(t *testing.T) {
	for _, tt := range families {
		t.Run(tt.name, func(t *testing.T) {
			n := start(t, Config{MTU: 1450})
			server := serveUDP(t, tt.outside)
			pod := netip.AddrPortFrom(tt.pod, 4000)
			d := packettest.Packet{Src: pod.Addr(), Dst: server.Addr(), SrcPort: pod.Port(), DstPort: server.Port(), Payload: pattern(8000)}
			flow := packet.NewFlow(packet.UDP, pod, server)
			for _, f := range packettest.Fragments(d.Frame()[packet.VnetLen:], 1450, 7) {
				var h packet.Parsed
				if r := packet.Parse(f, &h); r != packet.Kept {
					t.Fatal(r)
				}
				h.Follow(flow, true)
				n.Deliver(f, &h, packet.Offload{})
			}
			if tt.pod.Is4() {
				if got := expectDatagram(t, n.out, server, pod); !bytes.Equal(got, d.Payload) {
					t.Errorf("got %d other bytes", len(got))
				}
				return
			}
			var pieces assembler
			pieces.init()
			for range 6 {
				b, h := receive(t, n.out)
				if h.Len > 1450 {
					t.Errorf("a fragment has %d bytes", h.Len)
				}
				if whole, h := pieces.add(b, &h); whole != nil {
					if got := packet.UDPPayload(whole, h); !bytes.Equal(got, d.Payload) {
						t.Errorf("got %d other bytes", len(got))
					}
					return
				}
			}
			t.Error("six fragments are not the whole")
		})
	}
}

func TestUDPListener(t *testing.T) {
	for _, tt := range families {
		for _, wildcard := range []bool{false, true} {
			t.Run(tt.name+map[bool]string{true: " wildcard"}[wildcard], func(t *testing.T) {
				n := start(t, Config{})
				front := netip.AddrPortFrom(tt.outside, closedPort(t, tt.outside))
				l := Listener{Addr: front, Proto: packet.UDP}
				if wildcard {
					l.Addr = netip.AddrPortFrom(netip.IPv6Unspecified(), front.Port())
					if tt.outside.Is4() {
						l.Addr = netip.AddrPortFrom(netip.IPv4Unspecified(), front.Port())
					}
				}
				n.SetListeners(map[Listener]string{l: "default/dns"})
				eventually(t, "the listener is open", func() bool { return n.Stats().Listeners == 1 })
				client, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(front))
				if err != nil {
					t.Fatal(err)
				}
				defer client.Close()
				from := client.LocalAddr().(*net.UDPAddr).AddrPort()
				if _, err := client.Write([]byte("question")); err != nil {
					t.Fatal(err)
				}
				if got := expectDatagram(t, n.out, from, front); string(got) != "question" {
					t.Errorf("got %q", got)
				}
				n.deliver(packettest.Packet{Src: front.Addr(), Dst: from.Addr(), SrcPort: front.Port(), DstPort: from.Port(), Payload: []byte("answer")}.Frame())
				b := make([]byte, 100)
				if size, err := client.Read(b); err != nil || string(b[:size]) != "answer" {
					t.Errorf("got %q, %v", b[:size], err)
				}
				n.SetListeners(nil)
				eventually(t, "the listener is closed", func() bool { return n.Stats().UDP.Listeners == 0 })
			})
		}
	}
}
