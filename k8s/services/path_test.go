package services

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/middleway-net/middleway/stack"
	"github.com/middleway-net/middleway/stack/fib"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/service"
	"github.com/middleway-net/middleway/stack/tap"
	"github.com/middleway-net/middleway/stack/tun/tuntest"
)

// TestPath has the rules of endpoints, policies and refusals as packets through the node's own data path, from what Kubernetes says to
// where they come out. Pods 2 and 9 are on this node (n1), 3 and 4 behind a peer (n2), and nobody has 77; the client is pod 9, or the
// host where the row says so.
func TestPath(t *testing.T) {
	for _, tt := range []struct {
		name      string
		policy    string // "internal": its traffic policy is Local
		endpoints string // as in TestEndpointRules
		from      string // default pod 9
		to        string // default tcp:80
		want      string // where connections go, all of them, or why they are dropped; "!": the client hears of it
		why       string // is in a step
	}{
		{name: "all ready endpoints", endpoints: "2@n1 ready, 3@n2 ready", want: "2 3", why: whyReady},
		{name: "those that are not ready get nothing", endpoints: "2@n1 unready, 3@n2 ready", want: "3", why: whyReady},
		{name: "those that end get nothing new", endpoints: "2@n1 ending, 3@n2 ready", want: "3", why: whyReady},
		{name: "all end", endpoints: "2@n1 ending, 3@n2 ending, 4@n2 dead", want: "2 3", why: whyTerminating},
		{name: "published though not ready", endpoints: "2@n1 published", want: "2", why: whyReady},
		{name: "none is refused at once", endpoints: "", want: "no-backend!", why: whyNone},
		{name: "none of UDP", endpoints: "", to: "udp:80", want: "no-backend!", why: whyNone},
		{name: "none of SCTP", endpoints: "", to: "sctp:80", want: "no-backend!", why: whyNone},
		{name: "only failed ones", endpoints: "2@n1 dead, 3@n2 unready", want: "no-backend!", why: whyNone},
		{name: "the host is refused, too", endpoints: "", from: "mw0", want: "no-backend!", why: whyNone},
		{name: "Local", policy: "internal", endpoints: "2@n1 ready, 3@n2 ready", want: "2", why: whyLocal},
		{name: "Local, none here: silence", policy: "internal", endpoints: "3@n2 ready", want: "no-local-backend", why: whyNoneLocal},
		{name: "Local, none here, UDP", policy: "internal", endpoints: "3@n2 ready", to: "udp:80", want: "no-local-backend", why: whyNoneLocal},
		{name: "Local, none anywhere: refused", policy: "internal", endpoints: "3@n2 unready", want: "no-backend!", why: whyNoneAnywhere},
		{name: "Local, the one here ends", policy: "internal", endpoints: "2@n1 ending, 3@n2 ready", want: "2", why: whyLocalEnding},
		{name: "Local for the host", policy: "internal", endpoints: "2@n1 ready, 3@n2 ready", from: "mw0", want: "2", why: whyLocal},
		{name: "the same zone", endpoints: "2@n1 ready zone=a, 3@n2 ready zone=b", want: "2", why: whySameZone},
		{name: "the same node", endpoints: "2@n1 ready node=n1, 3@n2 ready node=n2", want: "2", why: whySameNode},
		{name: "a hint is missing", endpoints: "2@n1 ready zone=a, 3@n2 ready", want: "2 3", why: whyReady},
		{name: "in two slices", endpoints: "2@n1 ready | 2@n1 ready, 3@n2 ready", want: "2 3", why: whyReady},
		{name: "the client itself", endpoints: "9@n1 ready", want: "9", why: "becomes 10.244.1.1:"},
		{name: "the client among others", endpoints: "9@n1 ready, 2@n1 ready", want: "2 9", why: whyReady},
		{name: "from the host to a far pod", endpoints: "3@n2 ready", from: "mw0", want: "3", why: "becomes 10.244.1.0:"},
		{name: "UDP", endpoints: "2@n1 ready, 3@n2 ready", to: "udp:80", want: "2 3", why: whyReady},
		{name: "SCTP", endpoints: "2@n1 ready, 3@n2 ready", to: "sctp:80", want: "2 3", why: whyReady},
		{name: "another port", endpoints: "2@n1 ready", to: "tcp:81", want: "service-port!", why: "no such port"},
		{name: "a port of another protocol", endpoints: "2@n1 ready", to: "udp:443", want: "service-port!", why: "no such port"},
		{name: "the endpoint's own pod is no more", endpoints: "77@n1 ready", want: "no-pod!", why: "no pod has it"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newPathNode(t)
			s := serviceOf("10.96.0.20", "http:80", "http-udp:80/udp", "http-sctp:80/sctp", "https:443")
			s.InternalLocal = tt.policy == "internal"
			all := slicesOf(tt.endpoints)
			for _, slice := range all {
				slice.Ports = append(slice.Ports, portOf("http-udp:8080/udp"), portOf("http-sctp:8080/sctp"))
			}
			n.SetServices(service.New([]netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}).With(map[string]*service.Service{"default/web": Compile(s, all, here)}))
			got, trace := n.reaches(t, tt.from, tt.to)
			if got != tt.want || !strings.Contains(trace, tt.why) {
				t.Errorf("got %s\nwant %s, because of %q in:\n%s", got, tt.want, tt.why, trace)
			}
		})
	}
}

// An object's change is followed by the next connection, and by the next datagram of a client whose backend has gone.
func TestPathFollows(t *testing.T) {
	n := newPathNode(t)
	table := service.New([]netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")})
	s := serviceOf("10.96.0.20", "http:80", "http-udp:80/udp")
	for i, step := range []struct{ endpoints, tcp, udp string }{
		{"2@n1 ready", "2", "2"},
		{"2@n1 unready, 3@n2 ready", "3", "3"},
		{"2@n1 ready, 3@n2 ending", "2", "3"}, // the flow of UDP drains, as one of TCP would
		{"2@n1 ready, 3@n2 dead", "2", "2"},
		{"", "no-backend!", "no-backend!"},
		{"4@n2 ready", "4", "4"},
	} {
		all := slicesOf(step.endpoints)
		for _, slice := range all {
			slice.Ports = append(slice.Ports, portOf("http-udp:8080/udp"))
		}
		table = table.With(map[string]*service.Service{"default/web": Compile(s, all, here)})
		n.SetServices(table)
		if got, trace := n.reaches(t, "", "tcp:80"); got != step.tcp {
			t.Errorf("step %d: a connection goes to %s, want %s:\n%s", i, got, step.tcp, trace)
		}
		udp, err := n.Trace(stack.Probe{From: "pod-9", Dst: netip.MustParseAddr("10.96.0.20"), Proto: packet.UDP, SrcPort: 4000, DstPort: 80, Enter: true})
		if got := arrived(&udp); err != nil || got != step.udp {
			t.Errorf("step %d: a datagram from the same port goes to %s, want %s: %v", i, got, step.udp, err)
		}
	}
}

// Frontends for clients outside, as pods of this node and of a peer, and the host, find them. The Service has node port 30080 and the address
// 203.0.113.99 for port 80; the node's own address is 192.168.254.11.
func TestPathOutside(t *testing.T) {
	for _, tt := range []struct {
		name      string
		local     bool   // its external traffic policy is Local
		endpoints string // as in TestEndpointRules
		from      string // as in TestPath; "peer": the pod 3 behind a peer
		to        string
		want      string // as in TestPath
		why       string // is in a step
	}{
		{name: "a pod at its node's port", endpoints: "2@n1 ready, 4@n2 ready", to: "tcp:192.168.254.11:30080", want: "2 4", why: whyReady},
		{name: "over UDP", endpoints: "2@n1 ready", to: "udp:192.168.254.11:30080", want: "2", why: whyReady},
		{name: "a pod at its own", endpoints: "9@n1 ready", to: "tcp:192.168.254.11:30080", want: "9", why: "becomes 10.244.1.1:"},
		{name: "a pod keeps its address", endpoints: "2@n1 ready", to: "tcp:192.168.254.11:30080", want: "2", why: "becomes 10.244.1.9:"},
		{name: "an external address", endpoints: "2@n1 ready, 4@n2 ready", to: "tcp:203.0.113.99:80", want: "2 4", why: whyReady},
		{name: "none", endpoints: "4@n2 unready", to: "tcp:192.168.254.11:30080", want: "no-backend!", why: whyNone},
		{name: "none at an external address", endpoints: "", to: "udp:203.0.113.99:80", want: "no-backend!", why: whyNone},
		{name: "Local is not about pods of the node", local: true, endpoints: "2@n1 ready, 4@n2 ready", to: "tcp:192.168.254.11:30080", want: "2 4", why: whyReady},
		{name: "nor where none is here", local: true, endpoints: "4@n2 ready", to: "tcp:203.0.113.99:80", want: "4", why: whyReady},
		{name: "nor about the host", local: true, endpoints: "4@n2 ready", from: "mw0", to: "tcp:203.0.113.99:80", want: "4", why: whyReady},
		{name: "a peer's pod", endpoints: "2@n1 ready, 4@n2 ready", from: "peer", to: "tcp:192.168.254.11:30080", want: "2 4", why: "becomes 10.244.1.1:"},
		{name: "Local, a peer's pod", local: true, endpoints: "2@n1 ready, 4@n2 ready", from: "peer", to: "tcp:192.168.254.11:30080", want: "2", why: whyLocal},
		{name: "Local, a peer's pod, none here: silence", local: true, endpoints: "4@n2 ready", from: "peer", to: "tcp:192.168.254.11:30080", want: "no-local-backend", why: whyNoneLocal},
		{name: "another port of the node is the host's", endpoints: "2@n1 ready", to: "tcp:192.168.254.11:30081", want: "192.168.254.11", why: "device of host"},
		{name: "another port of an external address is nobody's", endpoints: "2@n1 ready", to: "tcp:203.0.113.99:81", want: "no-route!"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newPathNode(t)
			self := []netip.Addr{netip.MustParseAddr("192.168.254.11")}
			if err := n.SetHostAddrs(self); err != nil {
				t.Fatal(err)
			}
			n.SetFrontAddrs(self)
			s := withExternalIPs(withNodePorts(serviceOf("10.96.0.20", "http:80", "http-udp:80/udp"), 30080, 30080), "203.0.113.99")
			s.ExternalLocal = tt.local
			all := slicesOf(tt.endpoints)
			for _, slice := range all {
				slice.Ports = append(slice.Ports, portOf("http-udp:8080/udp"))
			}
			n.SetServices(service.New([]netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}).With(map[string]*service.Service{"default/web": Compile(s, all, here)}))
			got, trace := n.reaches(t, tt.from, tt.to)
			if got != tt.want || !strings.Contains(trace, tt.why) {
				t.Errorf("got %s\nwant %s, because of %q in:\n%s", got, tt.want, tt.why, trace)
			}
		})
	}
}

// pathNode is a data path without workers: node n1 of TestPath.
type pathNode struct{ *stack.Stack }

func newPathNode(t *testing.T) pathNode {
	t.Helper()
	s, err := stack.New(stack.Config{
		Workers: 1, Ports: []stack.Port{farPort{}, farPort{}}, MTU: 1450,
		NodeAddrs: []netip.Addr{netip.MustParseAddr("10.244.1.1")}, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	for name, addr := range map[string]string{"pod-2": "10.244.1.2", "pod-9": "10.244.1.9", "mw0": "10.244.1.0"} {
		d, err := tuntest.New(1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Attach(stack.Attachment{
			Name: name, Host: name == "mw0", Addrs: []netip.Addr{netip.MustParseAddr(addr)}, Queues: []stack.Queue{d.Queues()[0]}, Device: d,
		}); err != nil {
			t.Fatal(err)
		}
	}
	var routes []fib.Route
	for _, pod := range []string{"10.244.1.3/32", "10.244.1.4/32"} {
		routes = append(routes, fib.Route{Prefix: netip.MustParsePrefix(pod), Destination: fib.Destination{Kind: fib.Peer, Peer: netip.MustParseAddr("192.168.254.12")}})
	}
	if err := s.SetRoutes(routes); err != nil {
		t.Fatal(err)
	}
	return pathNode{s}
}

// reaches opens a hundred connections and says where they go, and what a trace of the last one says.
func (n pathNode) reaches(t *testing.T, from, to string) (where, trace string) {
	t.Helper()
	if from == "" {
		from = "pod-9"
	}
	if to == "" {
		to = "tcp:80"
	}
	probe := stack.Probe{From: from, Dst: netip.MustParseAddr("10.96.0.20")}
	if from == "peer" {
		probe.From, probe.Src = "", netip.MustParseAddr("10.244.1.3")
	}
	name, port, _ := strings.Cut(to, ":")
	if addr, number, ok := strings.Cut(port, ":"); ok {
		probe.Dst, port = netip.MustParseAddr(addr), number
	}
	probe.Proto = map[string]packet.Proto{"tcp": packet.TCP, "udp": packet.UDP, "sctp": packet.SCTP}[name]
	if _, err := fmt.Sscan(port, &probe.DstPort); err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for i := range 100 {
		probe.SrcPort = uint16(20000 + i)
		tr, err := n.Trace(probe)
		if err != nil {
			t.Fatal(err)
		}
		all[arrived(&tr)] = true
		trace = ""
		for _, s := range tr.Steps {
			trace += fmt.Sprintf("%s: %s (%s)\n", s.Stage, s.Text, s.Why)
		}
	}
	return strings.Join(slices.Sorted(maps.Keys(all)), " "), trace
}

// arrived says at which pod a packet comes out, by the last byte of its address, or why it is dropped.
func arrived(tr *stack.Trace) string {
	if tr.LeavesAs != nil {
		dst := tr.LeavesAs.Dst.Addr()
		if pods := netip.MustParsePrefix("10.244.1.0/24"); !pods.Contains(dst) {
			return dst.String()
		}
		return fmt.Sprint(dst.As4()[3])
	}
	if len(tr.Answers) > 0 {
		return tr.Reason + "!"
	}
	return tr.Reason
}

// farPort is the tunnel of a node that only traces.
type farPort struct{}

func (farPort) FD() int                                                                 { return -1 }
func (farPort) Receive(func([]byte, *packet.Parsed, packet.Offload)) int                { return 0 }
func (farPort) Send(b *packet.Buffer, _ *packet.Parsed, _ packet.Offload, _ netip.Addr) { b.Release() }
func (farPort) Flush()                                                                  {}
func (farPort) MTU(netip.Addr) int                                                      { return 1450 }
func (farPort) Describe(peer netip.Addr) string                                         { return "to " + peer.String() }
func (farPort) Drops() *packet.Drops                                                    { return new(packet.Drops) }
func (farPort) Tap(tap.Writers)                                                         {}

var _ stack.Port = farPort{}

// TestPathAffinity: a client with affinity goes where it went last, from whatever port.
func TestPathAffinity(t *testing.T) {
	n := newPathNode(t)
	s := serviceOf("10.96.0.20", "http:80")
	s.Affinity = time.Hour
	all := slicesOf("2@n1 ready, 3@n2 ready, 4@n2 ready, 9@n1 ready")
	n.SetServices(service.New(nil).With(map[string]*service.Service{"default/web": Compile(s, all, here)}))
	open := func(port uint16) string {
		tr, err := n.Trace(stack.Probe{From: "pod-9", Dst: netip.MustParseAddr("10.96.0.20"), SrcPort: port, DstPort: 80, Enter: true})
		if err != nil {
			t.Fatal(err)
		}
		return arrived(&tr)
	}
	first := open(2000)
	for i := range 30 {
		if got := open(uint16(2001 + i)); got != first {
			t.Fatalf("connection %d goes to %s, the first went to %s", i, got, first)
		}
	}
}
