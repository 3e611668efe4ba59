package node

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/middleway-net/middleway/k8s/object"
	"github.com/middleway-net/middleway/stack/flow"
)

// lines is a log of which a test waits for a line.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) has(part string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), part)
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s does not come", what)
		}
	}
}

// A daemon that takes another one's place, and then has to wait for something, answers about its health meanwhile: else kubelet ends it.
func TestHealthAfterHandOver(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := os.WriteFile(kubeconfig, []byte(`{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}],
clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}], users: [{name: u, user: {}}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := ParseConfig(fmt.Appendf(nil, "{name: node-1, runDir: %s, http: %q, address: 203.0.113.250, flowEntries: 1024, kubernetes: {kubeconfig: %s}}",
		filepath.Join(dir, "run"), l.Addr(), kubeconfig))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(c.RunDir, 0o700); err != nil {
		t.Fatal(err)
	}
	former := &Node{config: c}
	if err := former.writeSelf(&object.Node{Name: "node-1", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}}); err != nil {
		t.Fatal(err)
	}
	flows, err := flow.Open(former.flowFile(), c.FlowEntries)
	if err != nil {
		t.Fatal(err)
	}
	log, front, ended := &lines{}, &httpServer{}, make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer close(ended)
		_, _ = start(ctx, c, front, asks, slog.New(slog.NewTextHandler(log, nil)))
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		_ = front.close()
	})
	eventually(t, "the wait for the former daemon", func() bool { return log.has("takes over when it ends") })
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := flows.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the wait for the address", func() bool { return log.has("this is tried again") })
	for path, want := range map[string]int{"/healthz": http.StatusOK, "/readyz": http.StatusServiceUnavailable} {
		resp, err := http.Get("http://" + l.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil || resp.StatusCode != want {
			t.Errorf("%s: got %d, %v, want %d", path, resp.StatusCode, err, want)
		}
	}
}
