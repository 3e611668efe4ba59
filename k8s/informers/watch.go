package informers

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/middleway-net/middleway/k8s"
	"github.com/middleway-net/middleway/k8s/object"
)

// Pauses between attempts while the API server does not answer, each up to twice as long by chance. client-go's own go up to a minute, for
// which a cluster that has come back would be looked at with old eyes; here each kind asks again after 5 to 10 s in the end.
const (
	firstPause   = 200 * time.Millisecond
	longestPause = 5 * time.Second
)

// asked is a kind of objects and how it is asked for. Of pods only this node's are: what Services and DNS need of the others stands in
// EndpointSlices. Slices that no proxy reads have names all the same, so all are asked for.
type asked struct {
	kind object.Kind
	from rest.Interface
	api  runtime.Object
	only fields.Selector
}

func (c *Client) asks() []asked {
	all := fields.Everything()
	return []asked{
		{object.Nodes, c.core, &corev1.Node{}, all},
		{object.Namespaces, c.core, &corev1.Namespace{}, all},
		{object.Pods, c.core, &corev1.Pod{}, fields.OneTermEqualSelector("spec.nodeName", c.config.Node)},
		{object.Services, c.core, &corev1.Service{}, all},
		{object.EndpointSlices, c.discovery, &discoveryv1.EndpointSlice{}, all},
	}
}

// Run brings the cluster's objects into the store, and follows their changes, until ctx ends.
func (c *Client) Run(ctx context.Context, into *k8s.Store) error {
	var wg sync.WaitGroup
	for _, a := range c.asks() {
		wg.Go(func() { c.reflector(a, into).RunWithContext(ctx) })
	}
	wg.Wait()
	return nil
}

func (c *Client) reflector(a asked, into *k8s.Store) *cache.Reflector {
	lw := cache.NewListWatchFromClient(a.from, a.kind.String(), metav1.NamespaceAll, a.only)
	s := &sink{kind: a.kind, store: into, log: c.config.Logger, wrong: map[object.Key]string{}}
	return cache.NewReflectorWithOptions(observed{lw, &c.health, a.kind.String()}, a.api, s, cache.ReflectorOptions{
		Name:    a.kind.String(),
		Backoff: &wait.Backoff{Duration: firstPause, Cap: longestPause, Steps: 32, Factor: 2, Jitter: 1},
	})
}

// observed tells health how each request ended.
type observed struct {
	*cache.ListWatch
	health *health
	what   string
}

func (o observed) ListWithContext(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	list, err := o.ListWatch.ListWithContext(ctx, options)
	o.note(ctx, err)
	return list, err
}

func (o observed) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	w, err := o.ListWatch.WatchWithContext(ctx, options)
	o.note(ctx, err)
	return w, err
}

func (o observed) note(ctx context.Context, err error) {
	if ctx.Err() == nil {
		o.health.note(o.what, err)
	}
}

// sink takes one kind of objects from a reflector, strips them and puts them into the store.
type sink struct {
	kind  object.Kind
	store *k8s.Store
	log   *slog.Logger

	mu    sync.Mutex // guards wrong; the reflector strips while it collects
	wrong map[object.Key]string
}

var _ cache.TransformingStore = (*sink)(nil)

// Transformer has the reflector strip objects as they arrive, also while it collects the first whole set.
func (s *sink) Transformer() cache.TransformFunc {
	return func(api any) (any, error) { return s.strip(api) }
}

// strip converts an object, and logs what of it cannot be used, once for each such state of it.
func (s *sink) strip(api any) (object.Object, error) {
	if o, ok := api.(object.Object); ok {
		return o, nil
	}
	o, err := object.From(api)
	if o == nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch was := s.wrong[o.Named()]; {
	case err == nil:
		delete(s.wrong, o.Named())
	case was != err.Error():
		s.wrong[o.Named()] = err.Error()
		s.log.Warn("a part of an object is left out", "err", err)
	}
	return o, nil
}

// Add puts an object into the store.
func (s *sink) Add(api any) error {
	o, err := s.strip(api)
	if err != nil {
		return err
	}
	s.store.Set(o)
	return nil
}

// Update puts an object into the store.
func (s *sink) Update(api any) error { return s.Add(api) }

// Delete removes an object from the store.
func (s *sink) Delete(api any) error {
	o, err := meta.Accessor(api)
	if err != nil {
		return fmt.Errorf("delete of %s: %w", s.kind, err)
	}
	name := object.Key{Namespace: o.GetNamespace(), Name: o.GetName()}
	s.mu.Lock()
	delete(s.wrong, name)
	s.mu.Unlock()
	s.store.Delete(s.kind, name)
	return nil
}

// Replace makes the list all objects of the kind.
func (s *sink) Replace(list []any, _ string) error {
	all := make([]object.Object, 0, len(list))
	for _, api := range list {
		o, err := s.strip(api)
		if err != nil {
			return err
		}
		all = append(all, o)
	}
	s.store.Replace(all, s.kind)
	return nil
}

// Resync does nothing: the store has what was put there.
func (s *sink) Resync() error { return nil }
