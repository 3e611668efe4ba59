package control

import (
	"context"
	"fmt"
	"sync"

	"github.com/middleway-net/middleway/k8s/object"
)

// Sink is where daemons find objects, a *folder.Writer.
type Sink interface {
	// Put writes an object, which is to be read only.
	Put(api any) error
	Delete(kind object.Kind, namespace, name string) error
	// Complete tells that everything is there that was when the first object was put.
	Complete() error
}

// written are the kinds that daemons read, in the order in which they are written.
var written = []struct {
	*Kind
	as object.Kind
}{
	{Namespaces, object.Namespaces}, {Nodes, object.Nodes}, {Services, object.Services}, {EndpointSlices, object.EndpointSlices}, {Pods, object.Pods},
}

// isWritten reports whether daemons read a kind.
func isWritten(k *Kind) bool {
	for _, w := range written {
		if w.Kind == k {
			return true
		}
	}
	return false
}

// writer hands objects to the Sink, each as it is by then: of changes that follow each other faster than they can be written, the
// last one counts. Objects that others refer to come first.
type writer struct {
	sink Sink
	wake chan struct{}

	mu      sync.Mutex
	pending map[*Kind]map[name]Object // nil for one that is gone
	noted   uint64                    // version up to which pending is
	done    uint64                    // version up to which the sink has all
	moved   chan struct{}             // closed when done moves
	err     error
}

func newWriter(sink Sink) *writer {
	w := &writer{sink: sink, wake: make(chan struct{}, 1), moved: make(chan struct{})}
	w.pending = map[*Kind]map[name]Object{}
	return w
}

func (w *writer) note(k *Kind, before, after Object, version uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.noted = version
	if w.sink != nil && isWritten(k) {
		if w.pending[k] == nil {
			w.pending[k] = map[name]Object{}
		}
		if after != nil {
			w.pending[k][nameOf(after)] = after
		} else {
			w.pending[k][nameOf(before)] = nil
		}
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// run writes until ctx ends, and then what is left.
func (w *writer) run(ctx context.Context) error {
	complete := w.sink == nil
	for {
		w.flush()
		if !complete {
			complete = true
			w.fail(w.sink.Complete())
		}
		select {
		case <-ctx.Done():
			w.flush()
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.err
		case <-w.wake:
		}
	}
}

// flush writes what is pending.
func (w *writer) flush() {
	w.mu.Lock()
	pending, version := w.pending, w.noted
	w.pending = map[*Kind]map[name]Object{}
	w.mu.Unlock()
	for _, k := range written {
		for n, o := range pending[k.Kind] {
			if o != nil {
				w.fail(w.sink.Put(o))
			} else {
				w.fail(w.sink.Delete(k.as, n.Namespace, n.Name))
			}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done = version
	close(w.moved)
	w.moved = make(chan struct{})
}

// fail notes an error: the first one is told.
func (w *writer) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil && w.err == nil {
		w.err = fmt.Errorf("write objects for the daemons: %w", err)
	}
}

// wait returns when everything up to a version was written.
func (w *writer) wait(ctx context.Context, version uint64) error {
	for {
		w.mu.Lock()
		done, moved, err := w.done >= version, w.moved, w.err
		w.mu.Unlock()
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-moved:
		}
	}
}
