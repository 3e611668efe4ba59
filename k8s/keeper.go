package k8s

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/middleway-net/middleway/k8s/kept"
	"github.com/middleway-net/middleway/k8s/object"
)

// keepEvery is the least time between two writes. What a daemon that is killed has not written yet, the next one learns from its
// source.
const keepEvery = time.Second

// keeper writes what changed into the file of the last known objects, in batches beside the pipeline's way.
type keeper struct {
	file  *kept.File
	store *Store
	log   *slog.Logger

	mu      sync.Mutex // guards pending
	pending [kinds]map[object.Key]bool

	wake chan struct{} // holds one element while something is pending
}

func newKeeper(file *kept.File, store *Store, log *slog.Logger) *keeper {
	return &keeper{file: file, store: store, log: log, wake: make(chan struct{}, 1)}
}

// add notes what is to be written. It does not wait for that.
func (k *keeper) add(c Changes) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for kind, names := range c.Objects {
		if k.pending[kind] == nil {
			k.pending[kind] = map[object.Key]bool{}
		}
		for name := range names {
			k.pending[kind][name] = true
		}
	}
	select {
	case k.wake <- struct{}{}:
	default: // there is one that was not taken yet
	}
}

// run writes until ctx ends, and then what is left.
func (k *keeper) run(ctx context.Context) {
	told := ""
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-k.wake:
			k.write(&told)
			select {
			case <-ctx.Done():
			case <-time.After(keepEvery):
			}
		}
	}
	k.write(&told)
	if err := k.file.Close(); err != nil {
		k.log.Warn("close the file of what is known of the cluster", "err", err)
	}
}

// write writes all that is pending, as it is by now. An error is told once; what could not be written stays pending.
func (k *keeper) write(told *string) {
	k.mu.Lock()
	names := k.pending
	k.pending = [kinds]map[object.Key]bool{}
	k.mu.Unlock()
	var changes []kept.Change
	for kind, of := range names {
		for name := range of {
			kind := object.Kind(kind)
			changes = append(changes, kept.Change{Kind: kind, Name: name, Object: k.store.Get(kind, name)})
		}
	}
	if len(changes) == 0 {
		return
	}
	err := k.file.Write(changes)
	if err == nil {
		*told = ""
		return
	}
	if *told != err.Error() {
		*told = err.Error()
		k.log.Error("what is known of the cluster cannot be written down; a daemon that starts again begins with older objects", "err", err)
	}
	k.add(Changes{Objects: names})
}
