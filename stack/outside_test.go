package stack

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/middleway-net/middleway/stack/fib"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
	"github.com/middleway-net/middleway/stack/service"
)

// Addresses outside, of the plan: a server and a client.
var (
	server, server6   = netip.MustParseAddr("203.0.113.80"), netip.MustParseAddr("2001:db8::80")
	client, client6   = netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("2001:db8::7")
	published         = netip.MustParseAddr("203.0.113.200") // an externalIP
	loopback, another = netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.168.254.77")
	loopback6         = netip.IPv6Loopback()
)

// tunnelPort is that of the plan's cluster.
const tunnelPort = 8472

// newOutsideBed returns a bed with a host, the plan's Services, those of outsiders and a way out.
func newOutsideBed(t testing.TB, workers int, change ...func(*Config)) *hostBed {
	t.Helper()
	var d *hostBed
	out := &fakeNode{}
	d = newHostBed(t, workers, append(change, func(c *Config) {
		c.Outside, c.TunnelPort, c.ClusterCIDRs = out, tunnelPort, clusterRanges
	})...)
	d.out = out
	d.SetFrontAddrs([]netip.Addr{hostNode, hostNode6, another, loopback, loopback6})
	d.SetServices(service.New(serviceRanges).With(outsiders()))
	return d
}

// reached has a port of a Service reached from outside too: at each of External, "tcp 192.168.254.11:80".
func reached(s *service.Service, at ...string) *service.Service {
	p := onlyPort(s)
	p.External, p.Inside = p.Internal, p.Internal
	s.External = map[service.Frontend]*service.Port{}
	for _, f := range at {
		var proto, addr string
		_, _ = fmt.Sscan(f, &proto, &addr)
		to := netip.MustParseAddrPort(addr)
		number, _ := protoPort(proto + ":0")
		s.External[service.Frontend{Addr: to.Addr(), Proto: number, Port: to.Port()}] = p
	}
	return s
}

// outsiders are the plan's Services, reached from outside too.
func outsiders() map[string]*service.Service {
	all := plan()
	reached(all["default/web"], "tcp 0.0.0.0:30080", "tcp 203.0.113.200:80")
	reached(all["default/web-udp"], "udp 0.0.0.0:30080", "udp 127.0.0.1:5353")
	reached(all["default/web6"], "tcp [::]:30080")
	reached(all["default/web6-udp"], "udp [::]:30080")
	reached(all["default/self"], "tcp 0.0.0.0:30081")
	reached(all["default/far"], "tcp 0.0.0.0:30082")
	reached(all["default/far-udp"], "udp 0.0.0.0:30082")
	reached(all["default/far6"], "tcp [::]:30082")
	reached(all["default/on-host"], "tcp 0.0.0.0:30083")
	reached(all["default/empty"], "tcp 0.0.0.0:30084")
	reached(all["default/empty-udp"], "udp 0.0.0.0:30084")
	local := reached(serving(elsewhere, "udp:80", "10.244.2.2:8080"), "udp 0.0.0.0:30085") // policy Local, no backend here
	onlyPort(local).External = service.Choice{None: packet.DropNoLocalBackend, Why: "policy Local"}
	all["default/local-outside"] = local
	return all
}

// gives has a packet come in from a place of the bed: "a", "b", "host", "peer", "node" for the netstack, or "outside".
func (d *hostBed) gives(from string, frame []byte) {
	switch from {
	case "node":
		d.Inject(packet.Offload{}, frame[packet.VnetLen:])
	case "outside":
		d.InjectOutside(packet.Offload{}, frame[packet.VnetLen:])
	default:
		d.from(from).Inject(0, frame)
	}
}

// TestEgress: what a pod sends to where no route leads leaves the cluster as it is, and what is answered from there reaches it.
func TestEgress(t *testing.T) {
	for _, tt := range []struct {
		name    string
		sent    packettest.Packet
		answers string // who sends the answer
	}{
		{"TCP", packettest.Packet{Src: podA, Dst: server, Proto: packet.TCP, SrcPort: 4000, DstPort: 443, Flags: packet.SYN}, "node"},
		{"UDP", packettest.Packet{Src: podA, Dst: server, SrcPort: 4000, DstPort: 53}, "outside"},
		{"echo", packettest.Packet{Src: podA, Dst: server, Proto: packet.ICMP, SrcPort: 7}, "outside"},
		{"TCP over IPv6", packettest.Packet{Src: podA6, Dst: server6, Proto: packet.TCP, SrcPort: 4000, DstPort: 443, Flags: packet.SYN}, "node"},
		{"UDP over IPv6", packettest.Packet{Src: podA6, Dst: server6, SrcPort: 4000, DstPort: 53}, "outside"},
		{"the tunnel's port, over TCP", packettest.Packet{Src: podA, Dst: server, Proto: packet.TCP, SrcPort: 4000, DstPort: tunnelPort, Flags: packet.SYN}, "node"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newOutsideBed(t, 1)
			d.run(t)
			for range 2 { // the second time by the flow table
				d.a.Inject(0, tt.sent.Frame())
				got := d.outcome(t)
				if got.where != "outside" {
					t.Fatalf("got %s, want outside", got.where)
				}
				checkForwarded(t, tt.sent.Frame()[packet.VnetLen:], got.packet, false)
				back := answerTo(got.packet)
				d.gives(tt.answers, back)
				got = d.outcome(t)
				if got.where != "a" {
					t.Fatalf("the answer: got %s, want a", got.where)
				}
				checkForwarded(t, back[packet.VnetLen:], got.packet, tt.answers == "node")
			}
			if err := d.SetRoutes(peerRoutes); err != nil { // all is judged again
				t.Fatal(err)
			}
			d.a.Inject(0, tt.sent.Frame())
			if got := d.outcome(t); got.where != "outside" {
				t.Errorf("by new tables: got %s, want outside", got.where)
			}
		})
	}
}

// TestGuardRails: what no pod, peer or host reaches through the node's sockets, and what the sender is told.
func TestGuardRails(t *testing.T) {
	ip := netip.MustParseAddr
	tcp := func(src, dst netip.Addr, port uint16) packettest.Packet {
		return packettest.Packet{Src: src, Dst: dst, Proto: packet.TCP, SrcPort: 4000, DstPort: port, Flags: packet.SYN}
	}
	udp := func(src, dst netip.Addr, port uint16) packettest.Packet {
		return packettest.Packet{Src: src, Dst: dst, SrcPort: 4000, DstPort: port}
	}
	const prohibited, unreachable = 13, 0
	for _, tt := range []struct {
		name string
		from string
		sent packettest.Packet
		want string
		told int // code of the ICMP destination unreachable; -1: nothing
	}{
		{"an unallocated address of Services", "a", tcp(podA, unallocated, 80), "no-service", -1},
		{"over IPv6", "a", tcp(podA6, ip("fd00:10:96::9999"), 80), "no-service", -1},
		{"over UDP", "a", udp(podA, unallocated, 80), "no-service", -1},
		{"a pod that is not there", "a", tcp(podA, ip("10.244.1.77"), 80), "no-pod", 1},
		{"a range of the cluster that no node has", "a", tcp(podA, ip("10.244.77.1"), 80), "no-route", unreachable},
		{"over IPv6, a range of the cluster", "a", tcp(podA6, ip("fd00:10:244:77::1"), 80), "no-route", -1},
		{"a ping into the cluster", "a", packettest.Packet{Src: podA, Dst: ip("10.244.77.1"), Proto: packet.ICMP, SrcPort: 7}, "no-route", unreachable},
		{"the tunnel's port of a peer", "a", udp(podA, peer2, tunnelPort), "guarded", prohibited},
		{"the tunnel's port of a peer that no pod knows", "a", udp(podA, peer3, tunnelPort), "guarded", prohibited},
		{"the tunnel's port of a peer, at another address of it", "a", udp(podA, peer2b, tunnelPort), "guarded", prohibited},
		{"the tunnel's port of its own host", "a", udp(podA, hostNode, tunnelPort), "guarded", prohibited},
		{"the tunnel's port of anybody", "a", udp(podA, server, tunnelPort), "guarded", prohibited},
		{"the tunnel's port over IPv6", "a", udp(podA6, server6, tunnelPort), "guarded", -1},
		{"an address of the node that its host does not have", "a", tcp(podA, another, 22), "guarded", prohibited},
		{"loopback", "a", tcp(podA, loopback, 22), "scope", -1},
		{"all of loopback", "a", tcp(podA, ip("127.8.8.8"), 22), "scope", -1},
		{"loopback over IPv6", "a", tcp(podA6, loopback6, 22), "scope", -1},
		{"unspecified", "a", tcp(podA, ip("0.0.0.0"), 22), "scope", -1},
		{"unspecified over IPv6", "a", tcp(podA6, ip("::"), 22), "scope", -1},
		{"multicast", "a", udp(podA, ip("224.0.0.251"), 5353), "scope", -1},
		{"multicast over IPv6", "a", udp(podA6, ip("ff02::fb"), 5353), "scope", -1},
		{"broadcast", "a", udp(podA, ip("255.255.255.255"), 67), "scope", -1},
		{"link-local", "a", tcp(podA, ip("169.254.169.254"), 80), "scope", -1},
		{"link-local over IPv6", "a", tcp(podA6, ip("fe80::1"), 80), "scope", -1},
		{"SCTP", "a", packettest.Packet{Src: podA, Dst: server, Proto: packet.SCTP, SrcPort: 4000, DstPort: 80}, "protocol", prohibited},
		{"a protocol without ports", "a", packettest.Packet{Src: podA, Dst: server, Proto: 50}, "protocol", prohibited},
		{"another's source", "a", tcp(podB, server, 80), "source", -1},
		{"its last hop", "a", packettest.Packet{Src: podA, Dst: server, SrcPort: 4000, DstPort: 33434, TTL: 1}, "ttl", -1},
		{"a peer's pod", "peer", tcp(farPod, server, 80), "no-route", unreachable},
		{"the host", "host", tcp(hostNode, server, 80), "no-route", unreachable},
		{"from outside, to a pod", "outside", udp(client, podA, 80), "uninvited", -1},
		{"from outside, to a Service", "outside", udp(client, web, 80), "uninvited", -1},
		{"from outside, to a port of the node that no Service has", "outside", udp(client, hostNode, 30099), "uninvited", -1},
		{"from outside, an error about nothing", "outside", packettest.Packet{Src: client, Dst: podA, Proto: packet.ICMP}, "uninvited", -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newOutsideBed(t, 1)
			d.run(t)
			for range 2 {
				d.gives(tt.from, tt.sent.Frame())
				if got := d.outcome(t); got.where != tt.want {
					t.Fatalf("got %s, want %s", got.where, tt.want)
				}
			}
			if err := d.Healthy(t.Context()); err != nil { // the worker is through with it
				t.Fatal(err)
			}
			for _, o := range d.arrived() {
				d.errors = append(d.errors, answered(o))
			}
			told := -1
			for _, e := range d.errors {
				if e.packet[0]>>4 == 4 && e.packet[20] == 3 {
					told = int(e.packet[21])
				}
			}
			if told != tt.told {
				t.Errorf("the sender is told %d, want %d", told, tt.told)
			}
			if n := d.flows.Len(); n != 0 && tt.want != "ttl" {
				t.Errorf("%d flows were entered", n)
			}
		})
	}
}

// A destination on the node is reached by the tables, whatever way out there is: from a pod's own address.
func TestEgressToTheNode(t *testing.T) {
	d := newOutsideBed(t, 1)
	d.run(t)
	for i, tt := range []struct {
		dst  netip.Addr
		port uint16
		want string
	}{
		{hostNode, 22, "host: tcp 10.244.1.2:PORT -> 192.168.254.11:22"},
		{hostOther, 22, "host: tcp 10.244.1.2:PORT -> 203.0.113.5:22"},
		{gateway, 53, "node: tcp 10.244.1.2:PORT -> 10.244.1.1:53"},
		{peer2, 22, "peer 192.168.254.12: tcp 10.244.1.2:PORT -> 192.168.254.12:22"},
		{hostNode, 30080, "b: tcp 10.244.1.2:PORT -> 10.244.1.3:8080"},
		{another, 30080, "b: tcp 10.244.1.2:PORT -> 10.244.1.3:8080"},
		{published, 80, "b: tcp 10.244.1.2:PORT -> 10.244.1.3:8080"},
		{published, 81, "outside: tcp 10.244.1.2:PORT -> 203.0.113.200:81"},
		{hostNode, 30081, "a: tcp 10.244.1.1:PORT -> 10.244.1.2:8080"},
		{hostNode, 30082, "peer 192.168.254.12: tcp 10.244.1.2:PORT -> 10.244.2.2:8080"},
		{hostNode, 30083, "host: tcp 10.244.1.2:PORT -> 192.168.254.11:6443"},
		{hostNode, 30084, "no-backend"},
	} {
		sent := packettest.Packet{Src: podA, Dst: tt.dst, Proto: packet.TCP, SrcPort: uint16(4000 + i), DstPort: tt.port, Flags: packet.SYN}
		if got, want := d.sends(t, sent), strings.Replace(tt.want, "PORT", strconv.Itoa(4000+i), 1); got != want {
			t.Errorf("%v:%d: got %s, want %s", tt.dst, tt.port, got, want)
		}
	}
}

// A Service may have its endpoints outside: pods and the host reach them, also after a change of the tables.
func TestServiceOutside(t *testing.T) {
	for _, tt := range []struct {
		from string
		src  netip.Addr
		back string
	}{
		{"a", podA, "a: tcp 10.96.0.20:80 -> 10.244.1.2:4000"},
		{"host", hostNode, "host: tcp 10.96.0.20:80 -> 192.168.254.11:4000"},
	} {
		d := newOutsideBed(t, 1)
		d.run(t)
		d.SetServices(service.New(serviceRanges).With(map[string]*service.Service{"default/web": serving(web, "tcp:80", "203.0.113.80:6443")}))
		for range 2 {
			d.gives(tt.from, packettest.Packet{Src: tt.src, Dst: web, Proto: packet.TCP, SrcPort: 4000, DstPort: 80, Flags: packet.SYN}.Frame())
			o := d.outcome(t)
			if got, want := o.where+": "+describe(t, o.packet), fmt.Sprintf("outside: tcp %v:4000 -> 203.0.113.80:6443", tt.src); got != want {
				t.Fatalf("got %s, want %s", got, want)
			}
			d.gives("node", answerTo(o.packet))
			if got := d.comesOut(t); got != tt.back {
				t.Errorf("the answer: got %s, want %s", got, tt.back)
			}
			d.judgeAnew(t)
		}
	}
}

// The range of a peer that has gone is no way out.
func TestRangeOfGonePeer(t *testing.T) {
	d := newOutsideBed(t, 1)
	d.run(t)
	gone := fib.Route{Prefix: netip.MustParsePrefix("100.64.7.0/24"), Destination: fib.Destination{Kind: fib.Peer, Peer: peer3}}
	address := fib.Route{Prefix: netip.PrefixFrom(peer3, 32), Destination: gone.Destination}
	for i, tt := range []struct {
		routes       []fib.Route
		pod, address string
	}{
		{[]fib.Route{gone, address}, "peer 192.168.254.13", "peer 192.168.254.13"},
		{nil, "no-route", "outside"}, // whoever has the address by now
		{[]fib.Route{gone}, "peer 192.168.254.13", "outside"},
	} {
		if err := d.SetRoutes(tt.routes); err != nil {
			t.Fatal(err)
		}
		for dst, want := range map[netip.Addr]string{netip.MustParseAddr("100.64.7.9"): tt.pod, peer3: tt.address} {
			d.a.Inject(0, packettest.Packet{Src: podA, Dst: dst, SrcPort: 4000, DstPort: 80}.Frame())
			if got := d.outcome(t); got.where != want {
				t.Errorf("%d: to %v: got %s, want %s", i, dst, got.where, want)
			}
		}
	}
}

// What may be a peer's pod's waits for the routes: a daemon that was started again would else reset the connections with it.
func TestAwaitRoutes(t *testing.T) {
	d := newOutsideBed(t, 1, func(c *Config) { c.AwaitRoutes = true })
	d.run(t)
	segment := packettest.Packet{Src: podA, Dst: server, Proto: packet.TCP, SrcPort: 4000, DstPort: 443, Flags: packet.ACK}.Frame()
	for i, want := range []string{"not-ready", "outside", "peer 192.168.254.13"} {
		switch i {
		case 1:
			if err := d.RoutesKnown(); err != nil {
				t.Fatal(err)
			}
		case 2:
			if err := d.SetRoutes([]fib.Route{{Prefix: netip.PrefixFrom(server, 32), Destination: fib.Destination{Kind: fib.Peer, Peer: peer3}}}); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 { // the second time by the flow table
			d.a.Inject(0, segment)
			if got := d.outcome(t); got.where != want {
				t.Errorf("%d: got %s, want %s", i, got.where, want)
			}
		}
		d.host.Inject(0, packettest.Packet{Src: hostZero, Dst: client, SrcPort: 4000, DstPort: 80}.Frame())
		if got, hostWant := d.outcome(t).where, []string{"not-ready", "no-route", "no-route"}[i]; got != hostWant {
			t.Errorf("%d: from the host: got %s, want %s", i, got, hostWant)
		}
	}
}

// TestExternal: a client outside reaches a Service's backend wherever it is, from the gateway's address, and the answer leaves from where
// the client asked, after a change of the tables too.
func TestExternal(t *testing.T) {
	tcp := func(src netip.Addr, dst netip.Addr, port uint16) packettest.Packet {
		return packettest.Packet{Src: src, Dst: dst, Proto: packet.TCP, SrcPort: 4000, DstPort: port, Flags: packet.SYN}
	}
	udp := func(src netip.Addr, dst netip.Addr, port uint16) packettest.Packet {
		return packettest.Packet{Src: src, Dst: dst, SrcPort: 4000, DstPort: port}
	}
	for _, tt := range []struct {
		name  string
		from  string
		sent  packettest.Packet
		want  string
		reply string // from where the answer comes
		back  string // where that comes out
	}{
		{"a pod here", "node", tcp(client, hostNode, 30080), "b: tcp 10.244.1.1:4000 -> 10.244.1.3:8080", "b", "outside: tcp 192.168.254.11:30080 -> 203.0.113.7:4000"},
		{"over UDP", "outside", udp(client, hostNode, 30080), "b: udp 10.244.1.1:4000 -> 10.244.1.3:8080", "b", "outside: udp 192.168.254.11:30080 -> 203.0.113.7:4000"},
		{"over IPv6", "node", tcp(client6, hostNode6, 30080), "b: tcp [fd00:10:244:1::1]:4000 -> [fd00:10:244:1::3]:8080", "b", "outside: tcp [fd00:254::11]:30080 -> [2001:db8::7]:4000"},
		{"over UDP and IPv6", "outside", udp(client6, hostNode6, 30080), "b: udp [fd00:10:244:1::1]:4000 -> [fd00:10:244:1::3]:8080", "b", "outside: udp [fd00:254::11]:30080 -> [2001:db8::7]:4000"},
		{"a pod of a peer", "node", tcp(client, hostNode, 30082), "peer 192.168.254.12: tcp 10.244.1.1:4000 -> 10.244.2.2:8080", "peer", "outside: tcp 192.168.254.11:30082 -> 203.0.113.7:4000"},
		{"a pod of a peer, over UDP", "outside", udp(client, hostNode, 30082), "peer 192.168.254.12: udp 10.244.1.1:4000 -> 10.244.2.2:8080", "peer", "outside: udp 192.168.254.11:30082 -> 203.0.113.7:4000"},
		{"a pod of a peer, over IPv6", "node", tcp(client6, hostNode6, 30082), "peer 192.168.254.12: tcp [fd00:10:244:1::1]:4000 -> [fd00:10:244:2::2]:8080", "peer", "outside: tcp [fd00:254::11]:30082 -> [2001:db8::7]:4000"},
		{"the host", "node", tcp(client, hostNode, 30083), "host: tcp 10.244.1.1:4000 -> 192.168.254.11:6443", "host", "outside: tcp 192.168.254.11:30083 -> 203.0.113.7:4000"},
		{"the client is the host", "node", tcp(hostNode, hostNode, 30080), "b: tcp 10.244.1.1:4000 -> 10.244.1.3:8080", "b", "outside: tcp 192.168.254.11:30080 -> 192.168.254.11:4000"},
		{"the client is the host, the backend too", "node", tcp(hostNode, hostNode, 30083), "host: tcp 10.244.1.1:4000 -> 192.168.254.11:6443", "host", "outside: tcp 192.168.254.11:30083 -> 192.168.254.11:4000"},
		{"the client is another node", "node", tcp(peer2, hostNode, 30080), "b: tcp 10.244.1.1:4000 -> 10.244.1.3:8080", "b", "outside: tcp 192.168.254.11:30080 -> 192.168.254.12:4000"},
		{"on loopback", "node", tcp(loopback, loopback, 30080), "b: tcp 10.244.1.1:4000 -> 10.244.1.3:8080", "b", "outside: tcp 127.0.0.1:30080 -> 127.0.0.1:4000"},
		{"on loopback, over UDP", "outside", udp(loopback, loopback, 30080), "b: udp 10.244.1.1:4000 -> 10.244.1.3:8080", "b", "outside: udp 127.0.0.1:30080 -> 127.0.0.1:4000"},
		{"on loopback, over IPv6", "node", tcp(loopback6, loopback6, 30080), "b: tcp [fd00:10:244:1::1]:4000 -> [fd00:10:244:1::3]:8080", "b", "outside: tcp [::1]:30080 -> [::1]:4000"},
		{"on loopback, of a peer", "node", tcp(loopback, loopback, 30082), "peer 192.168.254.12: tcp 10.244.1.1:4000 -> 10.244.2.2:8080", "peer", "outside: tcp 127.0.0.1:30082 -> 127.0.0.1:4000"},
		{"on loopback, from the node's address", "node", tcp(hostNode, loopback, 30080), "b: tcp 10.244.1.1:4000 -> 10.244.1.3:8080", "b", "outside: tcp 127.0.0.1:30080 -> 192.168.254.11:4000"},
		{"a port of one address", "outside", udp(loopback, loopback, 5353), "b: udp 10.244.1.1:4000 -> 10.244.1.3:8080", "b", "outside: udp 127.0.0.1:5353 -> 127.0.0.1:4000"},
		{"and of no other", "outside", udp(client, hostNode, 5353), "uninvited", "", ""},
		{"an externalIP", "node", tcp(client, published, 80), "b: tcp 10.244.1.1:4000 -> 10.244.1.3:8080", "b", "outside: tcp 203.0.113.200:80 -> 203.0.113.7:4000"},
		{"a NodePort at an externalIP", "outside", udp(client, published, 30080), "uninvited", "", ""},
		{"a pod of another node", "peer", tcp(farPod, hostNode, 30080), "b: tcp 10.244.1.1:4000 -> 10.244.1.3:8080", "b", "peer 192.168.254.12: tcp 192.168.254.11:30080 -> 10.244.2.2:4000"},
		{"a pod of another node, to one of that node", "peer", tcp(netip.MustParseAddr("10.244.2.9"), hostNode, 30082), "peer 192.168.254.12: tcp 10.244.1.1:4000 -> 10.244.2.2:8080", "peer", "peer 192.168.254.12: tcp 192.168.254.11:30082 -> 10.244.2.9:4000"},
		{"a pod here, at the node", "a", tcp(podA, hostNode, 30080), "b: tcp 10.244.1.2:4000 -> 10.244.1.3:8080", "b", "a: tcp 192.168.254.11:30080 -> 10.244.1.2:4000"},
		{"no endpoint", "outside", udp(client, hostNode, 30084), "no-backend", "", ""},
		{"policy Local, none here", "outside", udp(client, hostNode, 30085), "no-local-backend", "", ""},
		{"policy Local, from a peer's pod", "peer", udp(farPod, hostNode, 30085), "no-local-backend", "", ""},
		{"policy Local, from the node", "outside", udp(hostNode, hostNode, 30085), "peer 192.168.254.12: udp 10.244.1.1:4000 -> 10.244.2.2:8080", "peer", "outside: udp 192.168.254.11:30085 -> 192.168.254.11:4000"},
		{"policy Local, on loopback", "outside", udp(loopback, loopback, 30085), "peer 192.168.254.12: udp 10.244.1.1:4000 -> 10.244.2.2:8080", "peer", "outside: udp 127.0.0.1:30085 -> 127.0.0.1:4000"},
		{"policy Local, from a pod here", "a", udp(podA, hostNode, 30085), "peer 192.168.254.12: udp 10.244.1.2:4000 -> 10.244.2.2:8080", "peer", "a: udp 192.168.254.11:30085 -> 10.244.1.2:4000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newOutsideBed(t, 1)
			d.run(t)
			for round := range 3 { // the second time by the flow table, the third by new tables
				d.gives(tt.from, tt.sent.Frame())
				o := d.outcome(t)
				got := o.where
				if o.packet != nil {
					got += ": " + describe(t, o.packet)
				}
				if got != tt.want {
					t.Fatalf("round %d: got %s\nwant %s", round, got, tt.want)
				}
				if tt.reply == "" {
					return
				}
				if round == 1 {
					d.judgeAnew(t)
				}
				d.gives(tt.reply, answerTo(o.packet))
				if got := d.comesOut(t); got != tt.back {
					t.Errorf("round %d, the answer: got %s\nwant %s", round, got, tt.back)
				}
			}
		})
	}
}

// TestKeepClient: whom a backend sees that is to see its client: that one where answers come back through this node, and where the address
// cannot be a lie about a pod; else the gateway.
func TestKeepClient(t *testing.T) {
	tcp := func(src, dst netip.Addr, port uint16) packettest.Packet {
		return packettest.Packet{Src: src, Dst: dst, Proto: packet.TCP, SrcPort: 4000, DstPort: port, Flags: packet.SYN}
	}
	udp := func(src, dst netip.Addr, port uint16) packettest.Packet {
		return packettest.Packet{Src: src, Dst: dst, SrcPort: 4000, DstPort: port}
	}
	keeping := func(backend string, at string) *service.Service {
		s := reached(serving(elsewhere, "tcp:80", backend), "tcp "+at, "udp "+at)
		for _, p := range s.External {
			p.External.KeepClient, p.Inside.KeepClient = true, true
		}
		return s
	}
	const near, kernel, far, host = 30080, 30081, 30082, 30083
	services := map[string]*service.Service{
		"default/near":   keeping("10.244.1.3:8080", "0.0.0.0:30080"),
		"default/kernel": keeping("10.244.2.2:8080", "0.0.0.0:30081"),
		"default/far":    keeping("10.244.3.2:8080", "0.0.0.0:30082"),
		"default/host":   keeping("192.168.254.11:6443", "0.0.0.0:30083"),
	}
	for _, tt := range []struct {
		name  string
		from  string
		sent  packettest.Packet
		want  string
		reply string
		back  string
	}{
		{"outside", "node", tcp(client, hostNode, near), "b: tcp 203.0.113.7:4000 -> 10.244.1.3:8080", "b", "outside: tcp 192.168.254.11:30080 -> 203.0.113.7:4000"},
		{"outside, over UDP", "outside", udp(client, hostNode, near), "b: udp 203.0.113.7:4000 -> 10.244.1.3:8080", "b", "outside: udp 192.168.254.11:30080 -> 203.0.113.7:4000"},
		{"another node", "node", tcp(peer2b, hostNode, near), "b: tcp 198.51.100.12:4000 -> 10.244.1.3:8080", "b", "outside: tcp 192.168.254.11:30080 -> 198.51.100.12:4000"},
		{"another node's pod", "peer", tcp(farPod, hostNode, near), "b: tcp 10.244.2.2:4000 -> 10.244.1.3:8080", "b", "peer 192.168.254.12: tcp 192.168.254.11:30080 -> 10.244.2.2:4000"},
		{"who says it is a pod here", "outside", udp(podA, hostNode, near), "b: udp 10.244.1.1:4000 -> 10.244.1.3:8080", "b", "outside: udp 192.168.254.11:30080 -> 10.244.1.2:4000"},
		{"who says it is a pod elsewhere", "outside", udp(farPod, hostNode, near), "b: udp 10.244.1.1:4000 -> 10.244.1.3:8080", "b", "outside: udp 192.168.254.11:30080 -> 10.244.2.2:4000"},
		{"on loopback", "node", tcp(loopback, loopback, near), "b: tcp 10.244.1.1:4000 -> 10.244.1.3:8080", "b", "outside: tcp 127.0.0.1:30080 -> 127.0.0.1:4000"},
		{"the node", "node", tcp(hostNode, hostNode, near), "b: tcp 192.168.254.11:4000 -> 10.244.1.3:8080", "b", "outside: tcp 192.168.254.11:30080 -> 192.168.254.11:4000"},
		{"the node, by an address that peers do not know", "node", tcp(hostOther, hostNode, near), "b: tcp 10.244.1.1:4000 -> 10.244.1.3:8080", "b", "outside: tcp 192.168.254.11:30080 -> 203.0.113.5:4000"},
		{"the backend is elsewhere", "node", tcp(client, hostNode, far), "peer 192.168.254.13: tcp 10.244.1.1:4000 -> 10.244.3.2:8080", "peer", "outside: tcp 192.168.254.11:30082 -> 203.0.113.7:4000"},
		{"the node, and the backend is elsewhere", "node", tcp(hostNode, hostNode, far), "peer 192.168.254.13: tcp 192.168.254.11:4000 -> 10.244.3.2:8080", "peer", "outside: tcp 192.168.254.11:30082 -> 192.168.254.11:4000"},
		{"the node, and the backend's would answer by the underlay", "node", tcp(hostNode, hostNode, kernel), "peer 192.168.254.12: tcp 10.244.1.1:4000 -> 10.244.2.2:8080", "peer", "outside: tcp 192.168.254.11:30081 -> 192.168.254.11:4000"},
		{"the backend is the host's", "node", tcp(client, hostNode, host), "host: tcp 10.244.1.1:4000 -> 192.168.254.11:6443", "host", "outside: tcp 192.168.254.11:30083 -> 203.0.113.7:4000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newOutsideBed(t, 1, func(c *Config) { c.KnownAddrs = []netip.Addr{hostNode} })
			d.run(t)
			if err := d.SetRoutes([]fib.Route{
				{Prefix: netip.MustParsePrefix("10.244.2.0/24"), Destination: fib.Destination{Kind: fib.Peer, Peer: peer2}},
				{Prefix: netip.MustParsePrefix("10.244.3.0/24"), Destination: fib.Destination{Kind: fib.Peer, Peer: peer3, Returns: true}},
				{Prefix: netip.PrefixFrom(peer2b, 32), Destination: fib.Destination{Kind: fib.Peer, Peer: peer2, Host: true}},
			}); err != nil {
				t.Fatal(err)
			}
			d.SetServices(service.New(serviceRanges).With(services))
			for round := range 2 { // the second time by the flow table
				d.gives(tt.from, tt.sent.Frame())
				o := d.outcome(t)
				got := o.where
				if o.packet != nil {
					got += ": " + describe(t, o.packet)
				}
				if got != tt.want {
					t.Fatalf("round %d: got %s\nwant %s", round, got, tt.want)
				}
				d.gives(tt.reply, answerTo(o.packet))
				if got := d.comesOut(t); got != tt.back {
					t.Errorf("round %d, the answer: got %s\nwant %s", round, got, tt.back)
				}
			}
		})
	}
}

// judgeAnew swaps in tables of a new generation.
func (d *hostBed) judgeAnew(t *testing.T) {
	t.Helper()
	if err := d.SetRoutes(append(peerRoutes, fib.Route{Prefix: netip.PrefixFrom(peer2, 32), Destination: fib.Destination{Kind: fib.Peer, Peer: peer2}})); err != nil {
		t.Fatal(err)
	}
}

// TestErrorsOutside: errors about what left the cluster or came from outside reach the other end, with the addresses that it knows.
func TestErrorsOutside(t *testing.T) {
	router, router6 := netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8:ffff::1")
	tcp := packettest.Packet{Src: client, Dst: hostNode, Proto: packet.TCP, SrcPort: 4000, DstPort: 30082, Flags: packet.SYN}
	for _, tt := range []struct {
		name   string
		opener string
		sent   packettest.Packet
		src    netip.Addr
		from   string
		want   string
	}{
		{"a router outside", "a", packettest.Packet{Src: podA, Dst: server, SrcPort: 4000, DstPort: 53}, router, "outside", "a: 198.51.100.1 -> 10.244.1.2 about udp 10.244.1.2:4000 -> 203.0.113.80:53"},
		{"the server outside", "a", packettest.Packet{Src: podA, Dst: server, SrcPort: 4000, DstPort: 53}, server, "outside", "a: 203.0.113.80 -> 10.244.1.2 about udp 10.244.1.2:4000 -> 203.0.113.80:53"},
		{"over IPv6", "a", packettest.Packet{Src: podA6, Dst: server6, SrcPort: 4000, DstPort: 53}, router6, "outside", "a: 2001:db8:ffff::1 -> fd00:10:244:1::2 about udp [fd00:10:244:1::2]:4000 -> [2001:db8::80]:53"},
		{"the backend's node", "node", tcp, netip.MustParseAddr("10.244.2.1"), "peer", "outside: 10.244.2.1 -> 203.0.113.7 about tcp 203.0.113.7:4000 -> 192.168.254.11:30082"},
		{"the backend", "outside", packettest.Packet{Src: client, Dst: hostNode, SrcPort: 4000, DstPort: 30080}, podB, "b", "outside: 192.168.254.11 -> 203.0.113.7 about udp 203.0.113.7:4000 -> 192.168.254.11:30080"},
		{"another pod", "outside", packettest.Packet{Src: client, Dst: hostNode, SrcPort: 4000, DstPort: 30080}, podA, "a", "protocol"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newOutsideBed(t, 1)
			d.run(t)
			d.gives(tt.opener, tt.sent.Frame())
			came := d.outcome(t)
			if came.packet == nil {
				t.Fatalf("dropped: %s", came.where)
			}
			var p packet.Parsed
			packet.Parse(came.packet, &p)
			d.gives(tt.from, about(tt.src, p.Flow.Src(), came.packet))
			o := d.outcome(t)
			got := o.where
			if o.packet != nil {
				got += ": " + says(t, o.packet)
			}
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// TestOutsideTraces: a trace shows the way out, why there is none, and the way in.
func TestOutsideTraces(t *testing.T) {
	for _, tt := range []struct {
		name string
		sent Probe
		want string // as outcomeOf says it
		why  string // is in one of the steps
	}{
		{"out", Probe{From: "a", Dst: server, DstPort: 443}, "outside: tcp 10.244.1.2:49152 -> 203.0.113.80:443", "203.0.113.80 is outside"},
		{"the tunnel's port", Probe{From: "a", Dst: server, DstPort: tunnelPort, Proto: packet.UDP}, "guarded; told icmp 10.244.1.1:0 -> 10.244.1.2:0", "only the node itself"},
		{"SCTP", Probe{From: "a", Dst: server, DstPort: 80, Proto: packet.SCTP}, "protocol; told icmp 10.244.1.1:0 -> 10.244.1.2:0", "no socket"},
		{"the host", Probe{From: "mw0", Dst: server, DstPort: 443}, "no-route; told icmp 10.244.1.1:0 -> 10.244.1.0:0", "no pod, peer, node"},
		{"a NodePort from a pod", Probe{From: "a", Dst: hostNode, DstPort: 30080}, "pod b: tcp 10.244.1.2:49152 -> 10.244.1.3:8080", "Service default/10.96.0.20:tcp:80"},
		{"a NodePort from outside", Probe{Src: client, Dst: hostNode, DstPort: 30080}, "pod b: tcp 10.244.1.1:49152 -> 10.244.1.3:8080", "a socket of the node listens"},
		{"one on loopback", Probe{Src: loopback, Dst: loopback, DstPort: 30082, Proto: packet.UDP}, "peer 192.168.254.12: udp 10.244.1.1:49152 -> 10.244.2.2:8080", "a socket of the node listens"},
		{"policy Local", Probe{Src: client, Dst: hostNode, DstPort: 30085, Proto: packet.UDP}, "no-local-backend", "policy Local"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newOutsideBed(t, 1)
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
