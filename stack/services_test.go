package stack

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
	"github.com/middleway-net/middleway/stack/service"
	"github.com/middleway-net/middleway/stack/tun/tuntest"
)

// Addresses of Services, of the plan.
var (
	serviceRanges = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd00:10:96::/112")}

	web, web6   = netip.MustParseAddr("10.96.0.20"), netip.MustParseAddr("fd00:10:96::20")
	self        = netip.MustParseAddr("10.96.0.21") // of which pod a is the backend
	far, far6   = netip.MustParseAddr("10.96.0.22"), netip.MustParseAddr("fd00:10:96::22")
	onHost      = netip.MustParseAddr("10.96.0.23")
	empty       = netip.MustParseAddr("10.96.0.24")
	empty6      = netip.MustParseAddr("fd00:10:96::24")
	elsewhere   = netip.MustParseAddr("10.96.0.25") // policy Local, no backend here
	departed    = netip.MustParseAddr("10.96.0.26") // its backend is a pod that is no more
	unallocated = netip.MustParseAddr("10.96.9.9")
	dnsVIP      = netip.MustParseAddr("10.96.0.10")
	dnsVIP6     = netip.MustParseAddr("fd00:10:96::a")
)

// serving describes a Service of one port at an address: "tcp:80", and its backends.
func serving(addr netip.Addr, at string, backends ...string) *service.Service {
	proto, port := protoPort(at)
	p := &service.Port{Name: "default/" + addr.String() + ":" + at, ID: service.PortID("default", addr.String(), at, proto), Internal: service.Choice{None: packet.DropNoBackend, Why: "ready"}}
	for _, b := range backends {
		to := netip.MustParseAddrPort(b)
		p.Internal.Backends = append(p.Internal.Backends, service.Backend{Addr: packet.KeyOf(to.Addr()), Port: to.Port()})
	}
	p.Serving = p.Internal.Backends
	return &service.Service{Frontends: map[service.Frontend]*service.Port{{Addr: addr, Proto: proto, Port: port}: p}}
}

// onlyPort returns the port of a Service that has one.
func onlyPort(s *service.Service) *service.Port {
	for _, p := range s.Frontends {
		return p
	}
	return nil
}

func protoPort(s string) (packet.Proto, uint16) {
	name, number, _ := strings.Cut(s, ":")
	var port uint16
	_, _ = fmt.Sscan(number, &port)
	return map[string]packet.Proto{"tcp": packet.TCP, "udp": packet.UDP, "sctp": packet.SCTP}[name], port
}

// plan are the Services of the tests' cluster.
func plan() map[string]*service.Service {
	local := serving(elsewhere, "tcp:80")
	onlyPort(local).Internal.None = packet.DropNoLocalBackend
	return map[string]*service.Service{
		"default/web":       serving(web, "tcp:80", "10.244.1.3:8080"),
		"default/web-udp":   serving(web, "udp:80", "10.244.1.3:8080"),
		"default/web-sctp":  serving(web, "sctp:80", "10.244.1.3:8080"),
		"default/web6":      serving(web6, "tcp:80", "[fd00:10:244:1::3]:8080"),
		"default/web6-udp":  serving(web6, "udp:80", "[fd00:10:244:1::3]:8080"),
		"default/self":      serving(self, "tcp:80", "10.244.1.2:8080"),
		"default/far":       serving(far, "tcp:80", "10.244.2.2:8080"),
		"default/far-udp":   serving(far, "udp:80", "10.244.2.2:8080"),
		"default/far6":      serving(far6, "tcp:80", "[fd00:10:244:2::2]:8080"),
		"default/on-host":   serving(onHost, "tcp:80", "192.168.254.11:6443"),
		"default/empty":     serving(empty, "tcp:80"),
		"default/empty-udp": serving(empty, "udp:80"),
		"default/empty6":    serving(empty6, "tcp:80"),
		"default/local":     local,
		"default/departed":  serving(departed, "tcp:80", "10.244.1.77:80"),
	}
}

// newServiceBed returns a bed with a host and the plan's Services.
func newServiceBed(t testing.TB, workers int) *hostBed {
	d := newHostBed(t, workers)
	d.SetServices(service.New(serviceRanges).With(plan()))
	return d
}

// from returns the device at which packets of a name come in.
func (d *hostBed) from(name string) *tuntest.Device {
	return map[string]*tuntest.Device{"host": d.host, "a": d.a, "b": d.b, "peer": d.wire}[name]
}

// comesOut says where the next packet comes out and as what, or why it is dropped.
func (d *hostBed) comesOut(t *testing.T) string {
	t.Helper()
	o := d.outcome(t)
	if o.packet == nil {
		return o.where
	}
	return o.where + ": " + describe(t, o.packet)
}

// describe returns the flow of a packet, whose checksums have to be right.
func describe(t *testing.T, b []byte) string {
	t.Helper()
	var p packet.Parsed
	if r := packet.Parse(b, &p); r != packet.Kept {
		t.Fatalf("does not parse: %v", r)
	}
	if !packet.TransportChecksumOK(b, &p) {
		t.Errorf("%v: its checksum is wrong", p.Flow)
	}
	if p.Proto == packet.SCTP && !sctpChecksumOK(b[p.L4:p.Len]) {
		t.Errorf("%v: its checksum is wrong", p.Flow)
	}
	return p.Flow.String()
}

func sctpChecksumOK(l4 []byte) bool {
	l4 = bytes.Clone(l4)
	was := binary.LittleEndian.Uint32(l4[8:])
	clear(l4[8:12])
	return was == crc32.Checksum(l4, crc32.MakeTable(crc32.Castagnoli))
}

// TestServices: a packet to a Service goes to a backend, and what the backend answers comes back from the Service.
func TestServices(t *testing.T) {
	for _, tt := range []struct {
		name  string
		from  string
		sent  packettest.Packet
		want  string // where it comes out, and as what
		reply string // from where the answer is sent
		back  string // and how that comes out
	}{
		{"pod to a pod of its node", "a", packettest.Packet{Src: podA, Dst: web, Proto: packet.TCP, SrcPort: 4000, DstPort: 80, Flags: packet.SYN},
			"b: tcp 10.244.1.2:4000 -> 10.244.1.3:8080", "b", "a: tcp 10.96.0.20:80 -> 10.244.1.2:4000"},
		{"UDP", "a", packettest.Packet{Src: podA, Dst: web, SrcPort: 4000, DstPort: 80},
			"b: udp 10.244.1.2:4000 -> 10.244.1.3:8080", "b", "a: udp 10.96.0.20:80 -> 10.244.1.2:4000"},
		{"IPv6", "a", packettest.Packet{Src: podA6, Dst: web6, Proto: packet.TCP, SrcPort: 4000, DstPort: 80, Flags: packet.SYN},
			"b: tcp [fd00:10:244:1::2]:4000 -> [fd00:10:244:1::3]:8080", "b", "a: tcp [fd00:10:96::20]:80 -> [fd00:10:244:1::2]:4000"},
		{"UDP over IPv6", "a", packettest.Packet{Src: podA6, Dst: web6, SrcPort: 4000, DstPort: 80},
			"b: udp [fd00:10:244:1::2]:4000 -> [fd00:10:244:1::3]:8080", "b", "a: udp [fd00:10:96::20]:80 -> [fd00:10:244:1::2]:4000"},
		{"SCTP", "a", packettest.Packet{Src: podA, Dst: web, Proto: packet.SCTP, SrcPort: 4000, DstPort: 80, Payload: []byte("INIT")},
			"b: sctp 10.244.1.2:4000 -> 10.244.1.3:8080", "b", "a: sctp 10.96.0.20:80 -> 10.244.1.2:4000"},
		{"pod to a pod of another node", "a", packettest.Packet{Src: podA, Dst: far, Proto: packet.TCP, SrcPort: 4000, DstPort: 80, Flags: packet.SYN},
			"peer 192.168.254.12: tcp 10.244.1.2:4000 -> 10.244.2.2:8080", "peer", "a: tcp 10.96.0.22:80 -> 10.244.1.2:4000"},
		{"pod to a far pod over IPv6", "a", packettest.Packet{Src: podA6, Dst: far6, Proto: packet.TCP, SrcPort: 4000, DstPort: 80, Flags: packet.SYN},
			"peer 192.168.254.12: tcp [fd00:10:244:1::2]:4000 -> [fd00:10:244:2::2]:8080", "peer", "a: tcp [fd00:10:96::22]:80 -> [fd00:10:244:1::2]:4000"},
		{"hairpin", "a", packettest.Packet{Src: podA, Dst: self, Proto: packet.TCP, SrcPort: 4000, DstPort: 80, Flags: packet.SYN},
			"a: tcp 10.244.1.1:4000 -> 10.244.1.2:8080", "a", "a: tcp 10.96.0.21:80 -> 10.244.1.2:4000"},
		{"pod to its node's host", "a", packettest.Packet{Src: podA, Dst: onHost, Proto: packet.TCP, SrcPort: 4000, DstPort: 80, Flags: packet.SYN},
			"host: tcp 10.244.1.2:4000 -> 192.168.254.11:6443", "host", "a: tcp 10.96.0.23:80 -> 10.244.1.2:4000"},
		{"host to a pod of its node", "host", packettest.Packet{Src: hostZero, Dst: web, Proto: packet.TCP, SrcPort: 4000, DstPort: 80, Flags: packet.SYN},
			"b: tcp 10.244.1.0:4000 -> 10.244.1.3:8080", "b", "host: tcp 10.96.0.20:80 -> 10.244.1.0:4000"},
		{"host, from its node's address", "host", packettest.Packet{Src: hostNode, Dst: web, Proto: packet.TCP, SrcPort: 4000, DstPort: 80, Flags: packet.SYN},
			"b: tcp 192.168.254.11:4000 -> 10.244.1.3:8080", "b", "host: tcp 10.96.0.20:80 -> 192.168.254.11:4000"},
		{"host to a far pod", "host", packettest.Packet{Src: hostNode, Dst: far, Proto: packet.TCP, SrcPort: 4000, DstPort: 80, Flags: packet.SYN},
			"peer 192.168.254.12: tcp 10.244.1.0:4000 -> 10.244.2.2:8080", "peer", "host: tcp 10.96.0.22:80 -> 192.168.254.11:4000"},
		{"host to itself", "host", packettest.Packet{Src: hostZero, Dst: onHost, Proto: packet.TCP, SrcPort: 4000, DstPort: 80, Flags: packet.SYN},
			"host: tcp 10.244.1.1:4000 -> 192.168.254.11:6443", "host", "host: tcp 10.96.0.23:80 -> 10.244.1.0:4000"},
		{"host to itself, from the backend's address", "host", packettest.Packet{Src: hostNode, Dst: onHost, Proto: packet.TCP, SrcPort: 4000, DstPort: 80, Flags: packet.SYN},
			"host: tcp 10.244.1.1:4000 -> 192.168.254.11:6443", "host", "host: tcp 10.96.0.23:80 -> 192.168.254.11:4000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newServiceBed(t, 1)
			d.run(t)
			for range 2 { // the second time by the flow table
				d.from(tt.from).Inject(0, tt.sent.Frame())
				o := d.outcome(t)
				if o.packet == nil {
					t.Fatalf("dropped: %s", o.where)
				}
				if got := o.where + ": " + describe(t, o.packet); got != tt.want {
					t.Fatalf("got %s\nwant %s", got, tt.want)
				}
				d.from(tt.reply).Inject(0, answerTo(o.packet))
				if got := d.comesOut(t); got != tt.back {
					t.Errorf("the answer: got %s\nwant %s", got, tt.back)
				}
			}
		})
	}
}

// answerTo returns a packet in answer to b.
func answerTo(b []byte) []byte {
	var p packet.Parsed
	packet.Parse(b, &p)
	return packettest.Packet{
		Src: p.Flow.Dst(), Dst: p.Flow.Src(), Proto: p.Proto, SrcPort: p.Flow.DstPort(), DstPort: p.Flow.SrcPort(), Flags: packet.ACK,
	}.Frame()
}

// TestServiceTraces: what becomes of a packet to an address of Services, and why.
func TestServiceTraces(t *testing.T) {
	for _, tt := range []struct {
		name string
		sent Probe
		want string // as outcomeOf says it
		why  string // is in one of the steps
	}{
		{"to a backend", Probe{From: "a", Dst: web, DstPort: 80}, "pod b: tcp 10.244.1.2:49152 -> 10.244.1.3:8080", "ready"},
		{"a port that the Service does not have", Probe{From: "a", Dst: web, DstPort: 81}, "service-port; told tcp 10.96.0.20:81 -> 10.244.1.2:49152", "no such port"},
		{"of UDP", Probe{From: "a", Dst: web, DstPort: 81, Proto: packet.UDP}, "service-port; told icmp 10.96.0.20:0 -> 10.244.1.2:0", "no such port"},
		{"of SCTP", Probe{From: "a", Dst: far, DstPort: 80, Proto: packet.SCTP}, "service-port; told icmp 10.96.0.22:0 -> 10.244.1.2:0", "no such port"},
		{"from the host", Probe{From: "mw0", Dst: web, DstPort: 81}, "service-port; told tcp 10.96.0.20:81 -> 10.244.1.0:49152", "no such port"},
		{"no endpoint", Probe{From: "a", Dst: empty, DstPort: 80}, "no-backend; told tcp 10.96.0.24:80 -> 10.244.1.2:49152", "no endpoint"},
		{"no endpoint, UDP", Probe{From: "a", Dst: empty, DstPort: 80, Proto: packet.UDP}, "no-backend; told icmp 10.96.0.24:0 -> 10.244.1.2:0", "no endpoint"},
		{"no endpoint, IPv6", Probe{From: "a", Dst: empty6, DstPort: 80}, "no-backend; told tcp [fd00:10:96::24]:80 -> [fd00:10:244:1::2]:49152", "no endpoint"},
		{"unknown port, IPv6 UDP", Probe{From: "a", Dst: empty6, DstPort: 81, Proto: packet.UDP}, "service-port; told icmpv6 [fd00:10:96::24]:0 -> [fd00:10:244:1::2]:0", "no such port"},
		{"policy Local", Probe{From: "a", Dst: elsewhere, DstPort: 80}, "no-local-backend", "policy is Local"},
		{"nobody's address", Probe{From: "a", Dst: unallocated, DstPort: 80}, "no-service", "no Service has it"},
		{"nobody's address, ping", Probe{From: "a", Dst: unallocated, Proto: packet.ICMP}, "no-service", "no Service has it"},
		{"a ping", Probe{From: "a", Dst: web, Proto: packet.ICMP}, "answered; told icmp 10.96.0.20:49152 -> 10.244.1.2:49152", "answers pings"},
		{"a ping, IPv6", Probe{From: "a", Dst: web6, Proto: packet.ICMPv6}, "answered; told icmpv6 [fd00:10:96::20]:49152 -> [fd00:10:244:1::2]:49152", "answers pings"},
		{"a ping of the host", Probe{From: "mw0", Dst: web, Proto: packet.ICMP}, "answered; told icmp 10.96.0.20:49152 -> 10.244.1.0:49152", "answers pings"},
		{"cluster DNS", Probe{From: "a", Dst: dnsVIP, DstPort: 53}, "node: tcp 10.244.1.2:49152 -> 10.96.0.10:53", "the node itself serves it"},
		{"a backend that is gone", Probe{From: "a", Dst: departed, DstPort: 80}, "no-pod; told icmp 10.244.1.1:0 -> 10.244.1.2:0", "no pod has it"},
		{"a peer's", Probe{Src: farPod, Dst: web, DstPort: 80}, "no-service", "for this sender"},
		{"a peer's ping", Probe{Src: farPod, Dst: web, Proto: packet.ICMP}, "no-service", "for this sender"},
		{"a peer's, forwarded by the host", Probe{From: "mw0", Src: farPod, Dst: web, DstPort: 80}, "no-service", "for this sender"},
		{"another's source", Probe{From: "a", Src: podB, Dst: web, DstPort: 80}, "source", "no such address"},
		{"its last hop", Probe{From: "a", Dst: web, DstPort: 80, TTL: 1}, "ttl; told icmp 10.244.1.1:0 -> 10.244.1.2:0", "ICMP time exceeded"},
		{"too big", Probe{From: "a", Dst: far, DstPort: 80, Proto: packet.UDP, Payload: 1500}, "too-big; told icmp 10.244.1.1:0 -> 10.244.1.2:0", "ICMP too big"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newServiceBed(t, 1)
			d.dns = keysOf([]netip.Addr{dnsVIP})
			d.nodeAddrs(t, dnsVIP)
			got, err := d.Trace(tt.sent)
			if err != nil {
				t.Fatal(err)
			}
			if s := outcomeOf(t, &got); s != tt.want || !strings.Contains(steps(&got), tt.why) {
				t.Errorf("got %s\nwant %s, because of %q in:\n%s", s, tt.want, tt.why, steps(&got))
			}
			if n := d.flows.Len(); n != 0 {
				t.Errorf("the trace left %d flows", n)
			}
		})
	}
}

// outcomeOf says in a line what a trace says.
func outcomeOf(t *testing.T, tr *Trace) string {
	t.Helper()
	s := tr.Reason
	switch {
	case tr.Verdict == "forwarded":
		s = tr.To
		for _, b := range tr.Out {
			s += ": " + describe(t, b)
		}
	case tr.Verdict == "answered":
		s = "answered"
	}
	for _, b := range tr.Answers {
		s += "; told " + describe(t, b)
	}
	return s
}

func steps(tr *Trace) (s string) {
	for _, step := range tr.Steps {
		s += fmt.Sprintf("%s: %s (%s)\n", step.Stage, step.Text, step.Why)
	}
	return s
}

// A trace tells of each step.
func TestTraceSteps(t *testing.T) {
	d := newServiceBed(t, 1)
	got, err := d.Trace(Probe{From: "a", Dst: far, DstPort: 80})
	if err != nil {
		t.Fatal(err)
	}
	want := `source: from pod a, as 10.244.1.2 (the pod has the address)
service: Service default/10.96.0.22:tcp:80: 10.244.2.2:8080 of 1 backend, by random (ready)
translate: becomes 10.244.1.2:49152 -> 10.244.2.2:8080 ()
route: 10.244.2.2 is peer 192.168.254.12 ()
size: 40 bytes of at most 1450, time to live 64 ()
tunnel: the fake tunnel to 192.168.254.12 ()
`
	if diff := cmp.Diff(want, steps(&got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A trace shows a flow that is there, and one that it was asked to enter stays.
func TestTraceKnown(t *testing.T) {
	d := newServiceBed(t, 1)
	probe := Probe{From: "a", Dst: web, DstPort: 80}
	for i, want := range []string{"service", "service", "flow"} {
		probe.Enter = i == 1
		got, err := d.Trace(probe)
		if err != nil || got.Steps[1].Stage != want {
			t.Errorf("trace %d: %v, second step %+v, want %s", i, err, got.Steps[1], want)
		}
	}
	want := []Flow{{
		Tuple:    Tuple{"tcp", netip.MustParseAddrPort("10.244.1.2:49152"), netip.MustParseAddrPort("10.96.0.20:80")},
		LeavesAs: &Tuple{"tcp", netip.MustParseAddrPort("10.244.1.2:49152"), netip.MustParseAddrPort("10.244.1.3:8080")},
		Service:  "default/10.96.0.20:tcp:80", To: "pod b", State: "opened",
	}}
	var got []Flow
	for f := range d.Flows() {
		f.Age, f.Idle = f.Age.Truncate(time.Minute), f.Idle.Truncate(time.Minute)
		got = append(got, f)
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("flows (-want +got):\n%s", diff)
	}
}
