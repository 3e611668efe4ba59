package services

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/middleway-net/middleway/k8s/object"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/service"
)

// here is the node of all tables.
var here = Node{Name: "n1", Zone: "a"}

// TestEndpointRules has the cases of kube-proxy's tests of topology, of its cache of slices and of its clean-up of conntrack
// (kubernetes v1.37, pkg/proxy: topology_test.go, endpointslicecache_test.go, conntrack/cleanup_test.go), and those that the
// KEPs name. An endpoint reads "address@node state hints"; see endpointOf.
func TestEndpointRules(t *testing.T) {
	tests := []struct {
		name      string
		policy    string // "internal", "external": which traffic policies are Local
		endpoints string // of one slice; "|" begins another
		internal  string // backends, those of this node with a star, or the reason of the drop
		external  string // "" as internal
		serving   string // "" as internal
		inside    string // what clients on this node have at the frontends for those from outside; "" as internal
		why       string // of internal
	}{
		// What counts as usable (KEP-1669).
		{name: "ready", endpoints: "2@n1 ready, 3@n2 ready", internal: "2* 3", why: whyReady},
		{name: "none at all", endpoints: "", internal: "no-backend", serving: "-", why: whyNone},
		{name: "one is not ready", endpoints: "2@n1 ready, 3@n2 unready", internal: "2*", why: whyReady},
		{name: "none is ready", endpoints: "2@n1 unready, 3@n2 unready", internal: "no-backend", serving: "-", why: whyNone},
		{name: "terminating beside ready ones", endpoints: "2@n1 ending, 3@n2 ready", internal: "3", serving: "2* 3", why: whyReady},
		{name: "all terminate", endpoints: "2@n1 ending, 3@n2 ending", internal: "2* 3", why: whyTerminating},
		{name: "all terminate, one has failed", endpoints: "2@n1 ending, 3@n2 dead", internal: "2*", why: whyTerminating},
		{name: "the last one has failed while it ends", endpoints: "2@n1 dead", internal: "no-backend", serving: "-", why: whyNone},
		{name: "terminating beside unready ones", endpoints: "2@n1 ending, 3@n2 unready", internal: "2*", why: whyTerminating},
		{name: "published though not ready", endpoints: "2@n1 published, 3@n2 ready", internal: "2* 3", serving: "3", why: whyReady},
		{name: "published though it ends", endpoints: "2@n1 published-ending, 3@n2 ending", internal: "2*", serving: "3", why: whyReady},
		{name: "serving alone is not ready", endpoints: "2@n1 serving", internal: "no-backend", serving: "2*", why: whyNone},
		{name: "on no node", endpoints: "2@ ready", internal: "2", why: whyReady},

		// Traffic policies.
		{name: "internal Local", policy: "internal", endpoints: "2@n1 ready, 3@n2 ready", internal: "2*", external: "2* 3", serving: "2* 3", inside: "2* 3", why: whyLocal},
		{name: "external Local", policy: "external", endpoints: "2@n1 ready, 3@n2 ready", internal: "2* 3", external: "2*", why: whyReady},
		{name: "both Local", policy: "internal external", endpoints: "2@n1 ready, 3@n2 ready", internal: "2*", serving: "2* 3", inside: "2* 3", why: whyLocal},
		{name: "both Local, none here", policy: "internal external", endpoints: "2@n3 ready, 3@n2 ready", internal: "no-local-backend", serving: "2 3", inside: "2 3", why: whyNoneLocal},
		{name: "internal Local, none here", policy: "internal", endpoints: "2@n3 ready, 3@n2 ready", internal: "no-local-backend", external: "2 3", serving: "2 3", inside: "2 3", why: whyNoneLocal},
		{name: "Local, none anywhere", policy: "internal external", endpoints: "", internal: "no-backend", serving: "-", why: whyNoneAnywhere},
		{name: "Local, those elsewhere terminate", policy: "internal external", endpoints: "2@n2 ending", internal: "no-local-backend", serving: "2", inside: "2", why: whyNoneLocal},
		{name: "Local, those elsewhere are unusable", policy: "internal external", endpoints: "2@n2 unready, 3@n2 dead", internal: "no-backend", serving: "-", why: whyNoneAnywhere},
		{name: "Local, the one here terminates", policy: "internal external", endpoints: "2@n1 ending, 3@n2 ready", internal: "2*", serving: "2* 3", inside: "3", why: whyLocalEnding},
		{name: "internal Local falls back by itself", policy: "internal", endpoints: "2@n1 ending, 3@n2 ready", internal: "2*", external: "3", serving: "2* 3", inside: "3", why: whyLocalEnding},
		{name: "external Local falls back by itself", policy: "external", endpoints: "2@n1 ending, 3@n2 ready", internal: "3", external: "2*", serving: "2* 3", why: whyReady},
		{name: "Local, one ready and one terminating here", policy: "internal external", endpoints: "2@n1 ready, 3@n1 ending", internal: "2*", serving: "2* 3*", why: whyLocal},
		{name: "Local, the one here has failed", policy: "internal external", endpoints: "2@n1 dead, 3@n2 ready", internal: "no-local-backend", serving: "3", inside: "3", why: whyNoneLocal},
		{name: "Local, the one here is not ready", policy: "internal external", endpoints: "2@n1 unready, 3@n2 ready", internal: "no-local-backend", serving: "3", inside: "3", why: whyNoneLocal},
		{name: "Local, on no node is not here", policy: "internal external", endpoints: "2@ ready", internal: "no-local-backend", serving: "2", inside: "2", why: whyNoneLocal},
		{name: "Local looks at no hints", policy: "internal", endpoints: "2@n1 ready zone=b, 3@n2 ready zone=a", internal: "2*", external: "3", serving: "2* 3", inside: "3", why: whyLocal},

		// Hints (KEP-2433, KEP-3015, KEP-4444).
		{name: "zones", endpoints: "2@n1 ready zone=a, 3@n2 ready zone=b", internal: "2*", serving: "2* 3", why: whySameZone},
		{name: "several zones", endpoints: "2@n2 ready zone=b zone=a, 3@n2 ready zone=b, 4@n2 ready zone=a", internal: "2 4", serving: "2 3 4", why: whySameZone},
		{name: "zones, one endpoint has none", endpoints: "2@n1 ready zone=a, 3@n2 ready, 4@n2 ready zone=b", internal: "2* 3 4", why: whyReady},
		{name: "zones, and external Local", policy: "external", endpoints: "2@n1 ready zone=a, 3@n1 ready zone=b, 4@n2 ready zone=a, 5@n2 ready zone=b", internal: "2* 4", external: "2* 3*", serving: "2* 3* 4 5", why: whySameZone},
		{name: "zones, none is this one", endpoints: "2@n2 ready zone=b, 3@n2 ready zone=c", internal: "2 3", why: whyReady},
		{name: "zones, one without hint is not ready", endpoints: "2@n1 ready zone=a, 3@n2 unready, 4@n2 ready zone=b", internal: "2*", serving: "2* 4", why: whySameZone},
		{name: "zones, the one for this zone is not ready", endpoints: "2@n1 unready zone=a, 3@n2 ready zone=b", internal: "3", why: whyReady},
		{name: "zones, one terminates without hint", endpoints: "2@n1 ready zone=a, 3@n2 ending, 4@n2 ready zone=b", internal: "2*", serving: "2* 3 4", why: whySameZone},
		{name: "zones, all terminate", endpoints: "2@n1 ending zone=a, 3@n2 ending zone=b", internal: "2* 3", why: whyTerminating},
		{name: "nodes", endpoints: "2@n1 ready node=n1, 3@n2 ready node=n2", internal: "2*", serving: "2* 3", why: whySameNode},
		{name: "nodes, hinted from elsewhere", endpoints: "2@n1 ready node=n2, 3@n2 ready node=n1", internal: "3", serving: "2* 3", why: whySameNode},
		{name: "nodes, one endpoint has none", endpoints: "2@n1 ready node=n1, 3@n2 ready", internal: "2* 3", why: whyReady},
		{name: "nodes, none is this one", endpoints: "2@n3 ready node=n3, 3@n2 ready node=n2", internal: "2 3", why: whyReady},
		{name: "nodes before zones", endpoints: "2@n1 ready node=n1 zone=a, 3@n3 ready node=n3 zone=a, 4@n2 ready node=n2 zone=b", internal: "2*", serving: "2* 3 4", why: whySameNode},
		{name: "zones where no node is this one", endpoints: "2@n3 ready node=n3 zone=a, 3@n2 ready node=n2 zone=b", internal: "2", serving: "2 3", why: whySameZone},
		{name: "zones where one has no node", endpoints: "2@n1 ready node=n1 zone=a, 3@n3 ready zone=a, 4@n2 ready node=n2 zone=b", internal: "2* 3", serving: "2* 3 4", why: whySameZone},
		{name: "nodes where one has no zone", endpoints: "2@n1 ready node=n1, 3@n2 ready node=n2 zone=b", internal: "2*", serving: "2* 3", why: whySameNode},
		{name: "hinted and published", endpoints: "2@n1 published zone=a, 3@n2 ready zone=b", internal: "2*", serving: "3", why: whySameZone},

		// Slices.
		{name: "two slices", endpoints: "2@n1 ready | 3@n2 ready", internal: "2* 3", why: whyReady},
		{name: "the same in two slices", endpoints: "2@n1 ready | 2@n1 ready", internal: "2*", why: whyReady},
		{name: "moved between slices", endpoints: "2@n1 ready, 3@n2 ready | 3@n2 ready, 4@n2 ready", internal: "2* 3 4", why: whyReady},
		{name: "a new pod has the address of one that ends", endpoints: "2@n2 ending | 2@n1 ready", internal: "2*", why: whyReady},
		{name: "the one that ends comes later", endpoints: "2@n1 ready | 2@n2 dead", internal: "2*", why: whyReady},
		{name: "a new pod that is not ready has the address of one that ends", endpoints: "2@n2 ending | 2@n1 unready", internal: "no-backend", serving: "-", why: whyNone},
		{name: "twice in one slice", endpoints: "2@n1 ready, 2@n1 ready", internal: "2*", why: whyReady},
		{name: "another family", endpoints: "fd00:10:244:1::2@n1 ready, 2@n1 ready", internal: "2*", why: whyReady},
		{name: "a slice without endpoints", endpoints: "2@n1 ready |", internal: "2*", why: whyReady},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := serviceOf("10.96.0.20", "http:80")
			s.InternalLocal, s.ExternalLocal = strings.Contains(tt.policy, "internal"), strings.Contains(tt.policy, "external")
			got := Compile(s, slicesOf(tt.endpoints), here).Frontends[frontend("10.96.0.20", packet.TCP, 80)]
			external, serving, inside := cmp.Or(tt.external, tt.internal), cmp.Or(tt.serving, tt.internal), cmp.Or(tt.inside, tt.internal)
			want := fmt.Sprintf("internal %s (%s)\nexternal %s\nserving %s\ninside %s", tt.internal, tt.why, external, serving, inside)
			have := fmt.Sprintf("internal %s (%s)\nexternal %s\nserving %s\ninside %s",
				choiceText(got.Internal), got.Internal.Why, choiceText(got.External), backendsText(got.Serving), choiceText(got.Inside))
			if diff := gocmp.Diff(want, have); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tt.endpoints, diff)
			}
		})
	}
}

// On a node without a zone, or without a name, no hint names it, and nothing is local.
func TestNodeWithoutZone(t *testing.T) {
	tests := []struct {
		name, endpoints string
		on              Node
		want, why       string
	}{
		{"no zone", "2@n1 ready zone=a, 3@n2 ready zone=b", Node{Name: "n1"}, "2* 3", whyReady},
		{"no zone, but a name", "2@n1 ready zone=a node=n1, 3@n2 ready zone=b node=n2", Node{Name: "n1"}, "2*", whySameNode},
		{"no name", "2@ ready, 3@n2 ready", Node{}, "2 3", whyReady},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := Compile(serviceOf("10.96.0.20", "http:80"), slicesOf(tt.endpoints), tt.on).Frontends[frontend("10.96.0.20", packet.TCP, 80)]
			if got := choiceText(p.Internal); got != tt.want || p.Internal.Why != tt.why {
				t.Errorf("got %s (%s), want %s (%s)", got, p.Internal.Why, tt.want, tt.why)
			}
		})
	}
}

// TestFrontends has what Services lead to which ports.
func TestFrontends(t *testing.T) {
	both := []*object.EndpointSlice{
		withPorts(slicesOf("2@n1 ready, fd00:10:244:1::2@n1 ready")[0], "http:8080", "metrics:9100", "dns:5353/udp", "dns-tcp:5353", "m3ua:2905/sctp"),
	}
	tests := []struct {
		name    string
		service *object.Service
		slices  []*object.EndpointSlice
		want    string // "frontend → name backends", in order, those for clients from outside behind a ";"; "-" for no Service
	}{
		{"one port", serviceOf("10.96.0.20", "http:80"), both, "tcp 10.96.0.20:80 → default/web:http 2:8080*"},
		{"all protocols, by name", serviceOf("10.96.0.20", "dns:53/udp", "dns-tcp:53", "m3ua:2905/sctp"), both,
			"sctp 10.96.0.20:2905 → default/web:m3ua 2:2905*, tcp 10.96.0.20:53 → default/web:dns-tcp 2:5353*, udp 10.96.0.20:53 → default/web:dns 2:5353*"},
		{"both families", serviceOf("10.96.0.20 fd00:10:96::20", "http:80"), both,
			"tcp 10.96.0.20:80 → default/web:http 2:8080*, tcp [fd00:10:96::20]:80 → default/web:http fd00:10:244:1::2:8080*"},
		{"a name that slices do not have", serviceOf("10.96.0.20", "admin:80"), both, "tcp 10.96.0.20:80 → default/web:admin no-backend"},
		{"a name of another protocol", serviceOf("10.96.0.20", "dns:53"), both, "tcp 10.96.0.20:53 → default/web:dns no-backend"},
		{"one port without name", serviceOf("10.96.0.20", ":80"), []*object.EndpointSlice{withPorts(slicesOf("2@n1 ready")[0], ":8080")},
			"tcp 10.96.0.20:80 → default/web 2:8080*"},
		{"another number in each slice", serviceOf("10.96.0.20", "http:80"), []*object.EndpointSlice{
			withPorts(slicesOf("2@n1 ready")[0], "http:8080"), withPorts(slicesOf("3@n2 ready")[0], "http:80"), withPorts(slicesOf("2@n1 ready")[0], "http:81"),
		}, "tcp 10.96.0.20:80 → default/web:http 2:81* 2:8080* 3:80"},
		{"no ports in the slice", serviceOf("10.96.0.20", "http:80"), []*object.EndpointSlice{withPorts(slicesOf("2@n1 ready")[0])}, "tcp 10.96.0.20:80 → default/web:http no-backend"},
		{"no slices", serviceOf("10.96.0.20", "http:80"), nil, "tcp 10.96.0.20:80 → default/web:http no-backend"},
		{"no ports", serviceOf("10.96.0.20"), both, ""},
		{"a slice of another proxy", serviceOf("10.96.0.20", "http:80"), []*object.EndpointSlice{{NotProxied: true, Ports: both[0].Ports, Endpoints: both[0].Endpoints}},
			"tcp 10.96.0.20:80 → default/web:http no-backend"},
		{"a Service of another proxy", notProxied(serviceOf("10.96.0.20", "http:80")), both, "-"},
		{"headless", &object.Service{Headless: true, Ports: []object.ServicePort{{Port: 80, Protocol: object.TCP}}}, both, "-"},
		{"ExternalName", &object.Service{ExternalName: "example.com"}, both, "-"},
		{"no address yet", serviceOf("", "http:80"), both, "-"},
		{"no Service", nil, both, "-"},

		{"a node port", withNodePorts(serviceOf("10.96.0.20", "http:80", "metrics:9100"), 30080), both,
			"tcp 10.96.0.20:80 → default/web:http 2:8080*, tcp 10.96.0.20:9100 → default/web:metrics 2:9100*; tcp 0.0.0.0:30080 → default/web:http 2:8080*"},
		{"node ports of both families and two protocols", withNodePorts(serviceOf("10.96.0.20 fd00:10:96::20", "dns:53/udp", "dns-tcp:53"), 30053, 30053), both,
			"tcp 10.96.0.20:53 → default/web:dns-tcp 2:5353*, tcp [fd00:10:96::20]:53 → default/web:dns-tcp fd00:10:244:1::2:5353*, " +
				"udp 10.96.0.20:53 → default/web:dns 2:5353*, udp [fd00:10:96::20]:53 → default/web:dns fd00:10:244:1::2:5353*; " +
				"tcp 0.0.0.0:30053 → default/web:dns-tcp 2:5353*, tcp [::]:30053 → default/web:dns-tcp fd00:10:244:1::2:5353*, " +
				"udp 0.0.0.0:30053 → default/web:dns 2:5353*, udp [::]:30053 → default/web:dns fd00:10:244:1::2:5353*"},
		{"external addresses, of a family that the Service has", withExternalIPs(serviceOf("10.96.0.20", "http:80", "m3ua:2905/sctp"), "203.0.113.99", "2001:db8::99", "203.0.113.98"), both,
			"sctp 10.96.0.20:2905 → default/web:m3ua 2:2905*, tcp 10.96.0.20:80 → default/web:http 2:8080*; " +
				"sctp 203.0.113.98:2905 → default/web:m3ua 2:2905*, sctp 203.0.113.99:2905 → default/web:m3ua 2:2905*, " +
				"tcp 203.0.113.98:80 → default/web:http 2:8080*, tcp 203.0.113.99:80 → default/web:http 2:8080*"},
		{"external addresses, headless", withExternalIPs(&object.Service{Headless: true, Ports: []object.ServicePort{{Port: 80, Protocol: object.TCP}}}, "203.0.113.99"), both, "-"},
		{"a node port of another proxy's Service", notProxied(withNodePorts(serviceOf("10.96.0.20", "http:80"), 30080)), both, "-"},
		{"a node port without endpoints", withNodePorts(serviceOf("10.96.0.20", "http:80"), 30080), nil,
			"tcp 10.96.0.20:80 → default/web:http no-backend; tcp 0.0.0.0:30080 → default/web:http no-backend"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := gocmp.Diff(tt.want, serviceText(Compile(tt.service, tt.slices, here))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestPortFields(t *testing.T) {
	s := serviceOf("10.96.0.20 fd00:10:96::20", "http:80")
	s.Affinity, s.Scheduler = time.Hour, "maglev"
	out := Compile(s, slicesOf("2@n1 ready, fd00:10:244:1::2@n1 ready"), here)
	for f, p := range out.Frontends {
		if p.Affinity != time.Hour || p.Scheduler != service.Maglev || p.ID != service.PortID("default", "web", "http", packet.TCP) {
			t.Errorf("%v: affinity %v, scheduler %v, ID %x", f, p.Affinity, p.Scheduler, p.ID)
		}
	}
}

// Most ports have one list of backends: it is there once.
func TestSharedBackends(t *testing.T) {
	tests := []struct {
		name, endpoints string
		want            int // lists
	}{
		{"all ready", "2@n1 ready, 3@n2 ready", 1},
		{"all terminating", "2@n1 ending, 3@n2 ending", 1},
		{"one terminating", "2@n1 ready, 3@n2 ending", 2},
		{"hinted", "2@n1 ready zone=a, 3@n2 ready zone=b", 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := Compile(serviceOf("10.96.0.20", "http:80"), slicesOf(tt.endpoints), here).Frontends[frontend("10.96.0.20", packet.TCP, 80)]
			lists := map[*service.Backend]bool{}
			for _, l := range [][]service.Backend{p.Serving, p.Internal.Backends, p.External.Backends} {
				lists[&l[0]] = true
				if cap(l) != len(l) {
					t.Errorf("room for %d more backends", cap(l)-len(l))
				}
			}
			if len(lists) != tt.want {
				t.Errorf("%d lists, want %d", len(lists), tt.want)
			}
		})
	}
}

// serviceOf returns a Service default/web. A port reads "name:number/protocol"; TCP needs not be said.
func serviceOf(ips string, ports ...string) *object.Service {
	s := &object.Service{Key: object.Key{Namespace: "default", Name: "web"}}
	for _, ip := range strings.Fields(ips) {
		s.ClusterIPs = append(s.ClusterIPs, netip.MustParseAddr(ip))
	}
	for _, p := range ports {
		e := portOf(p)
		s.Ports = append(s.Ports, object.ServicePort{Name: e.Name, Protocol: e.Protocol, Port: e.Port})
	}
	return s
}

func portOf(text string) object.EndpointPort {
	text, proto, _ := strings.Cut(text, "/")
	name, number, _ := strings.Cut(text, ":")
	p := object.EndpointPort{Name: name, Protocol: map[string]object.Protocol{"": object.TCP, "udp": object.UDP, "sctp": object.SCTP}[proto]}
	if _, err := fmt.Sscan(number, &p.Port); err != nil {
		panic(err)
	}
	return p
}

// withNodePorts gives the ports of a Service these node ports, in order; ports beyond them have none.
func withNodePorts(s *object.Service, nodePorts ...uint16) *object.Service {
	for i, n := range nodePorts {
		s.Ports[i].NodePort = n
	}
	return s
}

func withExternalIPs(s *object.Service, ips ...string) *object.Service {
	for _, ip := range ips {
		s.ExternalIPs = append(s.ExternalIPs, netip.MustParseAddr(ip))
	}
	return s
}

func notProxied(s *object.Service) *object.Service {
	s.NotProxied = true
	return s
}

func withPorts(s *object.EndpointSlice, ports ...string) *object.EndpointSlice {
	s.Ports = nil
	for _, p := range ports {
		s.Ports = append(s.Ports, portOf(p))
	}
	return s
}

// slicesOf returns slices with a port http of 8080.
func slicesOf(text string) (all []*object.EndpointSlice) {
	for i, part := range strings.Split(text, "|") {
		s := &object.EndpointSlice{Key: object.Key{Namespace: "default", Name: fmt.Sprint("web-", i)}, Service: "web"}
		for _, e := range strings.Split(part, ",") {
			if e := strings.TrimSpace(e); e != "" {
				s.Endpoints = append(s.Endpoints, endpointOf(e))
			}
		}
		all = append(all, withPorts(s, "http:8080"))
	}
	return all
}

// endpointOf reads "2@n1 ready zone=a node=n1", where 2 stands for 10.244.1.2.
func endpointOf(text string) object.Endpoint {
	words := strings.Fields(text)
	addr, node, _ := strings.Cut(words[0], "@")
	if !strings.Contains(addr, ":") {
		addr = "10.244.1." + addr
	}
	e := object.Endpoint{Addr: netip.MustParseAddr(addr), Node: node}
	switch words[1] {
	case "ready":
		e.Ready, e.Serving = true, true
	case "ending": // asked to end, and serves on
		e.Serving, e.Terminating = true, true
	case "dead": // asked to end, and its readiness has failed
		e.Terminating = true
	case "published": // publishNotReadyAddresses
		e.Ready = true
	case "published-ending":
		e.Ready, e.Terminating = true, true
	case "serving":
		e.Serving = true
	case "unready":
	default:
		panic(words[1])
	}
	if len(words) > 2 {
		e.Hints = &object.Hints{}
	}
	for _, hint := range words[2:] {
		if zone, ok := strings.CutPrefix(hint, "zone="); ok {
			e.Hints.Zones = append(e.Hints.Zones, zone)
		} else {
			e.Hints.Nodes = append(e.Hints.Nodes, strings.TrimPrefix(hint, "node="))
		}
	}
	return e
}

func frontend(ip string, proto packet.Proto, port uint16) service.Frontend {
	return service.Frontend{Addr: netip.MustParseAddr(ip), Proto: proto, Port: port}
}

func choiceText(c service.Choice) string {
	if len(c.Backends) == 0 {
		return c.None.String()
	}
	return backendsText(c.Backends)
}

func backendsText(all []service.Backend) string {
	var list []string
	for _, b := range all {
		text := strings.TrimPrefix(b.AddrPort().Addr().String(), "10.244.1.")
		if b.Port != 8080 {
			text += fmt.Sprintf(":%d", b.Port)
		}
		if b.Local {
			text += "*"
		}
		list = append(list, text)
	}
	return cmp.Or(strings.Join(list, " "), "-")
}

func serviceText(s *service.Service) string {
	if s == nil {
		return "-"
	}
	text := frontendsText(s.Frontends)
	if len(s.External) > 0 {
		text += "; " + frontendsText(s.External)
	}
	return text
}

func frontendsText(frontends map[service.Frontend]*service.Port) string {
	var list []string
	for f, p := range frontends {
		text := fmt.Sprintf("%v %v → %s", f.Proto, netip.AddrPortFrom(f.Addr, f.Port), p.Name)
		if len(p.Internal.Backends) == 0 {
			text += " " + p.Internal.None.String()
		}
		for _, b := range p.Internal.Backends {
			text += fmt.Sprintf(" %s:%d", strings.TrimPrefix(b.AddrPort().Addr().String(), "10.244.1."), b.Port)
			if b.Local {
				text += "*"
			}
		}
		list = append(list, text)
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}
