package node

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// watcher calls see for each line of a log.
type watcher struct {
	slog.Handler
	see func(message string)
}

func (w watcher) Enabled(context.Context, slog.Level) bool { return true }

func (w watcher) Handle(_ context.Context, r slog.Record) error {
	w.see(r.Message)
	return nil
}

// The network configuration goes before anything that it has the runtime use.
func TestCleanupConflistFirst(t *testing.T) {
	dir := t.TempDir()
	c := Config{RunDir: filepath.Join(dir, "run"), HostDevice: noHostDevice, Pods: []Pod{{Name: "web", Netns: filepath.Join(dir, "gone")}}}
	c.CNI.Conflist, c.CNI.Socket = filepath.Join(dir, "10-middleway.conflist"), filepath.Join(c.RunDir, "cni.sock")
	if _, err := c.conflist().Write(); err != nil {
		t.Fatal(err)
	}
	pods := 0
	log := slog.New(watcher{slog.DiscardHandler, func(message string) {
		if !strings.Contains(message, "pod has ended") {
			return
		}
		pods++
		if _, err := os.Stat(c.CNI.Conflist); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the configuration is there while pods' devices are removed: %v", err)
		}
	}})
	if err := Cleanup(c, false, log); err != nil {
		t.Fatal(err)
	}
	if pods != 1 {
		t.Errorf("%d pods were cleaned up, want 1", pods)
	}
}
