package stack

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/middleway-net/middleway/stack/flow"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
	"github.com/middleway-net/middleway/stack/service"
	"github.com/middleway-net/middleway/stack/tun/tuntest"
)

// What the flow table has of clients outside and of pods that went there.
func TestFlowsOutside(t *testing.T) {
	d := newOutsideBed(t, 1)
	d.run(t)
	d.sends(t, packettest.Packet{Src: podA, Dst: server, SrcPort: 4000, DstPort: 53})
	d.gives("outside", packettest.Packet{Src: client, Dst: hostNode, SrcPort: 4000, DstPort: 30080}.Frame())
	d.outcome(t)
	got := map[string]string{}
	for f := range d.Flows() {
		got[f.Tuple.String()] = f.To + " " + f.Service
	}
	want := map[string]string{
		"udp 10.244.1.2:4000 -> 203.0.113.80:53":       "outside ",
		"udp 203.0.113.7:4000 -> 192.168.254.11:30080": "pod b default/10.96.0.20:udp:80",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Backend tells where a client's connection goes, and that it goes on there when its backend serves no longer.
func TestBackend(t *testing.T) {
	d := newOutsideBed(t, 1)
	d.run(t)
	from, to := netip.AddrPortFrom(client, 4000), netip.AddrPortFrom(hostNode, 30080)
	expect := func(want netip.Addr, wantServes bool) {
		t.Helper()
		if at, serves := d.Backend(from, to); at != want || serves != wantServes {
			t.Errorf("got %v, serves %v; want %v, %v", at, serves, want, wantServes)
		}
	}
	for _, pod := range []netip.Addr{podB, podA} {
		svc := reached(serving(web, "tcp:80", netip.AddrPortFrom(pod, 8080).String()), "tcp 0.0.0.0:30080")
		d.SetServices(service.New(serviceRanges).With(map[string]*service.Service{"default/web": svc}))
		if pod == podA {
			break
		}
		expect(netip.Addr{}, false)
		d.gives("node", packettest.Packet{Src: client, Dst: hostNode, SrcPort: 4000, DstPort: 30080, Proto: packet.TCP, Flags: packet.SYN}.Frame())
		if got := d.outcome(t).where; got != "b" {
			t.Fatalf("got %s, want b", got)
		}
		expect(podB, true)
	}
	expect(podB, false)
	d.SetServices(service.New(serviceRanges))
	expect(podB, false)
}

// Clients outside stick to their backend, and least connections counts those that they opened.
func TestExternalAffinityAndCounts(t *testing.T) {
	for _, scheduler := range []service.Scheduler{service.Random, service.LeastConnections} {
		d := newOutsideBed(t, 1)
		d.run(t)
		svc := reached(serving(web, "udp:80", "10.244.1.2:8080", "10.244.1.3:8080"), "udp 0.0.0.0:30080")
		p := onlyPort(svc)
		if p.Scheduler = scheduler; scheduler == service.Random {
			p.Affinity = time.Hour
		}
		d.SetServices(service.New(serviceRanges).With(map[string]*service.Service{"default/web": svc}))
		went := map[string]int{}
		for i := range uint16(20) {
			d.gives("outside", packettest.Packet{Src: client, Dst: hostNode, SrcPort: 4000 + i, DstPort: 30080}.Frame())
			went[d.outcome(t).where]++
			d.countConnections()
		}
		if scheduler == service.Random && len(went) != 1 || scheduler == service.LeastConnections && went["a"] != went["b"] {
			t.Errorf("%v: %v", scheduler, went)
		}
	}
}

// TestOutsideRandomWorker hands packets of both directions of clients' connections to random workers, while the tables change.
func TestOutsideRandomWorker(t *testing.T) {
	const workers, clients, rounds = 4, 50, 6
	d := newOutsideBed(t, workers)
	d.run(t)
	for round := range rounds {
		for c := range uint16(clients) {
			port := 30080 + 2*(c%2) // a backend here, one at a peer
			sent := packettest.Packet{Src: client, Dst: hostNode, Proto: packet.TCP, SrcPort: 4000 + c, DstPort: port, Flags: packet.ACK}
			d.gives("node", sent.Frame())
			o := d.outcome(t)
			from := "b"
			if c%2 == 1 {
				from = "peer"
			}
			d.from(from).Inject(rand.IntN(workers), answerTo(o.packet))
			if got, want := d.comesOut(t), fmt.Sprintf("outside: tcp 192.168.254.11:%d -> 203.0.113.7:%d", port, 4000+c); got != want {
				t.Fatalf("round %d: got %s, want %s", round, got, want)
			}
		}
		switch round {
		case 2:
			d.judgeAnew(t)
		case 3:
			d.SetServices(service.New(serviceRanges).With(plan())) // connections go on without the frontends
		}
	}
	if got, want := d.Stats().Flows, 2*clients; got != want {
		t.Errorf("%d directions of flows, want %d", got, want)
	}
}

// Front addresses may come and go: NodePorts are found at those that there are.
func TestSetFrontAddrs(t *testing.T) {
	d := newOutsideBed(t, 2)
	d.run(t)
	sent := packettest.Packet{Src: client, Dst: hostNode, SrcPort: 4000, DstPort: 30080}
	const toB = "b: udp 10.244.1.1:4000 -> 10.244.1.3:8080"
	for i, tt := range []struct {
		addrs []netip.Addr
		want  string
	}{
		{[]netip.Addr{hostNode}, toB},
		{[]netip.Addr{another}, "uninvited"}, // the flow ends
		{[]netip.Addr{another, hostNode}, toB},
		{nil, "uninvited"},
	} {
		d.SetFrontAddrs(tt.addrs)
		d.gives("outside", sent.Frame())
		if got := d.comesOut(t); got != tt.want {
			t.Errorf("%d: got %s, want %s", i, got, tt.want)
		}
	}
}

// After a restart Services and front addresses come one after the other, in any order: flows of UDP to NodePorts that are still there go on,
// and others end.
func TestRestartKeepsExternalFlows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "flows")
	start := func() (*hostBed, *flow.Table) {
		table, err := flow.Open(path, 0)
		if err != nil {
			t.Fatal(err)
		}
		return newHostBed(t, 1, func(c *Config) { c.Flows, c.Outside = table, &fakeNode{} }), table
	}
	services := func(d *hostBed) { d.SetServices(service.New(serviceRanges).With(outsiders())) }
	both := func(d *hostBed) { d.SetFrontAddrs([]netip.Addr{hostNode, another}) }
	one := func(d *hostBed) { d.SetFrontAddrs([]netip.Addr{hostNode}) }
	d, table := start()
	services(d)
	both(d)
	for _, dst := range []netip.Addr{hostNode, another} {
		d.gives("outside", packettest.Packet{Src: client, Dst: dst, SrcPort: 4000, DstPort: 30080}.Frame())
	}
	if got := table.Len(); got != 4 {
		t.Fatalf("%d directions of flows, want 4", got)
	}
	for i, tt := range []struct {
		steps [2]func(*hostBed)
		want  int
	}{{[...]func(*hostBed){both, services}, 4}, {[...]func(*hostBed){services, both}, 4}, {[...]func(*hostBed){services, one}, 2}} {
		if err := table.Close(); err != nil {
			t.Fatal(err)
		}
		d, table = start()
		for _, step := range tt.steps {
			step(d)
		}
		if got := table.Len(); got != tt.want {
			t.Errorf("start %d: %d directions of flows, want %d", i, got, tt.want)
		}
	}
	if err := table.Close(); err != nil {
		t.Fatal(err)
	}
}

// When a Service changes, clients outside whose backend serves no more get another one if they speak UDP, or with their next SYN; established
// connections stay, and what a pod sent past the Services to an externalIP ends.
func TestExternalFlowsEnd(t *testing.T) {
	onB := func(backend string) map[string]*service.Service {
		return map[string]*service.Service{
			"default/web":     reached(serving(web, "tcp:80", backend), "tcp 0.0.0.0:30080"),
			"default/web-udp": reached(serving(web, "udp:80", backend), "udp 0.0.0.0:30080", "udp 203.0.113.200:80"),
		}
	}
	d := newOutsideBed(t, 2)
	d.run(t)
	set := func(services map[string]*service.Service) { d.SetServices(service.New(serviceRanges).With(services)) }
	udp := packettest.Packet{Src: client, Dst: hostNode, SrcPort: 4000, DstPort: 30080}
	tcp := packettest.Packet{Src: client, Dst: hostNode, Proto: packet.TCP, SrcPort: 4000, DstPort: 30080, Flags: packet.SYN}
	established := tcp
	established.Flags = packet.ACK
	past := packettest.Packet{Src: podA, Dst: published, SrcPort: 4000, DstPort: 80}
	step := func(what, from string, sent packettest.Packet, want string) {
		t.Helper()
		d.gives(from, sent.Frame())
		if got := d.comesOut(t); got != want {
			t.Errorf("%s: got %s, want %s", what, got, want)
		}
	}
	set(nil)
	step("before there is a Service", "a", past, "outside: udp 10.244.1.2:4000 -> 203.0.113.200:80")
	set(onB("10.244.1.3:8080"))
	step("past it", "a", past, "b: udp 10.244.1.2:4000 -> 10.244.1.3:8080")
	step("UDP", "outside", udp, "b: udp 10.244.1.1:4000 -> 10.244.1.3:8080")
	step("TCP", "node", tcp, "b: tcp 10.244.1.1:4000 -> 10.244.1.3:8080")
	set(onB("10.244.2.2:8080"))
	step("UDP, another backend", "outside", udp, "peer 192.168.254.12: udp 10.244.1.1:4000 -> 10.244.2.2:8080")
	step("TCP, established", "node", established, "b: tcp 10.244.1.1:4000 -> 10.244.1.3:8080")
	step("TCP, another SYN", "node", tcp, "peer 192.168.254.12: tcp 10.244.1.1:4000 -> 10.244.2.2:8080")
	set(nil)
	step("UDP, no Service", "outside", udp, "uninvited")
	step("TCP, established, no Service", "node", established, "peer 192.168.254.12: tcp 10.244.1.1:4000 -> 10.244.2.2:8080")
	step("no Service any more", "a", past, "outside: udp 10.244.1.2:4000 -> 203.0.113.200:80")
}

// TestTrainOutside: what a peer's pod sends to a client outside leaves merged, translated, and with a checksum that is right or open; a packet
// whose checksum is wrong does not.
func TestTrainOutside(t *testing.T) {
	d := newOutsideBed(t, 1)
	d.gives("node", packettest.Packet{Src: client, Dst: hostNode, Proto: packet.TCP, SrcPort: 4000, DstPort: 30082, Flags: packet.SYN}.Frame())
	big := packettest.Packet{Src: farPod, Dst: gateway, Proto: packet.TCP, SrcPort: 8080, DstPort: 4000, Flags: packet.ACK, ID: 1, Seq: 7, Payload: make([]byte, 5000)}
	packets := packettest.Split(big.Super(1000))
	for _, b := range packets {
		d.wire.Inject(0, append(make([]byte, packet.VnetLen), b...))
	}
	d.batch(0)
	left := d.leftOutside()
	if len(left) != 1 || len(left[0]) != 5040 {
		t.Fatalf("%d packets left, want one of 5040 bytes", len(left))
	}
	var p packet.Parsed
	packet.Parse(left[0], &p)
	if got, want := p.Flow.String(), "tcp 192.168.254.11:30082 -> 203.0.113.7:4000"; got != want || p.TTL != 63 {
		t.Errorf("got %s with time to live %d, want %s and 63", got, p.TTL, want)
	}
	if st := d.Stats(); st.Packets != 6 {
		t.Errorf("%d packets forwarded, want 6", st.Packets)
	}
	wrong := append(make([]byte, packet.VnetLen), packets[0]...)
	wrong[len(wrong)-1] ^= 1
	d.wire.Inject(0, wrong)
	d.batch(0)
	if got := d.leftOutside(); len(got) != 0 || d.Stats().Drops["checksum"] != 1 {
		t.Errorf("with a wrong checksum: %d left, dropped %v", len(got), d.Stats().Drops)
	}
}

// TestBigPacketsOutside: super-packets leave whole, fragments as they are, and what is too big for a pod's device comes in pieces.
func TestBigPacketsOutside(t *testing.T) {
	d := newOutsideBed(t, 1)
	d.run(t)
	d.a.Inject(0, packettest.Packet{Src: podA, Dst: server, Proto: packet.TCP, SrcPort: 4000, DstPort: 80, Flags: packet.ACK, Payload: make([]byte, 10000)}.Super(1000))
	if got := d.outcome(t); got.where != "outside" || len(got.packet) != 10040 {
		t.Errorf("a super-packet: got %s, %d bytes", got.where, len(got.packet))
	}
	datagram := packettest.Packet{Src: podA, Dst: server, SrcPort: 4000, DstPort: 80, Payload: bytes.Repeat([]byte("x"), 3000)}
	for i, b := range packettest.Fragments(datagram.Frame()[packet.VnetLen:], 1400, 7) {
		d.a.Inject(0, append(make([]byte, packet.VnetLen), b...))
		if got := d.outcome(t); got.where != "outside" || len(got.packet) != len(b) {
			t.Errorf("fragment %d: got %s, %d bytes, want %d", i, got.where, len(got.packet), len(b))
		}
	}
	answer := packettest.Packet{Src: server, Dst: podA, SrcPort: 80, DstPort: 4000, Payload: make([]byte, 3000)}.Frame()
	mayFragment(answer[packet.VnetLen:])
	d.gives("outside", answer)
	var written []tuntest.Written
	eventually(t, "three fragments", func() bool {
		written = append(written, d.a.Written()...)
		return len(written) == 3
	})
}
