package k8s

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/middleway-net/middleway/k8s/object"
)

func TestStoreChanges(t *testing.T) {
	tests := []struct {
		name string
		do   func(*Store)
		want []string // the Services that changed
	}{
		{"nothing", func(*Store) {}, nil},
		{"a Service", func(s *Store) { s.Set(serviceOf("web")) }, []string{"web"}},
		{"a slice", func(s *Store) { s.Set(sliceOf("web-x", "web")) }, []string{"web"}},
		{"a slice of no Service", func(s *Store) { s.Set(sliceOf("x", "")) }, nil},
		{"equal objects", func(s *Store) { s.Set(serviceOf("old")); s.Set(sliceOf("old-x", "old")) }, nil},
		{"equal objects, all", func(s *Store) {
			s.Replace([]object.Object{serviceOf("old"), sliceOf("old-x", "old")}, object.Services, object.EndpointSlices)
		}, nil},
		{"a slice that moves", func(s *Store) { s.Set(sliceOf("old-x", "web")) }, []string{"old", "web"}},
		{"deleted", func(s *Store) { s.Delete(object.Services, key("old")) }, []string{"old"}},
		{"its slice deleted", func(s *Store) { s.Delete(object.EndpointSlices, key("old-x")) }, []string{"old"}},
		{"what is not there deleted", func(s *Store) { s.Delete(object.Services, key("web")) }, nil},
		{"replaced by nothing", func(s *Store) { s.Replace(nil, object.Services) }, []string{"old"}},
		{"many times", func(s *Store) {
			for range 3 {
				s.Set(sliceOf("web-x", "web", "10.244.1.2"))
				s.Set(sliceOf("web-x", "web", "10.244.1.3"))
			}
		}, []string{"web"}},
		{"another kind", func(s *Store) { s.Set(&object.Node{Name: "n1"}) }, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := NewStore()
			s.Set(serviceOf("old"))
			s.Set(sliceOf("old-x", "old"))
			s.Take()
			tt.do(s)
			if diff := cmp.Diff(tt.want, servicesOf(s.Take())); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if again := s.Take(); len(again.Services) != 0 || !again.Since.IsZero() {
				t.Errorf("changed again: %v", again)
			}
		})
	}
}

func TestStoreSlicesOfAService(t *testing.T) {
	s := NewStore()
	for _, name := range []string{"web-b", "web-c", "web-a"} {
		s.Set(sliceOf(name, "web"))
	}
	_, before := s.Service(key("web"))
	s.Set(sliceOf("web-b", "web", "10.244.1.2"))
	s.Delete(object.EndpointSlices, key("web-c"))
	_, after := s.Service(key("web"))
	if got := names(before); got != "web-a web-b web-c" || len(before[1].Endpoints) != 0 {
		t.Errorf("a list that was handed out is now %s", got)
	}
	if got := names(after); got != "web-a web-b" || len(after[1].Endpoints) != 1 {
		t.Errorf("got %s", got)
	}
	s.Replace(nil, object.EndpointSlices)
	if _, none := s.Service(key("web")); none != nil {
		t.Errorf("got %s, want none", names(none))
	}
}

// What a former daemon kept counts until the source has told of all; what it has not is then gone, and what it has is no change.
func TestStoreKept(t *testing.T) {
	s := NewStore()
	s.keep(serviceOf("same"))
	s.keep(serviceOf("gone"))
	s.keep(serviceOf("deleted"))
	s.keep(&object.Node{Name: "n1"})
	s.Take()
	s.Set(serviceOf("same"))
	s.Set(serviceOf("new"))
	s.Delete(object.Services, key("deleted"))
	s.keep(serviceOf("late"))
	if diff := cmp.Diff([]string{"deleted", "late", "new"}, servicesOf(s.Take())); diff != "" {
		t.Errorf("before it synced (-want +got):\n%s", diff)
	}
	s.SetSynced(object.Services)
	s.keep(serviceOf("too late"))
	if diff := cmp.Diff([]string{"gone", "late"}, servicesOf(s.Take())); diff != "" {
		t.Errorf("when it synced (-want +got):\n%s", diff)
	}
	if s.Len(object.Services) != 2 || s.Len(object.Nodes) != 1 {
		t.Errorf("%d Services and %d nodes, want 2 and 1", s.Len(object.Services), s.Len(object.Nodes))
	}
	if !s.Synced(object.Services) || s.Synced(object.Nodes) || s.AllSynced() {
		t.Error("want Services synced, and nothing else")
	}
}

func TestStoreWakes(t *testing.T) {
	s := NewStore()
	woken := func() bool {
		select {
		case <-s.Changed():
			return true
		default:
			return false
		}
	}
	s.Set(serviceOf("web"))
	s.Set(sliceOf("web-x", "web"))
	if !woken() || woken() {
		t.Error("two changes: want to be woken once")
	}
	s.Set(serviceOf("web"))
	if woken() {
		t.Error("no change: want no wake-up")
	}
	s.SetSynced(object.Services)
	if !woken() {
		t.Error("synced: want to be woken")
	}
}

func servicesOf(c Changes) (list []string) {
	for _, name := range slices.SortedFunc(maps.Keys(c.Services), func(a, b object.Key) int { return strings.Compare(a.Name, b.Name) }) {
		list = append(list, name.Name)
	}
	return list
}

func names(all []*object.EndpointSlice) string {
	var list []string
	for _, s := range all {
		list = append(list, s.Name)
	}
	return strings.Join(list, " ")
}
