package informers

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/middleway-net/middleway/k8s"
	"github.com/middleway-net/middleway/k8s/informers/informerstest"
	"github.com/middleway-net/middleway/k8s/object"
)

// logged is a log that a test reads.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), s)
}

func client(t *testing.T, api *informerstest.Server) (*Client, *logged) {
	t.Helper()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(kubeconfig, []byte(api.Kubeconfig()), 0o600); err != nil {
		t.Fatal(err)
	}
	log := &logged{}
	c, err := New(Config{Kubeconfig: kubeconfig, Node: "node-1", Agent: "test", Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return c, log
}

// run runs a client until the test ends.
func run(t *testing.T, c *Client) *k8s.Store {
	store := k8s.NewStore()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx, store) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return store
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited 30 s in vain: %s", what)
		}
	}
}

func service(name, ip string) *corev1.Service {
	return &corev1.Service{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.ServiceSpec{ClusterIPs: []string{ip}, Ports: []corev1.ServicePort{{Port: 80, Protocol: corev1.ProtocolTCP}}},
	}
}

func node(podCIDRs ...string) *corev1.Node {
	return &corev1.Node{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: metav1.ObjectMeta{Name: "node-1"},
		Spec: corev1.NodeSpec{PodCIDRs: podCIDRs},
	}
}

func ip(store *k8s.Store, name string) string {
	s, _ := store.Service(object.Key{Namespace: "default", Name: name})
	if s == nil || len(s.ClusterIPs) == 0 {
		return ""
	}
	return s.ClusterIPs[0].String()
}

func TestFollowsTheCluster(t *testing.T) {
	api := informerstest.New(t)
	api.Set("services", service("web", "10.96.0.20"))
	api.Set("services", service("old", "10.96.0.21"))
	api.Set("nodes", node("10.244.1.0/24"))
	c, _ := client(t, api)
	store := run(t, c)
	eventually(t, "all kinds synced", store.AllSynced)
	if got := ip(store, "web"); got != "10.96.0.20" || len(store.Nodes()) != 1 {
		t.Errorf("web has %q, nodes %v", got, store.Nodes())
	}
	api.Set("services", service("web", "10.96.0.22"))
	api.Delete("services", service("old", "10.96.0.21"))
	eventually(t, "a change and a deletion", func() bool { return ip(store, "web") == "10.96.0.22" && ip(store, "old") == "" })
	if want := "GET /api/v1/pods spec.nodeName=node-1"; !slices.Contains(api.Requests(), want) {
		t.Errorf("requests %q, want %q: other nodes' pods are not asked for", api.Requests(), want)
	}
}

// A server that goes away changes nothing, and is told in one sentence, however often it is tried; when it is back what changed
// meanwhile is in the store.
func TestServerGoesAndComes(t *testing.T) {
	api := informerstest.New(t)
	api.Set("services", service("web", "10.96.0.20"))
	api.Set("services", service("old", "10.96.0.21"))
	c, log := client(t, api)
	store := run(t, c)
	eventually(t, "all kinds synced", store.AllSynced)
	api.Stop()
	eventually(t, "the loss noticed", func() bool { return c.Unreachable() != nil })
	time.Sleep(time.Second) // a few attempts more
	if ip(store, "web") != "10.96.0.20" || ip(store, "old") != "10.96.0.21" || !store.AllSynced() {
		t.Error("a lost API server changed the store")
	}
	api.Set("services", service("web", "10.96.0.22"))
	api.Delete("services", service("old", "10.96.0.21"))
	api.Start()
	eventually(t, "changes of meanwhile", func() bool { return ip(store, "web") == "10.96.0.22" && ip(store, "old") == "" })
	eventually(t, "the server answers", func() bool { return c.Unreachable() == nil })
	for sentence, want := range map[string]int{"does not answer": 1, "answers again": 1, "level=ERROR": 0} {
		if got := log.count(sentence); got != want {
			t.Errorf("%q was logged %d times, want %d:\n%s", sentence, got, want, log.text.String())
		}
	}
}

// What a node may not read keeps its kind from syncing, and is told once with the remedy.
func TestRefused(t *testing.T) {
	api := informerstest.New(t)
	api.Refuse("endpointslices")
	c, log := client(t, api)
	store := run(t, c)
	eventually(t, "the refusal told", func() bool { return log.count("deploy/middleway.yaml") == 1 })
	eventually(t, "the others synced", func() bool { return store.Synced(object.Services) && store.Synced(object.Nodes) })
	if store.AllSynced() {
		t.Error("a kind is synced that could not be read")
	}
}

// An object with a mistake is taken without it, and told once for each state of it.
func TestMistakeInAnObject(t *testing.T) {
	api := informerstest.New(t)
	bad := service("bad", "10.96.0.23")
	bad.Spec.Ports[0].Port = 70000
	api.Set("services", bad)
	c, log := client(t, api)
	store := run(t, c)
	eventually(t, "the Service", func() bool { return ip(store, "bad") == "10.96.0.23" })
	again := bad.DeepCopy()
	again.Labels = map[string]string{"a": "b"}
	api.Set("services", again)
	api.Set("services", service("last", "10.96.0.24"))
	eventually(t, "the later Service", func() bool { return ip(store, "last") != "" })
	if got := log.count("service default/bad: spec.ports[0].port"); got != 1 {
		t.Errorf("the mistake was told %d times, want once:\n%s", got, log.text.String())
	}
}

func TestNodeWaitsForItsRange(t *testing.T) {
	api := informerstest.New(t)
	c, log := client(t, api)
	got := make(chan *object.Node, 1)
	go func() {
		n, err := c.Node(t.Context(), func(waits string) { c.config.Logger.Info(waits) })
		if err != nil {
			t.Error(err)
		}
		got <- n
	}()
	eventually(t, "a sentence about the missing object", func() bool { return log.count("waiting for the Node object node-1") == 1 })
	api.Set("nodes", node())
	eventually(t, "a sentence about the missing range", func() bool { return log.count("waiting for a pod range of node node-1") == 1 })
	api.Set("nodes", node("10.244.1.0/24"))
	if n := <-got; len(n.PodCIDRs) != 1 || n.PodCIDRs[0] != netip.MustParsePrefix("10.244.1.0/24") {
		t.Errorf("got %+v", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	api.Set("nodes", node())
	if _, err := c.Node(ctx, func(string) {}); err == nil {
		t.Error("an ended wait returned no error")
	}
}

func TestAnnounce(t *testing.T) {
	api := informerstest.New(t)
	c, _ := client(t, api)
	if err := c.Announce(t.Context(), nil); err == nil {
		t.Error("announcing a node that is not there succeeded")
	}
	api.Set("nodes", node("10.244.1.0/24"))
	if err := c.Announce(t.Context(), map[string]string{"middleway.net/tunnel": "1"}); err != nil {
		t.Fatal(err)
	}
	n := api.Object("nodes//node-1").(*corev1.Node)
	if n.Annotations["middleway.net/tunnel"] != "1" || len(n.Status.Conditions) != 1 || n.Status.Conditions[0].Type != "NetworkUnavailable" || n.Status.Conditions[0].Status != "False" {
		t.Errorf("annotations %v, conditions %v", n.Annotations, n.Status.Conditions)
	}
	if want := "PATCH /api/v1/nodes/node-1/status "; !slices.Contains(api.Requests(), want) {
		t.Errorf("requests %q, want %q", api.Requests(), want)
	}
}

func TestConfig(t *testing.T) {
	api := informerstest.New(t)
	c, _ := client(t, api)
	ok := c.config
	for _, row := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"no file", func(c *Config) { c.Kubeconfig = "/nonexistent" }, "kubernetes.kubeconfig: /nonexistent"},
		{"not in a pod", func(c *Config) { c.Kubeconfig = "" }, "kubernetes.inCluster"},
		{"a Service's address", func(c *Config) {
			c.Server, c.ServiceCIDRs = "https://10.96.0.1:443", []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}
		}, "kubernetes.server: 10.96.0.1 is the address of a Service"},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := ok
			row.change(&c)
			if _, err := New(c); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want %q", err, row.want)
			}
		})
	}
}
