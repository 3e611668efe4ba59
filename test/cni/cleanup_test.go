package cni

import (
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
)

// configOf returns a node's configuration as its daemon reads it.
func configOf(t *testing.T, n *lab.Node) node.Config {
	t.Helper()
	text, err := json.Marshal(n.Config)
	if err != nil {
		t.Fatal(err)
	}
	c, err := node.ParseConfig(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

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
	c := configOf(t, n)
	for range 2 { // the second time there is nothing to do
		if err := node.Cleanup(c, false, slog.New(slog.DiscardHandler)); err != nil {
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

// Without leases the plugin's socket and the tombstones are cleaned up too; with a daemon of another run directory on that
// socket they are not.
func TestCleanupWithoutLeases(t *testing.T) {
	dir := t.TempDir()
	n := newNode(t, func(c *node.Config) { c.CNI.Socket = filepath.Join(dir, "cni.sock") })
	r := newRuntime(t, n, "1.1.0", nil)
	s := r.sandbox("pod")
	c := configOf(t, n)
	c.RunDir = filepath.Join(dir, "another")
	if err := node.Cleanup(c, false, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "another daemon") {
		t.Errorf("of another daemon's socket: %v", err)
	}
	r.mustAdd(s)
	mustPing(t, s.Namespace, netip.MustParseAddr("10.244.1.1"))
	if err := n.Daemon().Kill(); err != nil {
		t.Fatal(err)
	}
	r.mustDel(s) // leaves a tombstone
	c = configOf(t, n)
	if err := os.Remove(filepath.Join(c.RunDir, "leases.db")); err != nil {
		t.Fatal(err)
	}
	if err := node.Cleanup(c, false, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
	if _, err := os.Stat(c.RunDir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the run directory: %v", err)
	}
}
