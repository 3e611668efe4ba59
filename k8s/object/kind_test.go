package object

import "testing"

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

// Objects that were decoded apart share their strings.
func TestShared(t *testing.T) {
	for i := range maxNames + 10 {
		shared(string(rune(i)) + "-node")
	}
	if n := len(names.all); n > maxNames {
		t.Errorf("%d names are held, want %d at most", n, maxNames)
	}
	if allocs := testing.AllocsPerRun(100, func() { shared("n1") }); allocs != 0 {
		t.Errorf("%v allocations for a known name", allocs)
	}
}
