package proxy

import (
	"sync"
	"time"
)

// warnEvery is how often a person is told the same.
const warnEvery = time.Minute

// warned keeps what happens often from being told each time.
type warned struct {
	mu   sync.Mutex
	last time.Time // zero: never
}

// due reports whether it is to be told, and takes it for told.
func (w *warned) due() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if !w.last.IsZero() && now.Sub(w.last) < warnEvery {
		return false
	}
	w.last = now
	return true
}
