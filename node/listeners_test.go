package node

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/middleway-net/middleway/k8s/informers"
	"github.com/middleway-net/middleway/k8s/object"
	"github.com/middleway-net/middleway/k8s/services"
	"github.com/middleway-net/middleway/proxy"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/service"
)

func addrsOf(text string) (addrs []netip.Addr) {
	for _, a := range strings.Fields(text) {
		addrs = append(addrs, netip.MustParseAddr(a))
	}
	return addrs
}

// externalOf reads "tcp 0.0.0.0:30080 anywhere", where a backend is by its last word: here (for all), inside (policy Local, and none on
// this node), nowhere.
func externalOf(text string) (service.Frontend, *service.Port) {
	fields := strings.Fields(text)
	at := netip.MustParseAddrPort(fields[1])
	proto := map[string]packet.Proto{"tcp": packet.TCP, "udp": packet.UDP, "sctp": packet.SCTP}[fields[0]]
	some := service.Choice{Backends: []service.Backend{{Addr: packet.KeyOf(netip.MustParseAddr("10.244.1.2")), Port: 80}}}
	p := &service.Port{Inside: some, External: some}
	switch fields[2] {
	case "inside":
		p.External = service.Choice{None: packet.DropNoLocalBackend}
	case "nowhere":
		p.External = service.Choice{None: packet.DropNoBackend}
		p.Inside = p.External
	}
	return service.Frontend{Addr: at.Addr(), Proto: proto, Port: at.Port()}, p
}

func TestListeners(t *testing.T) {
	const machine = "lo 127.0.0.1/8 ::1/128; eth0 192.168.254.11/24 fd00:254::11/64; eth1 203.0.113.7/24"
	own := []side{{interfaces: interfacesOf(machine), fronts: addrsOf("127.0.0.1 192.168.254.11 ::1 fd00:254::11")}}
	rootless := []side{
		{here: true, interfaces: interfacesOf("lo 127.0.0.1/8 192.168.254.11/32"), fronts: addrsOf("127.0.0.1 192.168.254.11")},
		{interfaces: interfacesOf("lo 127.0.0.1/8; wlan0 203.0.113.7/24"), fronts: addrsOf("127.0.0.1 203.0.113.7")},
	}
	for _, row := range []struct {
		name     string
		sides    []side
		services map[string]string // by name; frontends separated by ", "
		want     []string
	}{
		{"a node port", own, map[string]string{"default/web": "tcp 0.0.0.0:30080 here"},
			[]string{"tcp 127.0.0.1:30080 default/web", "tcp 192.168.254.11:30080 default/web"}},
		{"of IPv6", own, map[string]string{"default/web": "udp [::]:30053 here"},
			[]string{"udp [::1]:30053 default/web", "udp [fd00:254::11]:30053 default/web"}},
		{"policy Local, none here", own, map[string]string{"default/web": "tcp 0.0.0.0:30080 inside"},
			[]string{"tcp 127.0.0.1:30080 default/web", "tcp 192.168.254.11:30080 default/web silent"}},
		{"no backend anywhere", own, map[string]string{"default/web": "tcp 0.0.0.0:30080 nowhere"}, nil},
		{"no socket carries it", own, map[string]string{"default/web": "sctp 0.0.0.0:30080 here"}, nil},
		{"an external address of this node", own, map[string]string{"default/web": "tcp 203.0.113.7:80 here"}, []string{"tcp 203.0.113.7:80 default/web"}},
		{"an external address of nobody here", own, map[string]string{"default/web": "tcp 203.0.113.99:80 here"}, nil},
		{"a host port", own, map[string]string{"hostport/default/web": "udp 127.0.0.1:54323 here"}, []string{"udp 127.0.0.1:54323 hostport/default/web"}},
		{"a host port of an address that is not here is tried, and told", own, map[string]string{"hostport/default/web": "udp 203.0.113.99:80 here"},
			[]string{"udp 203.0.113.99:80 hostport/default/web"}},
		{"one address is more than all", own, map[string]string{"hostport/a/a": "tcp 127.0.0.1:8080 here", "default/web": "tcp 0.0.0.0:8080 here"},
			[]string{"tcp 127.0.0.1:8080 hostport/a/a", "tcp 192.168.254.11:8080 default/web"}},
		{"one address without a backend too", own, map[string]string{"default/a": "tcp 192.168.254.11:8080 nowhere", "default/web": "tcp 0.0.0.0:8080 here"},
			[]string{"tcp 127.0.0.1:8080 default/web"}},
		{"both sides of a rootless node", rootless, map[string]string{"default/web": "tcp 0.0.0.0:30080 here", "hostport/b/b": "udp 203.0.113.7:53 here"},
			[]string{"tcp 127.0.0.1:30080 default/web", "tcp 127.0.0.1:30080 default/web here", "tcp 192.168.254.11:30080 default/web here",
				"tcp 203.0.113.7:30080 default/web", "udp 203.0.113.7:53 hostport/b/b"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			all := map[string]*service.Service{}
			for name, text := range row.services {
				all[name] = &service.Service{External: map[service.Frontend]*service.Port{}}
				for _, one := range strings.Split(text, ", ") {
					f, p := externalOf(one)
					p.Name = name
					all[name].External[f] = p
				}
			}
			var got []string
			for l, who := range listeners(service.New(nil).With(all), row.sides) {
				text := fmt.Sprint(l, " ", who)
				if l.Silent {
					text += " silent"
				}
				if l.Here {
					text += " here"
				}
				got = append(got, text)
			}
			slices.Sort(got)
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("listeners (-want +got):\n%s", diff)
			}
		})
	}
}

// TestOwnListeners: where load balancers ask, on each side, at addresses that the side has.
func TestOwnListeners(t *testing.T) {
	machine := side{
		interfaces: interfacesOf("lo 127.0.0.1/8 ::1/128; eth0 192.168.254.11/24 fd00:254::11/64"), fronts: addrsOf("127.0.0.1 192.168.254.11 ::1 fd00:254::11"),
	}
	withoutIPv6 := side{interfaces: interfacesOf("lo 127.0.0.1/8; eth0 192.168.254.11/24"), fronts: addrsOf("127.0.0.1 192.168.254.11")}
	rootless := []side{
		{here: true, interfaces: interfacesOf("lo 127.0.0.1/8 192.168.254.11/32"), fronts: addrsOf("127.0.0.1 192.168.254.11")},
		{interfaces: interfacesOf("lo 127.0.0.1/8; wlan0 203.0.113.7/24"), fronts: addrsOf("127.0.0.1 203.0.113.7")},
	}
	for _, row := range []struct {
		name         string
		sides        []side
		health, mode string
		checks       string // "0.0.0.0:32000 [::]:32000", all of default/web
		want         []string
	}{
		{"nothing is asked", []side{machine}, "none", "none", "", nil},
		{"by default", []side{machine}, ":10256", "localhost:10249", "",
			[]string{"0.0.0.0:10256 services.healthAddress", "127.0.0.1:10249 services.modeAddress", "[::1]:10249 services.modeAddress", "[::]:10256 services.healthAddress"}},
		{"without IPv6", []side{withoutIPv6}, ":10256", "localhost:10249", "", []string{"0.0.0.0:10256 services.healthAddress", "127.0.0.1:10249 services.modeAddress"}},
		{"at one address", []side{machine}, "192.168.254.11:10256", "none", "", []string{"192.168.254.11:10256 services.healthAddress"}},
		{"about a Service", []side{machine}, "none", "none", "0.0.0.0:32000", []string{"127.0.0.1:32000 default/web", "192.168.254.11:32000 default/web"}},
		{"about one of both families", []side{machine}, "none", "none", "0.0.0.0:32000 [::]:32000",
			[]string{"127.0.0.1:32000 default/web", "192.168.254.11:32000 default/web", "[::1]:32000 default/web", "[fd00:254::11]:32000 default/web"}},
		{"both sides of a rootless node; its own programs ask for the mode", rootless, ":10256", "localhost:10249", "0.0.0.0:32000", []string{
			"0.0.0.0:10256 services.healthAddress", "0.0.0.0:10256 services.healthAddress here", "127.0.0.1:10249 services.modeAddress here",
			"127.0.0.1:32000 default/web", "127.0.0.1:32000 default/web here", "192.168.254.11:32000 default/web here", "203.0.113.7:32000 default/web",
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			var b balancers
			var err error
			if b.health, err = ownAddresses(healthField, row.health); err != nil {
				t.Fatal(err)
			}
			if b.mode, err = ownAddresses(modeField, row.mode); err != nil {
				t.Fatal(err)
			}
			checks := map[netip.AddrPort]services.HealthCheck{}
			for _, at := range strings.Fields(row.checks) {
				a := netip.MustParseAddrPort(at)
				checks[a] = services.HealthCheck{At: a, Service: object.Key{Namespace: "default", Name: "web"}}
			}
			b.checks.Store(&checks)
			var got []string
			for l, who := range b.ownListeners(row.sides) {
				text := fmt.Sprint(l.Addr, " ", who)
				if l.Here {
					text += " here"
				}
				if got = append(got, text); !l.Own || l.Silent || l.Proto != packet.TCP {
					t.Errorf("%v: %+v", text, l)
				}
			}
			slices.Sort(got)
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("listeners (-want +got):\n%s", diff)
			}
		})
	}
}

func TestProblems(t *testing.T) {
	told := map[string]int{}
	p := problems{tell: func(_ proxy.Listener, who string, err error) { told[who+": "+err.Error()]++ }}
	a := proxy.Listener{Addr: netip.MustParseAddrPort("192.168.254.11:30080"), Proto: packet.TCP}
	b := proxy.Listener{Addr: netip.MustParseAddrPort("127.0.0.1:30080"), Proto: packet.TCP}
	p.note(a, "default/web:http", errors.New("in use"))
	p.note(b, "default/web:http", errors.New("in use"))
	here := a
	here.Here = true
	p.note(here, "default/web:http", errors.New("in use"))
	silent := a
	silent.Silent = true
	p.note(silent, "default/web:http", nil) // it may have become silent meanwhile
	want := []ListenerProblem{
		{Listener: "tcp 127.0.0.1:30080", For: "default/web:http", Why: "in use"},
		{Listener: "tcp 192.168.254.11:30080 in the node's own network", For: "default/web:http", Why: "in use"}, // labels of metrics are told apart
	}
	if diff := cmp.Diff(want, p.list()); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]int{"default/web:http: in use": 3}, told); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

func TestProblemEvent(t *testing.T) {
	l := proxy.Listener{Addr: netip.MustParseAddrPort("192.168.254.11:30080"), Proto: packet.TCP}
	for who, want := range map[string]*informers.Event{
		"default/web:http":             {Kind: object.Services, Object: object.Key{Namespace: "default", Name: "web"}},
		"default/web":                  {Kind: object.Services, Object: object.Key{Namespace: "default", Name: "web"}}, // a port without a name
		"hostport/default/web-0:30080": {Kind: object.Pods, Object: object.Key{Namespace: "default", Name: "web-0"}},
		"hostport/4711:30080":          nil, // the runtime told no pod's name
		"":                             nil,
		"services.healthAddress":       {Kind: object.Nodes, Object: object.Key{Name: "node-1"}},
	} {
		got, ok := problemEvent("node-1", l, who, errors.New("address already in use"))
		if ok != (want != nil) {
			t.Errorf("%q: got %+v, %v", who, got, ok)
		}
		if want == nil {
			continue
		}
		want.Warning, want.Reason = true, "PortNotAvailable"
		want.Message = "node node-1 does not serve tcp 192.168.254.11:30080, which is tried again: address already in use"
		if want.Kind == object.Nodes {
			want.Message = "services.healthAddress is not served, which is tried again: address already in use; if kube-proxy has it, take it off the node or " +
				"set services.besideKubeProxy, else choose another address by services.healthAddress, or none"
		}
		if diff := cmp.Diff(*want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", who, diff)
		}
	}
}
