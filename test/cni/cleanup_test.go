package cni

import (
	"encoding/json"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/middleway-net/middleway/node"
)

// Cleanup removes what the plugin's pods have of a daemon that is not to come back, also where a namespace or a DEL's answer
// is missing.
func TestCleanup(t *testing.T) {
	n := newNode(t, nil)
	r := newRuntime(t, n, "1.1.0", nil)
	a, b, gone := r.sandbox("a"), r.sandbox("b"), r.sandbox("gone")
	for _, s := range []*sandbox{a, b, gone} {
		r.mustAdd(s)
	}
	if err := n.Daemon().Stop(15 * time.Second); err != nil {
		t.Fatal(err)
	}
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	r.mustDel(gone) // leaves a tombstone
	text, err := json.Marshal(n.Config)
	if err != nil {
		t.Fatal(err)
	}
	c, err := node.ParseConfig(text)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is nothing to do
		if err := node.Cleanup(c, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		for _, s := range []*sandbox{a, b} {
			if got := devices(t, s.Namespace); len(got) > 0 {
				t.Errorf("left in a pod: %v", got)
			}
		}
		if entries, err := os.ReadDir(n.Config.RunDir); err == nil {
			t.Errorf("left in the run directory: %v", entries)
		}
	}
	start(t, n)
	if got := left(t, n); len(got) > 0 {
		t.Errorf("a daemon that starts afresh finds %v", got)
	}
}
