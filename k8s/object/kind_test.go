package object

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestNames(t *testing.T) {
	web := Key{"default", "web"}
	tests := []struct {
		object     Object
		kind       string
		namespaced bool
		name       string
	}{
		{&Node{Name: "n1"}, "nodes", false, "n1"},
		{&Namespace{Name: "default"}, "namespaces", false, "default"},
		{&Pod{Key: web}, "pods", true, "default/web"},
		{&Service{Key: web}, "services", true, "default/web"},
		{&EndpointSlice{Key: web}, "endpointslices", true, "default/web"},
	}
	if len(tests) != len(Kinds) {
		t.Errorf("%d kinds, want %d", len(Kinds), len(tests))
	}
	for i, tt := range tests {
		k := tt.object.Kind()
		if k != Kinds[i] || k.String() != tt.kind || k.Namespaced() != tt.namespaced || tt.object.Named().String() != tt.name {
			t.Errorf("got %d %s %s, in a namespace: %v; want %d %s %s, %v", k, k, tt.object.Named(), k.Namespaced(), i, tt.kind, tt.name, tt.namespaced)
		}
	}
}

// Objects that were decoded apart share their strings, as From's do.
func TestShare(t *testing.T) {
	decoded := func() *EndpointSlice {
		return &EndpointSlice{
			Key: Key{strings.Clone("default"), "web-x"}, Ports: []EndpointPort{{Name: strings.Clone("http")}},
			Endpoints: []Endpoint{{Node: strings.Clone("n1"), Hints: &Hints{Zones: []string{strings.Clone("a")}, Nodes: []string{strings.Clone("n1")}}}},
		}
	}
	a, b := decoded(), decoded()
	for _, o := range []Object{a, b, &Node{Name: "n1"}, &Namespace{Name: "default"}, &Pod{Node: "n1"}, &Service{Ports: []ServicePort{{Name: "http"}}}} {
		Share(o)
	}
	if diff := cmp.Diff(a, decoded(), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("changed (-got +want):\n%s", diff)
	}
	for what, same := range map[string][2]string{
		"namespace": {a.Namespace, b.Namespace}, "port": {a.Ports[0].Name, b.Ports[0].Name}, "node": {a.Endpoints[0].Node, b.Endpoints[0].Node},
		"zone": {a.Endpoints[0].Hints.Zones[0], b.Endpoints[0].Hints.Zones[0]}, "hinted node": {a.Endpoints[0].Hints.Nodes[0], b.Endpoints[0].Node},
	} {
		if unsafe.StringData(same[0]) != unsafe.StringData(same[1]) {
			t.Errorf("%s: two copies of %q", what, same[0])
		}
	}
}

func TestNamesAreBounded(t *testing.T) {
	for i := range maxNames + 10 {
		shared(fmt.Sprint("node-", i))
	}
	if n := len(names.all); n > maxNames {
		t.Errorf("%d names are held, want %d at most", n, maxNames)
	}
	if allocs := testing.AllocsPerRun(100, func() { shared("n1") }); allocs != 0 {
		t.Errorf("%v allocations for a known name", allocs)
	}
}
