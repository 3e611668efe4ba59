package control

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/middleway-net/middleway/k8s/object"
)

// Sink is where daemons find objects, a *folder.Writer.
type Sink interface {
	// Put writes an object, which is to be read only.
	Put(api any) error
	Delete(kind object.Kind, namespace, name string) error
	// Complete tells that the first whole set is there.
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
	fail func(error)
	wake chan struct{}

	mu      sync.Mutex
	pending map[*Kind]map[name]Object // nil for one that is gone
	noted   uint64                    // version up to which pending is
	done    uint64                    // version up to which the sink has all
	moved   chan struct{}             // closed when done moves
}

func newWriter(sink Sink, fail func(error)) *writer {
	w := &writer{sink: sink, fail: fail, wake: make(chan struct{}, 1), moved: make(chan struct{})}
	w.pending = map[*Kind]map[name]Object{}
	return w
}

func (w *writer) note(k *Kind, before, after Object, version uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.noted = version
	if w.sink != nil && isWritten(k) {
		n := name{}
		if after != nil {
			n = nameOf(after)
		} else {
			n = nameOf(before)
		}
		w.keepLocked(k, n, after)
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *writer) keepLocked(k *Kind, n name, o Object) {
	if w.pending[k] == nil {
		w.pending[k] = map[name]Object{}
	}
	w.pending[k][n] = o
}

// again is when what could not be written is tried again.
const again = time.Second

// run writes until ctx ends, and then what is left.
func (w *writer) run(ctx context.Context) {
	complete, told := w.sink == nil, ""
	for {
		err := w.flush()
		if err == nil && !complete {
			err = w.sink.Complete()
			complete = err == nil
		}
		var retry <-chan time.Time
		if err != nil {
			retry = time.After(again)
			if err.Error() != told {
				told = err.Error()
				w.fail(fmt.Errorf("write objects for the daemons: %w", err))
			}
		} else {
			told = ""
		}
		select {
		case <-ctx.Done():
			_ = w.flush() // it was told, or the end takes all
			return
		case <-w.wake:
		case <-retry:
		}
	}
}

// flush writes what is pending, and keeps what could not be written.
func (w *writer) flush() error {
	w.mu.Lock()
	pending, version := w.pending, w.noted
	w.pending = map[*Kind]map[name]Object{}
	w.mu.Unlock()
	var failed error
	for _, k := range written {
		for n, o := range pending[k.Kind] {
			err := w.write(k.as, n, o)
			if err == nil {
				continue
			}
			failed = err
			w.mu.Lock()
			if _, newer := w.pending[k.Kind][n]; !newer {
				w.keepLocked(k.Kind, n, o)
			}
			w.mu.Unlock()
		}
	}
	if failed != nil {
		return failed
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done = version
	close(w.moved)
	w.moved = make(chan struct{})
	return nil
}

func (w *writer) write(as object.Kind, n name, o Object) error {
	if o == nil {
		return w.sink.Delete(as, n.Namespace, n.Name)
	}
	return w.sink.Put(o)
}

// wait returns when everything up to a version was written, or ctx has ended.
func (w *writer) wait(ctx context.Context, version uint64) error {
	for {
		w.mu.Lock()
		done, moved := w.done >= version, w.moved
		w.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-moved:
		}
	}
}
