package informers

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/middleway-net/middleway/k8s"
	"github.com/middleway-net/middleway/k8s/object"
)

// apiServer is a small API server of the five kinds, which streams lists (sendInitialEvents) as a real one does.
type apiServer struct {
	t        *testing.T
	addr     string
	server   *http.Server
	refuse   string // kind that nobody may ask for
	requests []string

	mu      sync.Mutex                // guards the following
	objects map[string]runtime.Object // by "kind/namespace/name"
	version int
	streams map[chan event]string // kind
}

// event is one of a watch.
type event struct {
	Type   string         `json:"type"`
	Object runtime.Object `json:"object"`
}

func newAPIServer(t *testing.T) *apiServer {
	s := &apiServer{t: t, addr: "127.0.0.1:0", objects: map[string]runtime.Object{}, streams: map[chan event]string{}}
	s.start()
	t.Cleanup(s.stop)
	return s
}

func (s *apiServer) start() {
	l, err := net.Listen("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.addr = l.Addr().String()
	s.server = &http.Server{Handler: s}
	go func() { _ = s.server.Serve(l) }()
}

func (s *apiServer) stop() { _ = s.server.Close() }

func (s *apiServer) set(kind string, o runtime.Object) { s.change(kind, o, false) }
func (s *apiServer) delete(kind string, o runtime.Object) {
	s.change(kind, o, true)
}

func (s *apiServer) change(kind string, o runtime.Object, gone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := o.(metav1.Object)
	key := kind + "/" + m.GetNamespace() + "/" + m.GetName()
	_, was := s.objects[key]
	s.version++
	m.SetResourceVersion(fmt.Sprint(s.version))
	e := event{"ADDED", o}
	if was {
		e.Type = "MODIFIED"
	}
	s.objects[key] = o
	if gone {
		e.Type = "DELETED"
		delete(s.objects, key)
	}
	for stream, of := range s.streams {
		if of == kind {
			stream <- e
		}
	}
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	kind := parts[len(parts)-1]
	s.mu.Lock()
	s.requests = append(s.requests, r.Method+" "+r.URL.Path+" "+r.URL.Query().Get("fieldSelector"))
	refuse := s.refuse
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	switch {
	case kind == refuse:
		w.WriteHeader(http.StatusForbidden)
		_ = json.NewEncoder(w).Encode(metav1.Status{Status: "Failure", Reason: metav1.StatusReasonForbidden, Code: 403, Message: kind + " is forbidden"})
	case r.URL.Query().Get("watch") != "":
		s.watch(w, r, kind)
	case r.Method == http.MethodPatch:
		s.patch(w, r, parts[len(parts)-2])
	case r.Method == http.MethodPost:
		s.create(w, r)
	case len(parts) == 6: // /api/v1/namespaces/NAMESPACE/KIND/NAME
		s.get(w, parts[4]+"/"+parts[3]+"/"+parts[5])
	default:
		s.get(w, "nodes//"+kind)
	}
}

// watch streams what there is, the mark of its end, and what changes.
func (s *apiServer) watch(w http.ResponseWriter, r *http.Request, kind string) {
	stream := make(chan event, 100)
	s.mu.Lock()
	if r.URL.Query().Get("sendInitialEvents") == "true" {
		for _, key := range slices.Sorted(maps.Keys(s.objects)) {
			if strings.HasPrefix(key, kind+"/") {
				stream <- event{"ADDED", s.objects[key]}
			}
		}
		mark := bookmark(kind)
		mark.(metav1.Object).SetResourceVersion(fmt.Sprint(s.version))
		mark.(metav1.Object).SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
		stream <- event{"BOOKMARK", mark}
	} else if r.URL.Query().Get("resourceVersion") != fmt.Sprint(s.version) { // it keeps no history
		stream <- event{"ERROR", &metav1.Status{Status: "Failure", Reason: metav1.StatusReasonExpired, Code: 410, TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}}}
	}
	s.streams[stream] = kind
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.streams, stream)
		s.mu.Unlock()
	}()
	for {
		select {
		case <-r.Context().Done():
			return
		case e := <-stream:
			if json.NewEncoder(w).Encode(e) != nil {
				return
			}
			w.(http.Flusher).Flush()
		}
	}
}

// bookmark returns an empty object of a kind, as its place in a stream is marked.
func bookmark(kind string) runtime.Object {
	core := func(kind string) metav1.TypeMeta { return metav1.TypeMeta{APIVersion: "v1", Kind: kind} }
	switch kind {
	case "nodes":
		return &corev1.Node{TypeMeta: core("Node")}
	case "namespaces":
		return &corev1.Namespace{TypeMeta: core("Namespace")}
	case "pods":
		return &corev1.Pod{TypeMeta: core("Pod")}
	case "services":
		return &corev1.Service{TypeMeta: core("Service")}
	}
	return &discoveryv1.EndpointSlice{TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"}}
}

// patch takes a node's annotations.
func (s *apiServer) patch(w http.ResponseWriter, r *http.Request, name string) {
	var patch corev1.Node
	body, _ := io.ReadAll(r.Body)
	if err := json.Unmarshal(body, &patch); err != nil || r.Header.Get("Content-Type") != "application/strategic-merge-patch+json" {
		http.Error(w, "bad patch", http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	n, ok := s.objects["nodes//"+name].(*corev1.Node)
	s.mu.Unlock()
	if !ok {
		http.Error(w, "no such node", http.StatusNotFound)
		return
	}
	n = n.DeepCopy()
	n.Annotations, n.Status.Conditions = patch.Annotations, patch.Status.Conditions
	s.set("nodes", n)
	_ = json.NewEncoder(w).Encode(n)
}

func (s *apiServer) get(w http.ResponseWriter, key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.objects[key]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		_ = json.NewEncoder(w).Encode(metav1.Status{Status: "Failure", Reason: metav1.StatusReasonNotFound, Code: 404})
		return
	}
	_ = json.NewEncoder(w).Encode(n)
}

// create takes an Event, as client-go writes it: in protobuf, behind four bytes that say so.
func (s *apiServer) create(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var sent runtime.Unknown
	e := &corev1.Event{}
	if len(body) < 4 || sent.Unmarshal(body[4:]) != nil || e.Unmarshal(sent.Raw) != nil {
		http.Error(w, "bad event", http.StatusBadRequest)
		return
	}
	s.set("events", e)
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(e)
}

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

func (s *apiServer) client(t *testing.T) (*Client, *logged) {
	t.Helper()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	text := `{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}],
clusters: [{name: c, cluster: {server: "http://` + s.addr + `"}}], users: [{name: u, user: {}}]}`
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
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
	api := newAPIServer(t)
	api.set("services", service("web", "10.96.0.20"))
	api.set("services", service("old", "10.96.0.21"))
	api.set("nodes", node("10.244.1.0/24"))
	c, _ := api.client(t)
	store := run(t, c)
	eventually(t, "all kinds synced", store.AllSynced)
	if got := ip(store, "web"); got != "10.96.0.20" || len(store.Nodes()) != 1 {
		t.Errorf("web has %q, nodes %v", got, store.Nodes())
	}
	api.set("services", service("web", "10.96.0.22"))
	api.delete("services", service("old", "10.96.0.21"))
	eventually(t, "a change and a deletion", func() bool { return ip(store, "web") == "10.96.0.22" && ip(store, "old") == "" })
	api.mu.Lock()
	defer api.mu.Unlock()
	if want := "GET /api/v1/pods spec.nodeName=node-1"; !slices.Contains(api.requests, want) {
		t.Errorf("requests %q, want %q: other nodes' pods are not asked for", api.requests, want)
	}
}

// A server that goes away changes nothing, and is told in one sentence, however often it is tried; when it is back what changed
// meanwhile is in the store.
func TestServerGoesAndComes(t *testing.T) {
	api := newAPIServer(t)
	api.set("services", service("web", "10.96.0.20"))
	api.set("services", service("old", "10.96.0.21"))
	c, log := api.client(t)
	store := run(t, c)
	eventually(t, "all kinds synced", store.AllSynced)
	api.stop()
	eventually(t, "the loss noticed", func() bool { return c.Unreachable() != nil })
	time.Sleep(time.Second) // a few attempts more
	if ip(store, "web") != "10.96.0.20" || ip(store, "old") != "10.96.0.21" || !store.AllSynced() {
		t.Error("a lost API server changed the store")
	}
	api.set("services", service("web", "10.96.0.22"))
	api.delete("services", service("old", "10.96.0.21"))
	api.start()
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
	api := newAPIServer(t)
	api.refuse = "endpointslices"
	c, log := api.client(t)
	store := run(t, c)
	eventually(t, "the refusal told", func() bool { return log.count("deploy/middleway.yaml") == 1 })
	eventually(t, "the others synced", func() bool { return store.Synced(object.Services) && store.Synced(object.Nodes) })
	if store.AllSynced() {
		t.Error("a kind is synced that could not be read")
	}
}

// An object with a mistake is taken without it, and told once for each state of it.
func TestMistakeInAnObject(t *testing.T) {
	api := newAPIServer(t)
	bad := service("bad", "10.96.0.23")
	bad.Spec.Ports[0].Port = 70000
	api.set("services", bad)
	c, log := api.client(t)
	store := run(t, c)
	eventually(t, "the Service", func() bool { return ip(store, "bad") == "10.96.0.23" })
	again := bad.DeepCopy()
	again.Labels = map[string]string{"a": "b"}
	api.set("services", again)
	api.set("services", service("last", "10.96.0.24"))
	eventually(t, "the later Service", func() bool { return ip(store, "last") != "" })
	if got := log.count("service default/bad: spec.ports[0].port"); got != 1 {
		t.Errorf("the mistake was told %d times, want once:\n%s", got, log.text.String())
	}
}

func TestNodeWaitsForItsRange(t *testing.T) {
	api := newAPIServer(t)
	c, log := api.client(t)
	got := make(chan *object.Node, 1)
	go func() {
		n, err := c.Node(t.Context())
		if err != nil {
			t.Error(err)
		}
		got <- n
	}()
	eventually(t, "a sentence about the missing object", func() bool { return log.count("waiting for the Node object node-1") == 1 })
	api.set("nodes", node())
	eventually(t, "a sentence about the missing range", func() bool { return log.count("waiting for a pod range of node node-1") == 1 })
	api.set("nodes", node("10.244.1.0/24"))
	if n := <-got; len(n.PodCIDRs) != 1 || n.PodCIDRs[0] != netip.MustParsePrefix("10.244.1.0/24") {
		t.Errorf("got %+v", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	api.set("nodes", node())
	if _, err := c.Node(ctx); err == nil {
		t.Error("an ended wait returned no error")
	}
}

func TestAnnounce(t *testing.T) {
	api := newAPIServer(t)
	c, _ := api.client(t)
	if err := c.Announce(t.Context(), nil); err == nil {
		t.Error("announcing a node that is not there succeeded")
	}
	api.set("nodes", node("10.244.1.0/24"))
	if err := c.Announce(t.Context(), map[string]string{"middleway.net/tunnel": "1"}); err != nil {
		t.Fatal(err)
	}
	n := api.objects["nodes//node-1"].(*corev1.Node)
	if n.Annotations["middleway.net/tunnel"] != "1" || len(n.Status.Conditions) != 1 || n.Status.Conditions[0].Type != "NetworkUnavailable" || n.Status.Conditions[0].Status != "False" {
		t.Errorf("annotations %v, conditions %v", n.Annotations, n.Status.Conditions)
	}
	if want := "PATCH /api/v1/nodes/node-1/status "; !slices.Contains(api.requests, want) {
		t.Errorf("requests %q, want %q", api.requests, want)
	}
}

func TestConfig(t *testing.T) {
	api := newAPIServer(t)
	c, _ := api.client(t)
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
