package playground

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/middleway-net/middleway/lab/manifest"
	"github.com/middleway-net/middleway/node"
)

const sleeper = `apiVersion: v1
kind: Pod
metadata: {name: web}
spec: {containers: [{name: main, command: [sleep, "1000"]}]}
`

func parse(t *testing.T, text string) *manifest.Set {
	t.Helper()
	s, err := manifest.Parse("x.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCluster(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "up")
	var out bytes.Buffer
	c, err := New(t.Context(), Config{Pods: parse(t, sleeper), Dir: dir, Out: &out})
	if err != nil {
		t.Fatal(err)
	}
	st, err := ReadStatus(t.Context(), dir)
	if err != nil || st.State != Running || len(st.Nodes) != 2 || len(st.Pods) != 1 {
		t.Errorf("got %+v, %v", st, err)
	}
	ended := make(chan error, 1)
	go func() {
		c.Wait(t.Context())
		ended <- c.Close()
	}()
	if got, err := Down(t.Context(), dir); got != TakenDown || err != nil {
		t.Errorf("down: got %v, %v", got, err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if got, err := Down(t.Context(), dir); got != NothingThere || err != nil {
		t.Errorf("a second down: got %v, %v", got, err)
	}
	if _, err := ReadStatus(t.Context(), dir); !errors.Is(err, ErrNotRunning) {
		t.Errorf("got %v, want %v", err, ErrNotRunning)
	}
	if !strings.Contains(out.String(), "default/web") {
		t.Errorf("got %q", out.String())
	}
}

// Each failure of a start leaves nothing behind and says what the daemon said.
func TestClusterFails(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(int, *node.Config)
		want   string
	}{
		"a daemon does not start":  {func(_ int, c *node.Config) { c.VXLAN.MAC = "nonsense" }, "vxlan.mac"},
		"a pod cannot be attached": {func(_ int, c *node.Config) { c.CNI.Socket = c.RunDir + "/other.sock" }, "attach pod default/web on node-1"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "up")
			_, err := New(t.Context(), Config{Pods: parse(t, sleeper), Dir: dir, Change: tt.change})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("state directory: %v", err)
			}
		})
	}
}

func TestClusterInterrupted(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "up")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	c, err := New(ctx, Config{Nodes: 4, Dir: dir})
	if err == nil { // a fast machine
		t.Log("it was up before the interruption")
		err = c.Close()
		if err != nil {
			t.Error(err)
		}
	} else if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("state directory: %v", err)
	}
}
