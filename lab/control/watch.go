package control

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
)

// filter is a Query that was understood.
type filter struct {
	kind      *Kind
	namespace string
	names     []string
	selector  labels.Selector
}

func (q *Query) filter() (filter, error) {
	f := filter{kind: KindNamed(q.Kind), names: q.Names}
	if f.kind == nil {
		return f, apierrors.NewBadRequest(fmt.Sprintf("the server doesn't have a resource type %q", q.Kind))
	}
	if f.kind.Namespaced {
		f.namespace = q.Namespace
	}
	var err error
	if f.selector, err = labels.Parse(q.Selector); err != nil {
		return f, apierrors.NewBadRequest("the selector " + q.Selector + " is none: " + err.Error())
	}
	return f, nil
}

func (f *filter) matches(o Object) bool {
	return o != nil && (f.namespace == "" || o.GetNamespace() == f.namespace) && f.selector.Matches(labels.Set(o.GetLabels())) && f.named(o.GetName())
}

func (f *filter) named(name string) bool {
	if len(f.names) == 0 {
		return true
	}
	for _, n := range f.names {
		if n == name {
			return true
		}
	}
	return false
}

// watcher is somebody who is told of changes. The state's lock guards its queue.
type watcher struct {
	filter
	queue []Event
	ready chan struct{} // holds one when something was queued
}

// note queues a change of an object, if the watcher wants to know of it.
func (w *watcher) note(k *Kind, before, after Object) {
	if k != w.kind {
		return
	}
	was, is := before != nil && w.matches(before), after != nil && w.matches(after)
	switch {
	case is && was:
		w.queue = append(w.queue, Event{Modified, after})
	case is:
		w.queue = append(w.queue, Event{Added, after})
	case was && after != nil:
		w.queue = append(w.queue, Event{Deleted, after})
	case was:
		w.queue = append(w.queue, Event{Deleted, before})
	default:
		return
	}
	select {
	case w.ready <- struct{}{}:
	default: // it knows
	}
}

// List returns the objects that q chooses, sorted by namespace and name, or in the order of q.Names.
func (p *Plane) List(q Query) ([]Object, error) {
	f, err := q.filter()
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.listLocked(f)
}

func (p *Plane) listLocked(f filter) ([]Object, error) {
	all := list[Object](p.state, f.kind, f.namespace)
	if len(f.names) == 0 {
		var chosen []Object
		for _, o := range all {
			if f.matches(o) {
				chosen = append(chosen, o)
			}
		}
		return chosen, nil
	}
	var chosen []Object
	for _, n := range f.names {
		found := false
		for _, o := range all {
			if o.GetName() == n {
				chosen, found = append(chosen, o), true
			}
		}
		if !found {
			return nil, apierrors.NewNotFound(f.kind.Resource(), n)
		}
	}
	return chosen, nil
}

// Watch calls see for each object that q chooses, and for each change, in the order in which they happen, until ctx ends or see returns
// an error. It may be behind the state as long as see takes.
func (p *Plane) Watch(ctx context.Context, q Query, see func(Event) error) error {
	f, err := q.filter()
	if err != nil {
		return err
	}
	w := &watcher{filter: f, ready: make(chan struct{}, 1)}
	p.mu.Lock()
	present, err := p.listLocked(f)
	p.watchers[w] = true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.watchers, w)
	}()
	if err != nil {
		return err
	}
	for _, o := range present {
		if err := see(Event{Added, o}); err != nil {
			return err
		}
	}
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-w.ready:
		}
		p.mu.Lock()
		events := w.queue
		w.queue = nil
		p.mu.Unlock()
		for _, e := range events {
			if err := see(e); err != nil {
				return err
			}
		}
	}
}
