package node

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/middleway-net/middleway/capture"
	"github.com/middleway-net/middleway/unixsock"
)

// Who asks a daemon that is stopped hears so, and may give up before.
func TestCaptureNotBegun(t *testing.T) {
	dir := t.TempDir()
	l, err := unixsock.Listen(filepath.Join(dir, socketName)) // and nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	before := startWait
	startWait = 10 * time.Millisecond
	defer func() { startWait = before }()
	s, err := In(dir).Capture(t.Context(), capture.Request{})
	if err == nil {
		t.Fatal(s.Close(), "a capture without a daemon began")
	}
	if !strings.Contains(err.Error(), "has not begun a capture within 10ms") {
		t.Errorf("got %v", err)
	}
	startWait = before
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := In(dir).Capture(ctx, capture.Request{}); !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
		t.Errorf("given up: got %v", err)
	}
}
