package k8s

import (
	"cmp"
	"context"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/middleway-net/middleway/k8s/object"
)

// Source fills a Store: an API server's objects, or a folder's.
type Source interface {
	// Run brings what the source has into the store, tells of each kind once all of it is there (Store.Synced), and goes on
	// with what changes, until ctx ends. A source that cannot be reached changes nothing, and is asked again.
	Run(ctx context.Context, into *Store) error
}

// Store holds the objects of a cluster, stripped, and remembers which of them changed since it was asked last. An object that is
// equal to the one that is there changes nothing. Its methods may be called by any goroutine.
type Store struct {
	mu      sync.Mutex // guards the following
	objects [kinds]map[object.Key]object.Object
	slices  map[object.Key][]*object.EndpointSlice // by their Service, in the order of their names
	synced  [kinds]bool
	kept    [kinds]map[object.Key]bool // of a former daemon; no source has told of them yet
	changes Changes

	wake chan struct{} // holds one element while something has changed
}

const kinds = 5 // as many as object.Kinds has

// Changes are what changed in a Store.
type Changes struct {
	// Since is when the first of it changed; zero if nothing did.
	Since time.Time
	// Objects are the names of all that were set or deleted, by kind.
	Objects [kinds]map[object.Key]bool
	// Services are the Services that changed, or whose slices did.
	Services map[object.Key]bool
}

// NewStore returns an empty Store.
func NewStore() *Store {
	s := &Store{slices: map[object.Key][]*object.EndpointSlice{}, wake: make(chan struct{}, 1)}
	for k := range s.objects {
		s.objects[k] = map[object.Key]object.Object{}
	}
	return s
}

// Set adds an object, or puts it in the place of that of its name. The object must not be changed any more.
func (s *Store) Set(o object.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setLocked(o)
}

// Delete removes an object, if it is there.
func (s *Store) Delete(kind object.Kind, name object.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deleteLocked(kind, name)
}

// Replace makes all the only objects of these kinds, in one step, and the kinds synced. It is for a source that begins, or that
// may have missed something. Objects of other kinds must not be among them.
func (s *Store) Replace(all []object.Object, of ...object.Kind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var there [kinds]map[object.Key]bool
	for _, k := range of {
		there[k] = map[object.Key]bool{}
	}
	for _, o := range all {
		there[o.Kind()][o.Named()] = true
		s.setLocked(o)
	}
	for _, k := range of {
		for name := range s.objects[k] {
			if !there[k][name] {
				s.deleteLocked(k, name)
			}
		}
		s.syncedLocked(k)
	}
}

// SetSynced says that the source has told of all objects of a kind. What a former daemon kept of it, and the source has not, is
// deleted. A source that has no such objects says so at once.
func (s *Store) SetSynced(kind object.Kind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.syncedLocked(kind)
}

// Synced reports whether the source has told of all objects of a kind.
func (s *Store) Synced(kind object.Kind) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.synced[kind]
}

// AllSynced reports whether the source has told of all objects.
func (s *Store) AllSynced() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !slices.Contains(s.synced[:], false)
}

// Len returns how many objects of a kind there are.
func (s *Store) Len(kind object.Kind) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.objects[kind])
}

// Get returns an object; nil if there is none of that name.
func (s *Store) Get(kind object.Kind, name object.Key) object.Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.objects[kind][name]
}

// Service returns a Service, nil if there is none, and the slices that belong to its name, in the order of their names.
func (s *Store) Service(name object.Key) (*object.Service, []*object.EndpointSlice) {
	s.mu.Lock()
	defer s.mu.Unlock()
	service, _ := s.objects[object.Services][name].(*object.Service)
	return service, s.slices[name]
}

// Names returns the names of all objects of a kind, in no order.
func (s *Store) Names(kind object.Kind) []object.Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := make([]object.Key, 0, len(s.objects[kind]))
	for name := range s.objects[kind] {
		names = append(names, name)
	}
	return names
}

// Nodes returns all nodes, in the order of their names.
func (s *Store) Nodes() []*object.Node {
	s.mu.Lock()
	defer s.mu.Unlock()
	nodes := make([]*object.Node, 0, len(s.objects[object.Nodes]))
	for _, o := range s.objects[object.Nodes] {
		nodes = append(nodes, o.(*object.Node))
	}
	slices.SortFunc(nodes, func(a, b *object.Node) int { return cmp.Compare(a.Name, b.Name) })
	return nodes
}

// Changed returns a channel that yields once after something has changed.
func (s *Store) Changed() <-chan struct{} { return s.wake }

// Take returns what changed since the last call.
func (s *Store) Take() Changes {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.changes
	s.changes = Changes{}
	return c
}

// since returns when the first change happened that nobody has taken yet; zero if there is none.
func (s *Store) since() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changes.Since
}

// keep adds an object that a former daemon had. It is deleted when the source has synced without it.
func (s *Store) keep(o object.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := o.Kind()
	if s.synced[k] || s.objects[k][o.Named()] != nil {
		return
	}
	if s.kept[k] == nil {
		s.kept[k] = map[object.Key]bool{}
	}
	s.setLocked(o)
	s.kept[k][o.Named()] = true
}

func (s *Store) setLocked(o object.Object) {
	kind, name := o.Kind(), o.Named()
	delete(s.kept[kind], name)
	was := s.objects[kind][name]
	if was != nil && reflect.DeepEqual(was, o) {
		return
	}
	s.objects[kind][name] = o
	if slice, ok := o.(*object.EndpointSlice); ok {
		if was != nil {
			s.unlinkLocked(was.(*object.EndpointSlice))
		}
		s.linkLocked(slice)
	}
	s.changedLocked(kind, name)
}

func (s *Store) deleteLocked(kind object.Kind, name object.Key) {
	delete(s.kept[kind], name)
	was := s.objects[kind][name]
	if was == nil {
		return
	}
	delete(s.objects[kind], name)
	if slice, ok := was.(*object.EndpointSlice); ok {
		s.unlinkLocked(slice)
	}
	s.changedLocked(kind, name)
}

// linkLocked adds a slice to those of its Service. Lists are never changed in place: a compiler may be reading one.
func (s *Store) linkLocked(slice *object.EndpointSlice) {
	if slice.Service == "" {
		return
	}
	of := owner(slice)
	list := s.slices[of]
	at, _ := slices.BinarySearchFunc(list, slice.Name, func(e *object.EndpointSlice, name string) int { return cmp.Compare(e.Name, name) })
	s.slices[of] = slices.Concat(list[:at], []*object.EndpointSlice{slice}, list[at:])
	s.serviceChangedLocked(of)
}

func (s *Store) unlinkLocked(slice *object.EndpointSlice) {
	if slice.Service == "" {
		return
	}
	of := owner(slice)
	at := slices.Index(s.slices[of], slice)
	if left := slices.Concat(s.slices[of][:at], s.slices[of][at+1:]); len(left) > 0 {
		s.slices[of] = left
	} else {
		delete(s.slices, of)
	}
	s.serviceChangedLocked(of)
}

func owner(slice *object.EndpointSlice) object.Key {
	return object.Key{Namespace: slice.Namespace, Name: slice.Service}
}

func (s *Store) syncedLocked(kind object.Kind) {
	for name := range s.kept[kind] {
		s.deleteLocked(kind, name)
	}
	s.kept[kind] = nil
	if !s.synced[kind] {
		s.synced[kind] = true
		s.wakeLocked()
	}
}

func (s *Store) changedLocked(kind object.Kind, name object.Key) {
	if s.changes.Objects[kind] == nil {
		s.changes.Objects[kind] = map[object.Key]bool{}
	}
	s.changes.Objects[kind][name] = true
	if kind == object.Services {
		s.serviceChangedLocked(name)
	}
	if s.changes.Since.IsZero() {
		s.changes.Since = time.Now()
	}
	s.wakeLocked()
}

func (s *Store) serviceChangedLocked(name object.Key) {
	if s.changes.Services == nil {
		s.changes.Services = map[object.Key]bool{}
	}
	s.changes.Services[name] = true
}

func (s *Store) wakeLocked() {
	select {
	case s.wake <- struct{}{}:
	default: // there is one that was not taken yet
	}
}
