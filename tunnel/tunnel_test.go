package tunnel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
	"github.com/middleway-net/middleway/tunnel/vxlan"
)

// Two nodes on the loopback device, whose MTU lets trains through whole.
var (
	node1 = netip.MustParseAddr("127.0.0.1")
	node2 = netip.MustParseAddr("127.0.0.2")
	node3 = netip.MustParseAddr("127.0.0.3") // no peer
	mac1  = vxlan.MAC{2, 0, 0, 0, 0, 1}
	mac2  = vxlan.MAC{2, 0, 0, 0, 0, 2}
	pod1  = netip.MustParseAddr("10.244.1.2")
	pod2  = netip.MustParseAddr("10.244.2.2")
	pod16 = netip.MustParseAddr("fd00:10:244:1::2")
	pod26 = netip.MustParseAddr("fd00:10:244:2::2")
)

const innerMTU = 1450

// pair is two tunnels to each other; peer edits what each knows of the other.
func pair(t testing.TB, change func(*Peer)) (one, two *Tunnel) {
	t.Helper()
	port := freePort(t)
	open := func(local, remote netip.Addr, mac, remoteMAC vxlan.MAC, sources ...string) *Tunnel {
		tn, err := New(Config{Local: local, Port: port, MAC: mac, MTU: innerMTU, Workers: 1})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := tn.Close(); err != nil {
				t.Error(err)
			}
		})
		p := Peer{Addr: remote, MAC: remoteMAC}
		for _, s := range sources {
			p.Sources = append(p.Sources, netip.MustParsePrefix(s))
		}
		change(&p)
		if err := tn.SetPeers([]Peer{p}); err != nil {
			t.Fatal(err)
		}
		return tn
	}
	one = open(node1, node2, mac1, mac2, "10.244.2.0/24", "fd00:10:244:2::/64")
	two = open(node2, node1, mac2, mac1, "10.244.1.0/24", "fd00:10:244:1::/64")
	return one, two
}

func freePort(t testing.TB) uint16 {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: node1.AsSlice()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
}

// send sends a frame as a worker does and flushes.
func send(tn *Tunnel, pool *packet.Pool, frame []byte, to netip.Addr) {
	b := pool.Get()
	b.SetFrame(copy(b.Space(), frame))
	var p packet.Parsed
	packet.Parse(b.Packet(), &p)
	o, _ := packet.DecodeOffload(b.Frame())
	tn.Port(0).Send(b, &p, o, to)
	tn.Port(0).Flush()
}

// receive waits for n datagrams and returns the inner packets, complete.
func receive(t testing.TB, tn *Tunnel, n int) (packets [][]byte) {
	t.Helper()
	got := 0
	for end := time.Now().Add(5 * time.Second); got < n; {
		got += tn.Port(0).Receive(func(frame []byte, p *packet.Parsed, o packet.Offload) {
			frame = frame[:packet.VnetLen+p.Len]
			o.Encode(frame)
			packets = append(packets, packettest.Split(frame)...)
		})
		if time.Now().After(end) {
			t.Fatalf("got %d of %d datagrams", got, n)
		}
	}
	return packets
}

// TestRoundTrip: whatever a pod's device hands over, the peer gets the packets that its kernel would have made of it.
func TestRoundTrip(t *testing.T) {
	data := make([]byte, 60000)
	for i := range data {
		data[i] = byte(i * 7)
	}
	tcp4 := packettest.Packet{Src: pod1, Dst: pod2, Proto: packet.TCP, SrcPort: 4000, DstPort: 80, Flags: packet.ACK | packet.PSH, Seq: 77, ID: 9}
	tcp6 := packettest.Packet{Src: pod16, Dst: pod26, Proto: packet.TCP, SrcPort: 4000, DstPort: 80, Flags: packet.ACK}
	udp4 := packettest.Packet{Src: pod1, Dst: pod2, SrcPort: 53, DstPort: 53}
	with := func(d packettest.Packet, n int) packettest.Packet { d.Payload = data[:n]; return d }
	frames := map[string][]byte{
		"small":         with(udp4, 10).Frame(),
		"open checksum": with(udp4, 100).Super(100),
		"full MTU":      with(udp4, innerMTU-28).Frame(),
		"TCP train":     with(tcp4, 60000).Super(innerMTU - 40),
		"TCP odd train": with(tcp4, 1411).Super(innerMTU - 40),
		"many segments": with(tcp4, 60000).Super(536),
		"IPv6 train":    with(tcp6, 50000).Super(innerMTU - 60),
		"UDP train":     with(udp4, 30000).Super(1000),
		"ICMP":          packettest.Packet{Src: pod1, Dst: pod2, Proto: packet.ICMP, SrcPort: 5, Payload: data[:64]}.Frame(),
	}
	for kind, change := range map[string]func(*Peer){
		"middleway": func(p *Peer) { p.Trains, p.RemoteChecksum = true, true },
		"trains":    func(p *Peer) { p.Trains = true },
		"kernel":    func(p *Peer) { p.Unfinished = true },
	} {
		t.Run(kind, func(t *testing.T) {
			one, two := pair(t, change)
			var pool packet.Pool
			for name, frame := range frames {
				want := packettest.Split(frame)
				send(one, &pool, frame, node2)
				got := receive(t, two, len(want))
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatalf("%s: packets (-want +got):\n%.2000s", name, diff)
				}
			}
			for _, port := range []*Port{one.Port(0), two.Port(0)} {
				drops := map[string]uint64{}
				if port.Drops().AddTo(drops); len(drops) != 0 {
					t.Errorf("drops: %v", drops)
				}
			}
			if pool.Made() != 1 {
				t.Errorf("%d buffers made for one packet at a time: Send or Flush kept some", pool.Made())
			}
		})
	}
}

// TestSendDrops: what cannot be sent is counted, and its buffer comes back.
func TestDescribe(t *testing.T) {
	one, _ := pair(t, func(*Peer) {})
	for addr, want := range map[netip.Addr]string{
		node2: fmt.Sprintf("VXLAN to 127.0.0.2:%d, VNI 1", one.config.Port), node3: "nowhere: 127.0.0.3 is no peer",
	} {
		if got := one.Port(0).Describe(addr); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestSendDrops(t *testing.T) {
	one, _ := pair(t, func(p *Peer) { p.Trains = true })
	for _, tt := range []struct {
		name  string
		frame []byte
		to    netip.Addr
		want  string
	}{
		{"no such peer", packettest.Packet{Src: pod1, Dst: pod2}.Frame(), node3, "send"},
		{"over the MTU", packettest.Packet{Src: pod1, Dst: pod2, Payload: make([]byte, innerMTU-27)}.Frame(), node2, "too-big"},
		{"segments over the MTU", packettest.Packet{Src: pod1, Dst: pod2, Payload: make([]byte, 3000)}.Super(innerMTU - 27), node2, "too-big"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := map[string]uint64{}
			one.Port(0).Drops().AddTo(before)
			var pool packet.Pool
			send(one, &pool, tt.frame, tt.to)
			after := map[string]uint64{}
			one.Port(0).Drops().AddTo(after)
			if after[tt.want] != before[tt.want]+1 {
				t.Errorf("drops before %v, after %v: want one more %s", before, after, tt.want)
			}
			if pool.Get(); pool.Made() != 1 {
				t.Error("the buffer did not come back")
			}
		})
	}
}

// datagram returns what node 2 sends to node 1: a good one, for tests to spoil.
func datagram(inner []byte) []byte {
	h := vxlan.Header{VNI: vxlan.DefaultVNI, Dst: mac1, Src: mac2, Type: vxlan.EtherTypeIPv4}
	b := make([]byte, vxlan.Overhead, vxlan.Overhead+len(inner))
	h.Encode(b)
	return append(b, inner...)
}

// spoiled are datagrams that a peer must not get in with, by what is wrong with them.
func spoiled() map[string]struct {
	data []byte
	want packet.DropReason
} {
	inner := packettest.Packet{Src: pod2, Dst: pod1, Payload: []byte("hello")}.Frame()[packet.VnetLen:]
	edit := func(f func(b []byte)) []byte { b := datagram(inner); f(b); return b }
	type row = struct {
		data []byte
		want packet.DropReason
	}
	return map[string]row{
		"empty":                                  {[]byte{}, packet.DropNotVXLAN},
		"no I flag":                              {edit(func(b []byte) { b[0] = 0 }), packet.DropNotVXLAN},
		"unknown flag":                           {edit(func(b []byte) { b[0] |= 0x80 }), packet.DropNotVXLAN},
		"reserved bits":                          {edit(func(b []byte) { b[7] = 1 }), packet.DropNotVXLAN},
		"ARP":                                    {edit(func(b []byte) { b[21] = 6 }), packet.DropNotVXLAN},
		"VNI":                                    {edit(func(b []byte) { b[6] = 2 }), packet.DropVNI},
		"VTEP":                                   {edit(func(b []byte) { b[8] ^= 4 }), packet.DropVTEP},
		"Ethernet type":                          {edit(func(b []byte) { binary.BigEndian.PutUint16(b[20:], vxlan.EtherTypeIPv6) }), packet.DropMalformed},
		"inner cut off":                          {datagram(inner)[:vxlan.Overhead+19], packet.DropMalformed},
		"inner checksum":                         {edit(func(b []byte) { b[vxlan.Overhead+10] ^= 1 }), packet.DropChecksum},
		"source":                                 {datagram(packettest.Packet{Src: netip.MustParseAddr("10.244.3.2"), Dst: pod1}.Frame()[packet.VnetLen:]), packet.DropPeerSource},
		"own pod as source":                      {datagram(packettest.Packet{Src: pod1, Dst: pod1}.Frame()[packet.VnetLen:]), packet.DropPeerSource},
		"remote checksum that was not announced": {edit(func(b []byte) { b[1], b[7] = 0x20, 0x80|17 }), packet.DropOffload},
	}
}

func TestReceiveDrops(t *testing.T) {
	one, two := pair(t, func(*Peer) {})
	from := func(a netip.Addr) net.Conn {
		c, err := net.DialUDP("udp4", &net.UDPAddr{IP: a.AsSlice()}, &net.UDPAddr{IP: node1.AsSlice(), Port: int(two.config.Port)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	peer, stranger := from(node2), from(node3)
	expect := func(name string, c net.Conn, data []byte, want packet.DropReason) {
		t.Helper()
		before := one.Port(0).Drops()[want].Load()
		if _, err := c.Write(data); err != nil {
			t.Fatal(err)
		}
		if got := receive(t, one, 1); len(got) != 0 {
			t.Errorf("%s: delivered %x", name, got[0])
		}
		if one.Port(0).Drops()[want].Load() != before+1 {
			all := map[string]uint64{}
			one.Port(0).Drops().AddTo(all)
			t.Errorf("%s: want one more %v, have %v", name, want, all)
		}
	}
	for name, tt := range spoiled() {
		expect(name, peer, tt.data, tt.want)
	}
	inner := packettest.Packet{Src: pod2, Dst: pod1, Payload: []byte("hello")}.Frame()[packet.VnetLen:]
	expect("stranger", stranger, datagram(inner), packet.DropUnknownPeer)
	if _, err := peer.Write(datagram(inner)); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, one, 1); len(got) != 1 || !bytes.Equal(got[0], inner) {
		t.Errorf("a good datagram afterwards: got %x, want %x", got, inner)
	}
}

// TestUnfinished: what a kernel on this machine hands over without finishing it, and only from a peer that is one.
func TestUnfinished(t *testing.T) {
	super := packettest.Packet{Src: pod2, Dst: pod1, Proto: packet.TCP, Flags: packet.ACK, Payload: make([]byte, 20000)}.Super(1000)[packet.VnetLen:]
	udp := packettest.Packet{Src: pod2, Dst: pod1, Payload: make([]byte, 20000)}.Super(1000)[packet.VnetLen:]
	open := packettest.Packet{Src: pod2, Dst: pod1, Payload: []byte("open")}.Super(4)[packet.VnetLen:]
	done := packettest.Packet{Src: pod2, Dst: pod1, Payload: []byte("done")}.Frame()[packet.VnetLen:]
	for _, tt := range []struct {
		name       string
		inner      []byte
		unfinished bool
		want       packet.DropReason
		gso        packet.GSO
		checksum   bool
		segment    int // told by the kernel
	}{
		{"super-packet of a kernel", super, true, packet.Kept, packet.GSOTCP4, true, 0},
		{"UDP super-packet of a kernel", udp, true, packet.Kept, packet.GSOUDP, true, 1000},
		{"datagram of a kernel, larger than the MTU", udp, true, packet.Kept, packet.GSONone, true, 0},
		{"of another, larger than the MTU", super, false, packet.Kept, packet.GSONone, false, 0},
		{"open checksum of a kernel", open, true, packet.Kept, packet.GSONone, true, 0},
		{"open checksum of another", open, false, packet.Kept, packet.GSONone, false, 0},
		{"complete", done, true, packet.Kept, packet.GSONone, false, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, from := fakeEnd()
			from.Unfinished, p.segment = tt.unfinished, tt.segment
			o, message, reason := p.open(datagram(tt.inner), from)
			if reason != tt.want || message {
				t.Fatalf("got %v, want %v", reason, tt.want)
			}
			if proved := from.proved.Load(); proved != (tt.gso != packet.GSONone) {
				t.Errorf("proved to take trains: %v", proved)
			}
			if reason == packet.Kept && (o.GSO != tt.gso || o.NeedsChecksum != tt.checksum) {
				t.Errorf("offload %+v, want GSO %d and checksum %v", o, tt.gso, tt.checksum)
			}
		})
	}
}

// fakeEnd returns a port without sockets and a peer, to open datagrams with.
func fakeEnd() (*Port, *peer) {
	t := &Tunnel{config: Config{VNI: vxlan.DefaultVNI, MAC: mac1, MTU: innerMTU}}
	return &Port{t: t}, &peer{way: &way{}, Peer: Peer{Addr: node2, Sources: []netip.Prefix{netip.MustParsePrefix("10.244.2.0/24")}}}
}

// FuzzOpen opens arbitrary datagrams: whatever is kept parses, comes from the sender's range, and can be written to a pod.
func FuzzOpen(f *testing.F) {
	for _, s := range spoiled() {
		f.Add(s.data, false, uint16(0))
		f.Add(s.data, true, uint16(0))
	}
	f.Add(helloDatagram(), true, uint16(0))
	f.Add(datagram(packettest.Packet{Src: pod2, Dst: pod1, Proto: packet.TCP, Payload: make([]byte, 3000)}.Super(1000)[packet.VnetLen:]), true, uint16(0))
	f.Add(datagram(packettest.Packet{Src: pod2, Dst: pod1, Payload: make([]byte, 3000)}.Super(1000)[packet.VnetLen:]), true, uint16(1000))
	f.Fuzz(func(t *testing.T, data []byte, trusted bool, segment uint16) {
		p, from := fakeEnd()
		if trusted {
			p.segment = int(segment) // told by a kernel, and so only of a peer that is one
		}
		from.Unfinished, from.RemoteChecksum, from.Hello = trusted, trusted, trusted
		o, message, reason := p.open(data, from)
		if reason != packet.Kept || message {
			return
		}
		inner := data[vxlan.Overhead:]
		if !from.owns(p.parsed.Flow.Src()) || p.parsed.Len > len(inner) {
			t.Fatalf("kept %v", p.parsed.Flow)
		}
		if o.Check(inner, &p.parsed) != packet.Kept {
			t.Fatalf("offload %+v contradicts the packet", o)
		}
		if !trusted && o != (packet.Offload{}) {
			t.Fatalf("took %+v from a peer that did not announce it", o)
		}
	})
}

// TestECN: the outer field is the inner one's, and what came with the outer one is combined (RFC 6040).
func TestECN(t *testing.T) {
	one, two := pair(t, func(p *Peer) { p.Trains, p.RemoteChecksum = true, true })
	var pool packet.Pool
	for inner := range packet.CE + 1 {
		for name, d := range map[string]packettest.Packet{
			"IPv4": {Src: pod1, Dst: pod2, TOS: 0xb8 | byte(inner), Proto: packet.TCP, Flags: packet.ACK, Payload: make([]byte, 5000)},
			"IPv6": {Src: pod16, Dst: pod26, TOS: 0xb8 | byte(inner), Payload: make([]byte, 1000)},
		} {
			frame := d.Frame()
			if d.Proto == packet.TCP {
				frame = d.Super(1000)
			}
			want := packettest.Split(frame)
			send(one, &pool, frame, node2)
			if diff := cmp.Diff(want, receive(t, two, len(want))); diff != "" {
				t.Errorf("%s with inner field %d (-want +got):\n%.1000s", name, inner, diff)
			}
			if two.Port(0).outer != inner {
				t.Errorf("%s with inner field %d came with outer field %d", name, inner, two.Port(0).outer)
			}
		}
	}
	for outer := range packet.CE + 1 {
		for inner := range packet.CE + 1 {
			p, from := fakeEnd()
			p.outer = outer
			b := datagram(packettest.Packet{Src: pod2, Dst: pod1, TOS: byte(inner)}.Frame()[packet.VnetLen:])
			want := bytes.Clone(b[vxlan.Overhead:])
			ok := packet.Decapsulate(want, outer)
			if _, _, reason := p.open(b, from); (reason == packet.Kept) != ok || !ok && reason != packet.DropECN {
				t.Errorf("inner %d, outer %d: %v", inner, outer, reason)
			}
			if !bytes.Equal(b[vxlan.Overhead:], want) {
				t.Errorf("inner %d, outer %d: got %x, want %x", inner, outer, b[vxlan.Overhead:], want)
			}
		}
	}
}

func TestNewErrors(t *testing.T) {
	port := freePort(t)
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: node1.AsSlice(), Port: int(port)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = New(Config{Local: node1, Port: port, MAC: mac1, MTU: innerMTU, Workers: 1})
	if err == nil || !strings.Contains(err.Error(), "another program has this port, or a VXLAN device") || !strings.Contains(err.Error(), "vxlan.port") {
		t.Errorf("port in use: %v", err)
	}
	_, err = New(Config{Local: netip.MustParseAddr("192.0.2.1"), Port: port, MAC: mac1, MTU: innerMTU, Workers: 1})
	if err == nil || !strings.Contains(err.Error(), "no interface of this node has that address") {
		t.Errorf("foreign address: %v", err)
	}
	one, err := New(Config{Local: node2, Port: port, MAC: mac1, MTU: innerMTU, Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	if _, err := New(Config{Local: node2, Port: port, MAC: mac1, MTU: innerMTU, Workers: 2}); err == nil {
		t.Error("a second tunnel of the same user shares the port")
	}
	for _, peers := range [][]Peer{{{Addr: node1}, {Addr: node1}}, {{Addr: netip.MustParseAddr("fd00:254::12")}}} {
		if err := one.SetPeers(peers); err == nil {
			t.Errorf("peers %v are no error", peers)
		}
	}
}

// TestSocket: every socket of the tunnel is made by the function given.
func TestSocket(t *testing.T) {
	made := 0
	tn, err := New(Config{Local: node1, Port: freePort(t), MAC: mac1, MTU: innerMTU, Workers: 1, Lanes: 2,
		Socket: func(domain, typ, proto int) (int, error) { made++; return unix.Socket(domain, typ, proto) }})
	if err != nil {
		t.Fatal(err)
	}
	defer tn.Close()
	if want := 2 + 1 + 2*2 + 1; made != want { // two probes, the worker's receiving one, two ports' lanes, that of the checks
		t.Errorf("%d sockets made, want %d", made, want)
	}
}

func TestNoAllocs(t *testing.T) {
	one, two := pair(t, func(p *Peer) { p.Trains, p.RemoteChecksum = true, true })
	var pool packet.Pool
	frame := packettest.Packet{Src: pod1, Dst: pod2, Proto: packet.TCP, Flags: packet.ACK, Payload: make([]byte, 60000)}.Super(innerMTU - 40)
	deliver := func([]byte, *packet.Parsed, packet.Offload) {}
	got := testing.AllocsPerRun(200, func() {
		send(one, &pool, frame, node2)
		for two.Port(0).Receive(deliver) == 0 {
		}
	})
	if got != 0 {
		t.Errorf("%v allocations a train", got)
	}
}

// BenchmarkTrain sends a super-packet to the other node on the loopback device and receives it, by what the peer announced.
func BenchmarkTrain(b *testing.B) {
	for _, size := range []int{1000, 60000} {
		for kind, change := range map[string]func(*Peer){
			"remote-checksum": func(p *Peer) { p.Trains, p.RemoteChecksum = true, true },
			"trains":          func(p *Peer) { p.Trains = true },
			"single":          func(*Peer) {},
		} {
			b.Run(fmt.Sprintf("bytes=%d/peer=%s", size, kind), func(b *testing.B) {
				one, two := pair(b, change)
				var pool packet.Pool
				frame := packettest.Packet{Src: pod1, Dst: pod2, Proto: packet.TCP, Flags: packet.ACK, Payload: make([]byte, size)}.Super(innerMTU - 40)
				want := len(packettest.Split(frame))
				deliver := func([]byte, *packet.Parsed, packet.Offload) {}
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					send(one, &pool, frame, node2)
					for got := 0; got < want; {
						got += two.Port(0).Receive(deliver)
					}
				}
			})
		}
	}
}
