package stack

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/middleway-net/middleway/stack/flow"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
	"github.com/middleway-net/middleway/stack/service"
)

// sends has pod a send a packet and says where it came out, as what.
func (d *hostBed) sends(t *testing.T, p packettest.Packet) string {
	t.Helper()
	d.a.Inject(0, p.Frame())
	return d.comesOut(t)
}

// TestUDPFlowsEnd: when Services change, UDP flows end whose backends do not serve any more, and no others (KEP-1669 and the cases of
// kube-proxy's conntrack clean-up).
func TestUDPFlowsEnd(t *testing.T) {
	const (
		toB   = "b: udp 10.244.1.2:4000 -> 10.244.1.3:8080"
		toFar = "peer 192.168.254.12: udp 10.244.1.2:4000 -> 10.244.2.2:8080"
	)
	onB := func() *service.Service { return serving(web, "udp:80", "10.244.1.3:8080") }
	for _, tt := range []struct {
		name   string
		before *service.Service // nil: none
		first  string           // where a packet goes before
		change *service.Service // nil: is removed
		then   string           // and where it goes after
	}{
		{"nothing changes", onB(), toB, onB(), toB},
		{"its backend is replaced", onB(), toB, serving(web, "udp:80", "10.244.2.2:8080"), toFar},
		{"another backend comes", onB(), toB, serving(web, "udp:80", "10.244.2.2:8080", "10.244.1.3:8080"), toB},
		{"the last backend goes", onB(), toB, serving(web, "udp:80"), "no-backend"},
		{"the first backend comes", serving(web, "udp:80"), "no-backend", onB(), toB},
		{"the port of its backend changes", onB(), toB, serving(web, "udp:80", "10.244.1.3:9090"), "b: udp 10.244.1.2:4000 -> 10.244.1.3:9090"},
		{"the Service's port goes", onB(), toB, serving(web, "udp:81", "10.244.1.3:8080"), "service-port"},
		{"the Service is removed", onB(), toB, nil, "no-service"},
		{"the Service comes", nil, "no-service", onB(), toB},
		{"its backend drains", onB(), toB, draining("10.244.1.3:8080", "10.244.2.2:8080"), toB},
		{"its backend is not ready yet published", onB(), toB, unready("10.244.1.3:8080"), toB},
		{"policy Local leaves none", onB(), toB, draining("10.244.1.3:8080"), toB},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newHostBed(t, 2)
			d.run(t)
			set := func(s *service.Service) {
				changed := map[string]*service.Service{}
				if s != nil {
					changed["default/web"] = s
				}
				d.SetServices(service.New(serviceRanges).With(changed))
			}
			sent := packettest.Packet{Src: podA, Dst: web, SrcPort: 4000, DstPort: 80}
			set(tt.before)
			if got := d.sends(t, sent); got != tt.first {
				t.Fatalf("before: got %s, want %s", got, tt.first)
			}
			set(tt.change)
			if got := d.sends(t, sent); got != tt.then {
				t.Errorf("after: got %s, want %s", got, tt.then)
			}
		})
	}
}

// What a former daemon wrote down may be older than its flows: it ends none. What there is does.
func TestRecalledServicesEndNothing(t *testing.T) {
	const toB = "b: udp 10.244.1.2:4000 -> 10.244.1.3:8080"
	d := newHostBed(t, 2)
	d.run(t)
	d.SetServices(service.New(serviceRanges).With(map[string]*service.Service{"default/web": serving(web, "udp:80", "10.244.1.3:8080")}))
	sent := packettest.Packet{Src: podA, Dst: web, SrcPort: 4000, DstPort: 80}
	d.sends(t, sent)
	without := service.New(serviceRanges)
	d.RecallServices(without)
	if got := d.sends(t, sent); got != toB {
		t.Errorf("got %s, want %s", got, toB)
	}
	d.SetServices(without) // nothing else was written down
	if got := d.sends(t, sent); got != "no-service" {
		t.Errorf("the Service is gone: got %s, want no-service", got)
	}
}

// Flows of the host, whose source is translated too, end as those of pods do, and what is no flow of a Service does not.
func TestHostUDPFlowsEnd(t *testing.T) {
	d := newHostBed(t, 1)
	d.run(t)
	direct := packettest.Packet{Src: hostOther, Dst: farPod, SrcPort: 5000, DstPort: 8080}
	sent := packettest.Packet{Src: hostNode, Dst: web, SrcPort: 4000, DstPort: 80}
	d.SetServices(service.New(serviceRanges).With(map[string]*service.Service{"default/web": serving(web, "udp:80", "10.244.2.2:8080")}))
	for _, tt := range []struct {
		p    packettest.Packet
		want string
	}{
		{direct, "peer 192.168.254.12: udp 10.244.1.0:5000 -> 10.244.2.2:8080"},
		{sent, "peer 192.168.254.12: udp 10.244.1.0:4000 -> 10.244.2.2:8080"},
	} {
		d.host.Inject(0, tt.p.Frame())
		if got := d.comesOut(t); got != tt.want {
			t.Fatalf("got %s, want %s", got, tt.want)
		}
	}
	d.SetServices(service.New(serviceRanges).With(map[string]*service.Service{"default/web": serving(web, "udp:80", "10.244.1.3:8080")}))
	if n := d.flows.Len(); n != 2 {
		t.Errorf("%d directions of flows are left, want the two of the direct one", n)
	}
	d.host.Inject(0, sent.Frame())
	if got, want := d.comesOut(t), "b: udp 192.168.254.11:4000 -> 10.244.1.3:8080"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// draining is a Service of which one backend serves its flows still, and new ones go to the others.
func draining(old string, others ...string) *service.Service {
	s := serving(web, "udp:80", others...)
	p := onlyPort(s)
	p.Serving = append(onlyPort(serving(web, "udp:80", old)).Serving, p.Serving...)
	return s
}

// unready is a Service that publishes a backend which does not serve.
func unready(backend string) *service.Service {
	s := serving(web, "udp:80", backend)
	onlyPort(s).Serving = nil
	return s
}

// Connections of TCP and SCTP stay with their backends, whatever becomes of those; a new one goes elsewhere.
func TestConnectionsStay(t *testing.T) {
	d := newServiceBed(t, 2)
	d.run(t)
	d.SetServices(service.New(serviceRanges).With(map[string]*service.Service{
		"default/web": serving(web, "tcp:80", "10.244.1.3:8080"), "default/sctp": serving(web, "sctp:80", "10.244.1.3:8080"),
	}))
	opened := packettest.Packet{Src: podA, Dst: web, Proto: packet.TCP, SrcPort: 4000, DstPort: 80, Flags: packet.ACK}
	sctp := packettest.Packet{Src: podA, Dst: web, Proto: packet.SCTP, SrcPort: 4000, DstPort: 80}
	d.sends(t, opened)
	d.sends(t, sctp)
	for name, changed := range map[string]*service.Service{"replaced": serving(web, "tcp:80", "10.244.2.2:8080"), "removed": nil} {
		d.SetServices(service.New(serviceRanges).With(map[string]*service.Service{"default/web": changed}))
		if got, want := d.sends(t, opened), "b: tcp 10.244.1.2:4000 -> 10.244.1.3:8080"; got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
		if got, want := d.sends(t, sctp), "b: sctp 10.244.1.2:4000 -> 10.244.1.3:8080"; got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
		d.b.Inject(1, answerTo(packettest.Packet{Src: podA, Dst: podB, Proto: packet.TCP, SrcPort: 4000, DstPort: 8080}.Frame()[packet.VnetLen:]))
		if got, want := d.comesOut(t), "a: tcp 10.96.0.20:80 -> 10.244.1.2:4000"; got != want {
			t.Errorf("%s, the answer: got %s, want %s", name, got, want)
		}
	}
}

// A SYN from the port of a connection that is over is a new connection, for which a backend is chosen.
func TestPortUsedAgain(t *testing.T) {
	const same, other = "b: tcp 10.244.1.2:4000 -> 10.244.1.3:8080", "peer 192.168.254.12: tcp 10.244.1.2:4000 -> 10.244.2.2:8080"
	for _, tt := range []struct {
		name string
		end  func(d *hostBed, t *testing.T, there, back packettest.Packet)
		want string
	}{
		{"both closed", func(d *hostBed, t *testing.T, there, back packettest.Packet) {
			there.Flags, back.Flags = packet.FIN|packet.ACK, packet.FIN|packet.ACK
			d.sends(t, there)
			d.b.Inject(0, back.Frame())
			d.comesOut(t)
		}, other},
		{"reset by the backend", func(d *hostBed, t *testing.T, _, back packettest.Packet) {
			back.Flags = packet.RST
			d.b.Inject(0, back.Frame())
			d.comesOut(t)
		}, other},
		{"closed by the client alone", func(d *hostBed, t *testing.T, there, _ packettest.Packet) {
			there.Flags = packet.FIN | packet.ACK
			d.sends(t, there)
		}, other},
		{"closed by the backend alone", func(d *hostBed, t *testing.T, _, back packettest.Packet) {
			back.Flags = packet.FIN | packet.ACK
			d.b.Inject(0, back.Frame())
			d.comesOut(t)
		}, same},
		{"SYN sent again", func(*hostBed, *testing.T, packettest.Packet, packettest.Packet) {}, same},
		{"SYN sent again, and the backend serves no longer", func(d *hostBed, _ *testing.T, _, _ packettest.Packet) {
			d.SetServices(service.New(serviceRanges).With(map[string]*service.Service{"default/web": serving(web, "tcp:80", "10.244.2.2:8080")}))
		}, other},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newServiceBed(t, 2)
			d.run(t)
			there := packettest.Packet{Src: podA, Dst: web, Proto: packet.TCP, SrcPort: 4000, DstPort: 80, Flags: packet.SYN}
			back := packettest.Packet{Src: podB, Dst: podA, Proto: packet.TCP, SrcPort: 8080, DstPort: 4000, Flags: packet.SYN | packet.ACK}
			d.sends(t, there)
			d.b.Inject(0, back.Frame())
			d.comesOut(t)
			now := serving(web, "tcp:80", "10.244.2.2:8080")
			onlyPort(now).Serving = append(onlyPort(serving(web, "tcp:80", "10.244.1.3:8080")).Serving, onlyPort(now).Serving...) // b drains
			d.SetServices(service.New(serviceRanges).With(map[string]*service.Service{"default/web": now}))
			tt.end(d, t, there, back)
			probe := Probe{From: "a", Dst: web, SrcPort: 4000, DstPort: 80}
			traced, _ := d.Trace(probe)
			if got := d.sends(t, there); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if as := describe(t, traced.Out[0]); traced.To+": "+as != tt.want && "pod "+tt.want != traced.To+": "+as {
				t.Errorf("the trace: got %s: %s, want %s", traced.To, as, tt.want)
			}
		})
	}
}

// What went past the Services to an address before a Service had it does not go on so, but for established connections.
func TestNothingSticks(t *testing.T) {
	d := newServiceBed(t, 1)
	d.run(t)
	there := netip.MustParseAddr("10.244.2.99") // behind a peer
	udp := packettest.Packet{Src: podA, Dst: there, SrcPort: 4000, DstPort: 80}
	opening := packettest.Packet{Src: podA, Dst: there, Proto: packet.TCP, SrcPort: 4001, DstPort: 80, Flags: packet.SYN}
	established := packettest.Packet{Src: podA, Dst: there, Proto: packet.TCP, SrcPort: 4002, DstPort: 80, Flags: packet.ACK}
	for _, p := range []packettest.Packet{udp, opening, established} {
		if got := d.sends(t, p); got[:4] != "peer" {
			t.Fatalf("got %s", got)
		}
	}
	d.wire.Inject(0, answerTo(established.Frame()[packet.VnetLen:]))
	d.comesOut(t)
	d.SetServices(service.New(nil).With(map[string]*service.Service{
		"default/udp": serving(there, "udp:80", "10.244.1.3:8080"), "default/tcp": serving(there, "tcp:80", "10.244.1.3:8080"),
	}))
	for _, tt := range []struct {
		sent packettest.Packet
		want string
	}{
		{udp, "b: udp 10.244.1.2:4000 -> 10.244.1.3:8080"},
		{opening, "b: tcp 10.244.1.2:4001 -> 10.244.1.3:8080"},
		{established, "peer 192.168.254.12: tcp 10.244.1.2:4002 -> 10.244.2.99:80"},
	} {
		if got := d.sends(t, tt.sent); got != tt.want {
			t.Errorf("got %s, want %s", got, tt.want)
		}
	}
}

// One client port to two Services with the same backend: the second connection leaves from another port, and answers find both.
func TestCollisions(t *testing.T) {
	other := netip.MustParseAddr("10.96.0.30")
	for _, proto := range []string{"tcp", "udp", "sctp"} {
		for _, client := range []string{"a", "host"} {
			t.Run(proto+" of "+client, func(t *testing.T) {
				d := newHostBed(t, 1)
				d.run(t)
				d.SetServices(service.New(serviceRanges).With(map[string]*service.Service{
					"default/web": serving(web, proto+":80", "10.244.2.2:8080"), "default/other": serving(other, proto+":80", "10.244.2.2:8080"),
				}))
				src := map[string]netip.Addr{"a": podA, "host": hostNode}[client]
				number, _ := protoPort(proto + ":80")
				ports := map[uint16]netip.Addr{}
				for _, vip := range []netip.Addr{web, other, farPod} {
					sent := packettest.Packet{Src: src, Dst: vip, Proto: number, SrcPort: 4000, DstPort: 80, Flags: packet.SYN}
					if vip == farPod {
						sent.DstPort = 8080 // the backend itself
					}
					for range 2 {
						d.from(client).Inject(0, sent.Frame())
						o := d.outcome(t)
						if o.packet == nil {
							t.Fatalf("%v: dropped: %s", vip, o.where)
						}
						var p packet.Parsed
						packet.Parse(o.packet, &p)
						if taken, ok := ports[p.Flow.SrcPort()]; ok && taken != vip {
							t.Fatalf("%v leaves from the port of %v: %v", vip, taken, p.Flow)
						}
						ports[p.Flow.SrcPort()] = vip
						d.wire.Inject(0, answerTo(o.packet))
						if got, want := d.comesOut(t), fmt.Sprintf("%s: %v %v:%d -> %v:4000", client, number, vip, sent.DstPort, src); got != want {
							t.Errorf("the answer of %v: got %s, want %s", vip, got, want)
						}
					}
				}
				if len(ports) != 3 || !ports[4000].IsValid() {
					t.Errorf("ports: %v, want 4000 and two others", ports)
				}
			})
		}
	}
}

// A client stays with its backend as long as its Service says, also under another address of the Service and with another daemon.
func TestAffinity(t *testing.T) {
	path := filepath.Join(t.TempDir(), "flows")
	second := netip.MustParseAddr("10.96.0.31")
	backends := []string{"10.244.2.2:1", "10.244.2.3:1", "10.244.2.4:1", "10.244.2.5:1", "10.244.2.6:1", "10.244.2.7:1", "10.244.2.8:1", "10.244.2.9:1"}
	sticky := func(backends ...string) *service.Table {
		s := serving(web, "tcp:80", backends...)
		p := onlyPort(s)
		p.Affinity = 10800e9
		s.Frontends[service.Frontend{Addr: second, Proto: packet.TCP, Port: 80}] = p
		return service.New(serviceRanges).With(map[string]*service.Service{"default/web": s})
	}
	daemon := func() (d *bed, end func()) {
		flows, err := flow.Open(path, 512)
		if err != nil {
			t.Fatal(err)
		}
		s, err := New(Config{Workers: 1, Flows: flows, NodeAddrs: []netip.Addr{gateway}})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.SetRoutes(peerRoutes); err != nil {
			t.Fatal(err)
		}
		d = &bed{Stack: s, a: device(t, 1)}
		d.idA = d.attach(t, "a", d.a, podA)
		return d, func() { _ = s.Close(); _ = flows.Close() }
	}
	port := uint16(2000)
	goes := func(d *bed, vip netip.Addr) string {
		port++
		got, err := d.Trace(Probe{From: "a", Dst: vip, SrcPort: port, DstPort: 80, Enter: true})
		if err != nil || got.Steps[1].Service == nil {
			t.Fatalf("%v: %v", err, steps(&got))
		}
		return got.Steps[1].Service.Chosen.String()
	}
	d, end := daemon()
	d.SetServices(sticky(backends...))
	first := goes(d, web)
	for i := range 20 {
		if got := goes(d, []netip.Addr{web, second}[i%2]); got != first {
			t.Fatalf("connection %d: to %s, the first went to %s", i, got, first)
		}
	}
	end()
	d, end = daemon()
	defer end()
	d.SetServices(sticky(backends...))
	if got := goes(d, web); got != first {
		t.Errorf("with another daemon: to %s, the first went to %s", got, first)
	}
	var others []string
	for _, b := range backends {
		if b != first {
			others = append(others, b)
		}
	}
	d.SetServices(sticky(others...))
	next := goes(d, web)
	if next == first {
		t.Error("went to a backend that is not in the list any more")
	}
	d.SetServices(sticky(backends...))
	if got := goes(d, web); got != next {
		t.Errorf("to %s, the last one went to %s", got, next)
	}
	d.SetServices(service.New(serviceRanges).With(map[string]*service.Service{"default/web": serving(web, "tcp:80", backends...)}))
	seen := map[string]bool{}
	for range 100 {
		seen[goes(d, web)] = true
	}
	if len(seen) < 2 {
		t.Error("a Service without affinity has it")
	}
}

// Least connections goes by what the flow table has, also after a restart.
func TestLeastConnections(t *testing.T) {
	d := newHostBed(t, 1)
	least := func(backends ...string) *service.Table {
		s := serving(web, "tcp:80", backends...)
		onlyPort(s).Scheduler = service.LeastConnections
		return service.New(serviceRanges).With(map[string]*service.Service{"default/web": s})
	}
	open := func(port uint16) string {
		got, err := d.Trace(Probe{From: "a", Dst: web, SrcPort: port, DstPort: 80, Enter: true})
		if err != nil {
			t.Fatal(err)
		}
		return got.LeavesAs.Dst.String()
	}
	d.SetServices(least("10.244.2.2:1"))
	for i := range 10 {
		open(uint16(2000 + i))
	}
	d.SetServices(least("10.244.2.2:1", "10.244.2.3:1")) // as after a restart: counted anew
	for i := range 10 {
		if got := open(uint16(3000 + i)); got != "10.244.2.3:1" {
			t.Errorf("connection %d goes to %s, which has ten", i, got)
		}
	}
	d.flows.FreeIf(func(l *flow.Listed) bool { return l.Flow.SrcPort() < 2008 })
	d.countConnections()
	for i := range 8 {
		if got := open(uint16(4000 + i)); got != "10.244.2.2:1" {
			t.Errorf("connection %d goes to %s, which has ten; the other %d", i, got, 2+i)
		}
	}
}

// Until the Services are known nobody is told that their addresses lead nowhere: clients try again.
func TestServicesUnknown(t *testing.T) {
	d := newHostBed(t, 1)
	for _, dst := range []netip.Addr{web, web6} {
		for _, from := range []string{"a", "mw0"} {
			got, err := d.Trace(Probe{From: from, Dst: dst, DstPort: 80})
			if err != nil || got.Reason != "no-service" || len(got.Answers) > 0 {
				t.Errorf("from %s to %v: got %v, %s", from, dst, err, steps(&got))
			}
		}
	}
}
