package stack

import (
	"context"
	"strings"
	"testing"
	"time"
)

// A worker that does not come round to its next batch is named; so is one that does not run. One that starts is waited for.
func TestHealthy(t *testing.T) {
	d := newBed(t, 2)
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := d.Healthy(short); err == nil || !strings.Contains(err.Error(), "worker 0 does not answer") {
		t.Errorf("before Run: got %v, want an error", err)
	}
	d.run(t)
	if err := d.Healthy(t.Context()); err != nil {
		t.Errorf("while it starts: %v", err)
	}

	stuck, loose := make(chan struct{}), make(chan struct{})
	go d.workers[1].call(func() error { close(stuck); <-loose; return nil })
	<-stuck
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := d.Healthy(ctx); err == nil || !strings.Contains(err.Error(), "worker 1 does not answer") {
		t.Errorf("with a worker that is stuck: got %v, want an error that names it", err)
	}
	close(loose)
	if err := d.Healthy(t.Context()); err != nil {
		t.Errorf("after it came loose: %v", err)
	}
}
