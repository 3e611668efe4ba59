package stack

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
	"github.com/middleway-net/middleway/stack/service"
)

// became is what became of a packet: what came out where, and by which reason something was dropped.
type became struct {
	Out     []string // "a: HEX"
	Answers []string
	Dropped string
}

// TestTraceAgrees sends random packets of pods, the host, a peer and the outside to random workers, and traces each before: verdict, rewritten
// bytes, drop reason and answers are the same.
func TestTraceAgrees(t *testing.T) {
	const workers, packets = 2, 10000
	d := newOutsideBed(t, workers)
	var ticks atomic.Int64
	d.clock = func() time.Duration { return time.Duration(ticks.Load()) * time.Second } // no limit binds
	d.SetServices(randomServices())
	d.dns, d.answer = keysOf([]netip.Addr{dnsVIP, dnsVIP6}), echoServer{}
	d.nodeAddrs(t, dnsVIP, dnsVIP6)
	rnd := rand.New(rand.NewPCG(11, 12))
	seen := map[string]int{}
	for i := range packets {
		ticks.Add(1)
		from, frame := randomFrame(rnd)
		att := map[string]*attachment{"host": d.tables.Load().host, "a": d.tables.Load().attachments[d.idA]}[from]
		origin := map[string]origin{"peer": originPeer, "outside": originOutside}[from]
		traced := d.traceFrame(d.tables.Load(), att, origin, frame, false)
		if leftToChance(&traced) {
			traced = d.traceFrame(d.tables.Load(), att, origin, frame, true)
		}
		n := rnd.IntN(workers)
		if from == "outside" {
			o, _ := packet.DecodeOffload(frame)
			d.InjectOutside(o, frame[packet.VnetLen:])
		} else {
			d.from(from).Inject(n, frame)
			d.batch(n)
		}
		want := d.became()
		if diff := cmp.Diff(want, tracedTo(&traced)); diff != "" {
			t.Fatalf("packet %d, %v from %s (-worker +trace):\n%s\n%s", i, traced.Packet, from, diff, steps(&traced))
		}
		seen[traced.Verdict+traced.Reason]++
		if traced.To == "outside" {
			seen["forwarded outside"]++
		}
		if i%1000 == 999 {
			d.SetServices(randomServices()) // some flows end
		}
	}
	for _, kind := range []string{"forwarded", "answered", "droppedservice-port", "droppedno-backend", "droppedno-local-backend", "droppedno-service", "droppedttl", "droppedtoo-big", "droppedsource", "droppeduninvited", "droppedguarded", "droppedprotocol", "forwarded outside"} {
		if seen[kind] == 0 {
			t.Errorf("no packet was %s: %v", kind, seen)
		}
	}
}

// batch has a worker, which does not run, take one batch.
func (d *hostBed) batch(worker int) {
	w := d.workers[worker]
	w.begin()
	for i := range w.queue {
		w.drain(int32(i))
	}
	w.receive()
	w.flush()
}

// randomServices returns the plan's Services, and some with several backends for each scheduler.
func randomServices() *service.Table {
	all := outsiders()
	for s := service.Random; s <= service.Maglev; s++ {
		for _, at := range []string{"tcp:90", "udp:90"} {
			svc := serving(netip.AddrFrom4([4]byte{10, 96, 1, byte(s)}), at, "10.244.1.2:8080", "10.244.1.3:8080", "10.244.2.2:8080", "192.168.254.11:6443")
			p := onlyPort(svc)
			if p.Scheduler = s; s == service.Random && at == "udp:90" {
				p.Affinity = time.Hour
			}
			all[fmt.Sprint("default/many-", s, at)] = svc
		}
	}
	return service.New(serviceRanges).With(all)
}

// leftToChance reports whether another trace, or a packet, of the same flow could go elsewhere or leave from another port.
func leftToChance(tr *Trace) bool {
	return slices.ContainsFunc(tr.Steps, func(s Step) bool {
		chosen := s.Service != nil && len(s.Service.Backends) > 1 && (s.Service.Scheduler == "random" || s.Service.Scheduler == "least-connections")
		return chosen || s.Stage == StageTranslate && s.Packet.Src.Port() != tr.Packet.Src.Port()
	})
}

// randomFrame returns a packet of the host, pod a, a peer or the outside.
func randomFrame(rnd *rand.Rand) (from string, frame []byte) {
	pick := func(of ...netip.Addr) netip.Addr { return of[rnd.IntN(len(of))] }
	many := netip.AddrFrom4([4]byte{10, 96, 1, byte(rnd.IntN(4))})
	p := packettest.Packet{
		Dst:     pick(podA, podB, web, web, self, far, onHost, empty, elsewhere, departed, unallocated, many, many, many, dnsVIP, gateway, hostNode, hostNode, another, published, farPod, stranger, server, netip.MustParseAddr("10.244.3.9"), netip.MustParseAddr("224.0.0.1")),
		Proto:   []packet.Proto{packet.TCP, packet.TCP, packet.UDP, packet.UDP, packet.SCTP, packet.ICMP, 50}[rnd.IntN(7)],
		SrcPort: uint16(4000 + rnd.IntN(30)), DstPort: []uint16{80, 80, 90, 90, 53, 8080, 6443, 30080, 30081, 30082, 30083, 30084, 30085, tunnelPort}[rnd.IntN(14)],
		Flags: []byte{packet.SYN, packet.SYN, packet.ACK, packet.FIN | packet.ACK, packet.RST}[rnd.IntN(5)],
		TTL:   []byte{1, 2, 64, 64, 64, 64}[rnd.IntN(6)], ID: uint16(rnd.Uint32()),
		Payload: make([]byte, []int{0, 8, 100, 1500, 4000}[rnd.IntN(5)]),
	}
	six := rnd.IntN(5) == 0
	if six {
		p.Dst = pick(podA6, podB6, web6, far6, empty6, dnsVIP6, gateway6, hostNode6, hostNode6, server6, farPod6, netip.MustParseAddr("fd00:10:96::ffff"))
	}
	from = []string{"a", "a", "a", "host", "peer", "outside"}[rnd.IntN(6)]
	sources := map[string][2][]netip.Addr{
		"a":    {{podA, podA, podA, podA, podB}, {podA6}},
		"host": {{hostZero, hostNode, hostOther, farPod, stranger}, {hostZero6, hostNode6}},
		"peer": {{farPod, farHost}, {farPod6}},

		"outside": {{client, client, hostNode, loopback, server}, {client6, hostNode6, server6}},
	}[from]
	p.Src = pick(sources[0]...)
	if six {
		p.Src = pick(sources[1]...)
	}
	if six && p.Proto == packet.ICMP {
		p.Proto = packet.UDP // packettest knows no echo of ICMPv6
	}
	if (p.Proto == packet.TCP || p.Proto == packet.UDP) && len(p.Payload) > 1000 && from != "peer" && rnd.IntN(2) == 0 {
		return from, p.Super(1000)
	}
	frame = p.Frame()
	if !six && rnd.IntN(2) == 0 {
		mayFragment(frame[packet.VnetLen:])
	}
	return from, frame
}

// became takes what came out since the last call, and which counters grew.
func (d *hostBed) became() (b became) {
	note := func(where string, bytes []byte) {
		s := fmt.Sprintf("%s: %x", where, bytes)
		if isAnswer(bytes) {
			b.Answers = append(b.Answers, s)
		} else {
			b.Out = append(b.Out, s)
		}
	}
	for _, o := range d.arrived() {
		note(o.where, o.packet)
	}
	d.node.mu.Lock()
	for _, got := range d.node.got {
		note("node", got)
	}
	d.node.got = nil
	d.node.mu.Unlock()
	for _, out := range d.leftOutside() {
		note("outside", out)
	}
	for reason, n := range d.Stats().Drops {
		if n > d.dropped[reason] {
			d.dropped[reason], b.Dropped = n, reason
		}
	}
	return b
}

// isAnswer reports whether the node itself said it: an error, or something from a Service that no backend can have sent.
func isAnswer(b []byte) bool {
	var p packet.Parsed
	packet.Parse(b, &p)
	vip := slices.ContainsFunc(serviceRanges, func(r netip.Prefix) bool { return r.Contains(p.Flow.Src()) })
	const nobody = 30084 // a NodePort without backends
	unreachable := !p.HasFlow && !p.Fragment && (p.Proto == packet.ICMP || p.Proto == packet.ICMPv6) && slices.Contains([]netip.Addr{hostNode, hostNode6, another}, p.Flow.Src())
	refused := unreachable || p.Flow.SrcPort() == nobody && p.Flags&packet.RST != 0
	return isOurError(b) || refused || vip && (p.Proto == packet.ICMP || p.Proto == packet.ICMPv6 || p.Proto == packet.TCP && p.Flags&packet.RST != 0 || p.Flow.SrcPort() == dnsPort)
}

func tracedTo(tr *Trace) became {
	b := became{Dropped: tr.Reason}
	where := strings.TrimPrefix(tr.To, "pod ")
	for _, out := range tr.Out {
		b.Out = append(b.Out, fmt.Sprintf("%s: %x", where, out))
	}
	at := 0
	for _, s := range tr.Steps {
		if s.Answer && s.Length > 0 {
			b.Answers = append(b.Answers, fmt.Sprintf("%s: %x", strings.TrimPrefix(s.To, "pod "), tr.Answers[at]))
			at++
		}
	}
	return b
}

// A trace says what is wrong with what it was asked.
func TestTraceMistakes(t *testing.T) {
	d := newServiceBed(t, 1)
	for _, tt := range []struct {
		probe Probe
		want  string
	}{
		{Probe{From: "a"}, "a destination address is needed"},
		{Probe{From: "z", Dst: web}, `no pod "z" is attached to this node`},
		{Probe{Dst: web}, "the name of a pod or a source address is needed"},
		{Probe{Src: stranger, Dst: web}, "nobody on this node or behind a peer has the source 203.0.113.99"},
		{Probe{From: "a", Src: podA6, Dst: web}, "are of different families"},
		{Probe{From: "a", Dst: web, Payload: 70000}, "70000 bytes of payload"},
	} {
		if _, err := d.Trace(tt.probe); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: got %v, want %s", tt.probe, err, tt.want)
		}
	}
}

// Probes are packets like others: each protocol's parses and has a right checksum.
func TestProbes(t *testing.T) {
	d := newServiceBed(t, 1)
	for _, dst := range []netip.Addr{podB, podB6} {
		for _, proto := range []packet.Proto{packet.TCP, packet.UDP, packet.SCTP, packet.ICMP, packet.ICMPv6, 50} {
			if (proto == packet.ICMP) != dst.Is4() && (proto == packet.ICMP || proto == packet.ICMPv6) {
				continue
			}
			got, err := d.Trace(Probe{From: "a", Dst: dst, Proto: proto, SrcPort: 4000, DstPort: 80, Payload: 100, TTL: 9, MayFragment: true})
			if err != nil || got.Verdict != "forwarded" || got.To != "pod b" {
				t.Fatalf("%v: %v, %s", proto, err, steps(&got))
			}
			describe(t, got.Out[0])
			if cut := got.Out[0][6]&0x40 == 0; dst.Is4() && !cut {
				t.Errorf("%v: may not be cut", proto)
			}
		}
	}
}

// While nobody else uses the node, a trace leaves no flow, no counter, no turn and no affinity behind.
func TestTraceLeavesNothing(t *testing.T) {
	d := newServiceBed(t, 1)
	svc := serving(web, "tcp:80", "10.244.1.3:1", "10.244.1.3:2", "10.244.1.3:3")
	onlyPort(svc).Scheduler, onlyPort(svc).Affinity = service.RoundRobin, time.Hour
	d.SetServices(service.New(serviceRanges).With(map[string]*service.Service{"default/web": svc}))
	before := d.Stats()
	for range 10 {
		got, err := d.Trace(Probe{From: "a", Dst: web, DstPort: 80})
		if err != nil || got.LeavesAs.Dst.Port() != 1 || got.Steps[1].Service.Scheduler != "round-robin" {
			t.Fatalf("%v, %s", err, steps(&got))
		}
		if _, err := d.Trace(Probe{From: "a", Dst: empty, DstPort: 80}); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(before, d.Stats()); diff != "" {
		t.Errorf("counters (-before +after):\n%s", diff)
	}
}

// TestServiceRandomWorker hands every packet of connections to Services to a random one of four workers, in both directions, while
// the Services change. Each connection keeps its backend, and every answer comes from the Service.
func TestServiceRandomWorker(t *testing.T) {
	const workers, clients, rounds = 4, 100, 12
	d := newServiceBed(t, workers)
	d.run(t)
	d.SetServices(randomServices())
	vip := netip.AddrFrom4([4]byte{10, 96, 1, 0})
	backend := map[uint16]string{}
	for round := range rounds {
		for c := range uint16(clients) {
			sent := packettest.Packet{Src: podA, Dst: vip, Proto: packet.TCP, SrcPort: 4000 + c, DstPort: 90, Flags: packet.ACK, Payload: binary.BigEndian.AppendUint16(nil, uint16(round))}
			d.a.Inject(rand.IntN(workers), sent.Frame())
			o := d.outcome(t)
			got := o.where + ": " + describe(t, o.packet)
			if was, ok := backend[c]; ok && was != got {
				t.Fatalf("round %d, connection %d: went to %s, and now %s", round, c, was, got)
			}
			backend[c] = got
			from := map[byte]string{'a': "a", 'b': "b", 'h': "host", 'p': "peer"}[o.where[0]]
			d.from(from).Inject(rand.IntN(workers), answerTo(o.packet))
			if got, want := d.comesOut(t), fmt.Sprintf("a: tcp %v:90 -> 10.244.1.2:%d", vip, 4000+c); got != want {
				t.Fatalf("round %d, the answer: got %s, want %s", round, got, want)
			}
		}
		switch round {
		case rounds / 3:
			d.SetServices(service.New(serviceRanges).With(plan())) // without it
		case rounds / 2:
			if err := d.SetRoutes(peerRoutes); err != nil { // every flow is judged again
				t.Fatal(err)
			}
		}
	}
	if got, want := d.Stats().Flows, 2*clients; got != want {
		t.Errorf("%d directions of flows, want %d", got, want)
	}
}
