package services

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/middleway-net/middleway/k8s/object"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/service"
)

// TestAgainstReference compares Compile with the rules written down plainly, on random objects.
func TestAgainstReference(t *testing.T) {
	const rounds = 20_000
	for seed := range uint64(rounds) {
		r := rand.New(rand.NewPCG(seed, 1))
		s, all := randomService(r), randomSlices(r)
		out := Compile(s, all, here)
		for _, p := range s.Ports {
			got := out.Frontends[frontend(s.ClusterIPs[0].String(), packet.Proto(p.Protocol), p.Port)]
			have := map[string]string{
				"internal": choiceText(got.Internal), "external": choiceText(got.External), "inside": choiceText(got.Inside), "serving": backendsText(got.Serving),
			}
			if diff := cmp.Diff(reference(s, p, all), have); diff != "" {
				t.Fatalf("seed %d: port %+v of %+v with %+v (-want +got):\n%s", seed, p, s, all, diff)
			}
		}
		if diff := cmp.Diff(referenceExternal(s), externalNames(out)); diff != "" {
			t.Fatalf("seed %d: %+v (-want +got):\n%s", seed, s, diff)
		}
	}
}

// reference says for one port of an IPv4 Service which backends there are.
func reference(s *object.Service, p object.ServicePort, all []*object.EndpointSlice) map[string]string {
	known := map[netip.AddrPort]object.Endpoint{}
	for _, slice := range all {
		for _, port := range slice.Ports {
			for _, e := range slice.Endpoints {
				at := netip.AddrPortFrom(e.Addr, port.Port)
				was, twice := known[at]
				switch {
				case slice.NotProxied, port.Name != p.Name, port.Protocol != p.Protocol, e.Addr.Is6():
				case !twice, was.Terminating && !e.Terminating:
					known[at] = e
				}
			}
		}
	}
	where := func(want func(object.Endpoint) bool) (list []netip.AddrPort) {
		for at, e := range known {
			if want(e) {
				list = append(list, at)
			}
		}
		slices.SortFunc(list, netip.AddrPort.Compare)
		return list
	}
	text := func(list []netip.AddrPort) string {
		var words []string
		for _, at := range list {
			word := strings.TrimPrefix(at.Addr().String(), "10.244.1.")
			if at.Port() != 8080 {
				word += fmt.Sprint(":", at.Port())
			}
			if known[at].Node == here.Name {
				word += "*"
			}
			words = append(words, word)
		}
		return strings.Join(words, " ")
	}

	ready := where(func(e object.Endpoint) bool { return e.Ready })
	readyWith := func(hint func(object.Endpoint) bool) []netip.AddrPort {
		return where(func(e object.Endpoint) bool { return e.Ready && hint(e) })
	}
	cluster := ready
	hintedNodes := readyWith(func(e object.Endpoint) bool { return len(e.HintedNodes()) > 0 })
	hintedZones := readyWith(func(e object.Endpoint) bool { return len(e.HintedZones()) > 0 })
	thisNode := readyWith(func(e object.Endpoint) bool { return slices.Contains(e.HintedNodes(), here.Name) })
	thisZone := readyWith(func(e object.Endpoint) bool { return slices.Contains(e.HintedZones(), here.Zone) })
	if len(hintedNodes) == len(ready) && len(thisNode) > 0 {
		cluster = thisNode
	} else if len(hintedZones) == len(ready) && len(thisZone) > 0 {
		cluster = thisZone
	}
	if len(cluster) == 0 {
		cluster = where(func(e object.Endpoint) bool { return e.Serving && e.Terminating })
	}
	local := where(func(e object.Endpoint) bool { return e.Ready && e.Node == here.Name })
	if len(local) == 0 {
		local = where(func(e object.Endpoint) bool { return e.Serving && e.Terminating && e.Node == here.Name })
	}
	verdict := func(isLocal bool) string {
		switch {
		case isLocal && len(local) > 0:
			return text(local)
		case len(cluster) == 0:
			return "no-backend"
		case isLocal:
			return "no-local-backend"
		}
		return text(cluster)
	}
	serving := text(where(func(e object.Endpoint) bool { return e.Serving }))
	if serving == "" {
		serving = "-"
	}
	return map[string]string{"internal": verdict(s.InternalLocal), "external": verdict(s.ExternalLocal), "inside": verdict(false), "serving": serving}
}

// referenceExternal says which ports of an IPv4 Service clients from outside reach where.
func referenceExternal(s *object.Service) map[string]string {
	all := map[string]string{}
	for _, p := range s.Ports {
		name := fmt.Sprintf("%s:%s", s.Key, p.Name)
		if p.NodePort > 0 {
			all[fmt.Sprint(packet.Proto(p.Protocol), " 0.0.0.0 ", p.NodePort)] = name
		}
		for _, ip := range s.ExternalIPs {
			if ip.Is4() {
				all[fmt.Sprint(packet.Proto(p.Protocol), " ", ip, " ", p.Port)] = name
			}
		}
	}
	return all
}

func externalNames(s *service.Service) map[string]string {
	all := map[string]string{}
	for f, p := range s.External {
		all[fmt.Sprint(f.Proto, " ", f.Addr, " ", f.Port)] = p.Name
	}
	return all
}

func randomService(r *rand.Rand) *object.Service {
	s := serviceOf("10.96.0.20", "http:80", "dns:53/udp")
	s.InternalLocal, s.ExternalLocal = r.IntN(2) == 0, r.IntN(2) == 0
	for i := range s.Ports {
		s.Ports[i].NodePort = uint16(r.IntN(2) * (30000 + r.IntN(10)))
	}
	for range r.IntN(3) {
		s.ExternalIPs = append(s.ExternalIPs, netip.MustParseAddr(pick1(r, "203.0.113.98", "203.0.113.99", "2001:db8::99")))
	}
	return s
}

func randomSlices(r *rand.Rand) (all []*object.EndpointSlice) {
	hinted := r.IntN(3) // 0: none, 1: some, 2: all
	for i := range r.IntN(4) {
		s := &object.EndpointSlice{Key: object.Key{Namespace: "default", Name: fmt.Sprint("web-", i)}, Service: "web", NotProxied: r.IntN(10) == 0}
		withPorts(s, pick1(r, "http:8080", "http:80"), pick1(r, "dns:5353/udp", "dns:5353", "other:1"))
		for range r.IntN(5) {
			e := endpointOf(fmt.Sprintf("%d@%s %s", 2+r.IntN(6), pick1(r, "n1", "n2", ""), pick1(r, "ready", "ready", "ending", "dead", "published", "published-ending", "serving", "unready")))
			if r.IntN(10) == 0 {
				e.Addr = netip.MustParseAddr("fd00:10:244:1::2")
			}
			if hinted == 2 || hinted == 1 && r.IntN(2) == 0 {
				e.Hints = &object.Hints{Zones: []string{pick1(r, "a", "b")}}
			}
			if hinted == 2 && r.IntN(2) == 0 || hinted == 1 && r.IntN(4) == 0 {
				e.Hints = &object.Hints{Zones: e.HintedZones(), Nodes: []string{pick1(r, "n1", "n2")}}
			}
			s.Endpoints = append(s.Endpoints, e)
		}
		all = append(all, s)
	}
	return all
}

func pick1(r *rand.Rand, of ...string) string { return of[r.IntN(len(of))] }
