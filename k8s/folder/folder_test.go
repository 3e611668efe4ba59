package folder

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/middleway-net/middleway/k8s"
	"github.com/middleway-net/middleway/k8s/object"
)

func TestWriterAndSource(t *testing.T) {
	w, f := newWriter(t), newFixture(t)
	ready := true
	for _, o := range []any{
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Spec: corev1.NodeSpec{PodCIDRs: []string{"10.244.1.0/24"}}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}},
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web-1"}, Status: corev1.PodStatus{PodIPs: []corev1.PodIP{{IP: "10.244.1.2"}}}},
		newService("web", "10.96.0.20"),
		&discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: "web-x", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
			AddressType: discoveryv1.AddressTypeIPv4,
			Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"10.244.1.2"}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}},
		},
	} {
		must(t, w.Put(o))
	}
	must(t, w.Complete())
	f.run(w.dir)
	f.wait("synced", f.store.AllSynced)
	web, slices := f.store.Service(key("web"))
	if web == nil || len(slices) != 1 || len(slices[0].Endpoints) != 1 {
		t.Fatalf("got Service %v with slices %v, want one endpoint", web, slices)
	}
	want := &object.Node{Name: "n1", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}}
	if diff := cmp.Diff(want, f.store.Get(object.Nodes, object.Key{Name: "n1"}), cmp.Comparer(netipEqual)); diff != "" {
		t.Errorf("node (-want +got):\n%s", diff)
	}

	must(t, w.Put(newService("web", "10.96.0.21")))
	must(t, w.Put(inNamespace(newService("web", "10.96.0.22"), "other")))
	must(t, w.Delete(object.EndpointSlices, "default", "web-x"))
	f.wantIP("web", "10.96.0.21")
	f.wait("a Service in a new namespace", func() bool {
		return f.store.Get(object.Services, object.Key{Namespace: "other", Name: "web"}) != nil
	})
	f.wait("no slice", func() bool { return f.store.Len(object.EndpointSlices) == 0 })
	if told := f.told(); told != "" {
		t.Errorf("told %q, want nothing", told)
	}
}

func netipEqual(a, b netip.Prefix) bool { return a == b }

func TestWriterRefuses(t *testing.T) {
	w := newWriter(t)
	tests := []struct {
		name string
		api  any
		want string
	}{
		{"another kind", &corev1.Secret{}, "no place for a *v1.Secret"},
		{"nothing", nil, "no place for a <nil>"},
		{"no name", &corev1.Node{}, `"" is no name`},
		{"no namespace", inNamespace(newService("web", "10.96.0.1"), ""), `"" is no name`},
		{"a path", inNamespace(newService("web", "10.96.0.1"), "../x"), "is no name"},
		{"a namespace for a node", &corev1.Node{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "n1"}}, "in no namespace"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := w.Put(tt.api); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

// A writer goes on where a former one ended, and what that one had and it has not is gone with Complete.
func TestWriterTakesOver(t *testing.T) {
	w, f := newWriter(t), newFixture(t)
	must(t, w.Put(newService("web", "10.96.0.20")))
	must(t, w.Put(newService("old", "10.96.0.21")))
	must(t, w.Complete())
	f.run(w.dir)
	f.wantIP("old", "10.96.0.21")
	info, err := os.Stat(filepath.Join(w.dir, "services/default/web.json"))
	must(t, err)

	next, err := NewWriter(w.dir)
	must(t, err)
	must(t, next.Put(newService("web", "10.96.0.20")))
	must(t, next.Complete())
	f.wait("old gone", func() bool { return f.store.Get(object.Services, key("old")) == nil })
	f.wantIP("web", "10.96.0.20")
	if now, err := os.Stat(filepath.Join(w.dir, "services/default/web.json")); err != nil || !os.SameFile(info, now) {
		t.Errorf("a file that holds the same was written again (%v)", err)
	}
}

func TestSourceWaits(t *testing.T) {
	f := newFixture(t)
	dir := filepath.Join(t.TempDir(), "state")
	f.run(dir)
	time.Sleep(3 * settle)
	w, err := NewWriter(dir)
	must(t, err)
	must(t, w.Put(newService("web", "10.96.0.20")))
	time.Sleep(2 * poll)
	if f.store.Synced(object.Services) || f.store.Len(object.Services) != 0 {
		t.Error("an incomplete folder is in force")
	}
	must(t, w.Complete())
	f.wantIP("web", "10.96.0.20")
}

// What a folder that goes had stays in force until there is a complete one again.
func TestFolderMadeAnew(t *testing.T) {
	tests := []struct {
		name   string
		remove func(*Writer) error
	}{
		{"removed by its writer", (*Writer).Remove},
		{"renamed", func(w *Writer) error { return os.Rename(w.dir, w.dir+".old") }},
		{"without its marker", func(w *Writer) error { return os.Remove(filepath.Join(w.dir, marker)) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w, f := newWriter(t), newFixture(t)
			must(t, w.Put(newService("web", "10.96.0.20")))
			must(t, w.Put(newService("old", "10.96.0.21")))
			must(t, w.Complete())
			f.run(w.dir)
			f.wantIP("web", "10.96.0.20")

			must(t, tt.remove(w))
			next, err := NewWriter(w.dir)
			must(t, err)
			must(t, next.Put(newService("web", "10.96.0.30")))
			time.Sleep(2 * poll)
			f.wantIP("old", "10.96.0.21")
			must(t, next.Complete())
			f.wantIP("web", "10.96.0.30")
			f.wait("old gone", func() bool { return f.store.Get(object.Services, key("old")) == nil })
		})
	}
}

// A namespace's folder may be removed or renamed as a whole, and come back.
func TestNamespaceRemoved(t *testing.T) {
	w, f := newWriter(t), newFixture(t)
	must(t, w.Put(newService("web", "10.96.0.20")))
	must(t, w.Put(inNamespace(newService("web", "10.96.0.21"), "other")))
	must(t, w.Complete())
	f.run(w.dir)
	f.wantIP("web", "10.96.0.20")
	other := filepath.Join(w.dir, "services/other")
	must(t, os.Rename(other, filepath.Join(w.dir, ".other")))
	f.wait("namespace gone", func() bool { return f.store.Len(object.Services) == 1 })
	must(t, os.Rename(filepath.Join(w.dir, ".other"), other))
	f.wait("namespace back", func() bool { return f.store.Len(object.Services) == 2 })
	must(t, os.RemoveAll(other))
	f.wait("namespace gone again", func() bool { return f.store.Len(object.Services) == 1 })
}

// Others than the Writer do not write by renaming: a file may be half there, and one that is away for a moment is not gone.
func TestHalfWrittenAndVanishing(t *testing.T) {
	w, f := newWriter(t), newFixture(t)
	f.source.settle = time.Second // a busy machine may stop us in the midst of it
	must(t, w.Put(newService("web", "10.96.0.20")))
	must(t, w.Complete())
	f.run(w.dir)
	f.wantIP("web", "10.96.0.20")
	f.store.Take()
	file := filepath.Join(w.dir, "services/default/web.json")
	text, err := os.ReadFile(file)
	must(t, err)
	for range 20 {
		must(t, os.Remove(file))
		must(t, os.WriteFile(file, text[:len(text)/2], 0o600))
		must(t, os.WriteFile(file, text, 0o600))
	}
	time.Sleep(1500 * time.Millisecond)
	if c := f.store.Take(); len(c.Services) != 0 {
		t.Errorf("%v changed, want nothing", c.Services)
	}
	if told := f.told(); told != "" {
		t.Errorf("told %q, want nothing", told)
	}
}

func TestMistakes(t *testing.T) {
	tests := []struct {
		name, text, want string
	}{
		{"no JSON", "apiVersion: v1", "this is no Service"},
		{"half of it", `{"apiVersion": "v1", "kind": "Serv`, "unexpected end of JSON input"},
		{"another type", `{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"}, "spec": {"ports": [{"port": "http"}]}}`, "spec.ports.port"},
		{"another kind", `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "default"}}`, `kind: it is "Pod", but what lies here has "Service"`},
		{"no kind", `{"metadata": {"name": "web", "namespace": "default"}}`, `apiVersion: it is ""`},
		{"another name", `{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "shop", "namespace": "default"}}`, `metadata.name: it is "shop"`},
		{"another namespace", `{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "other"}}`, `metadata.namespace: it is "other"`},
		{"too large", strings.Repeat(" ", maxFile+1), "bytes are more"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w, f := newWriter(t), newFixture(t)
			must(t, w.Put(newService("web", "10.96.0.20")))
			must(t, w.Complete())
			f.run(w.dir)
			f.wantIP("web", "10.96.0.20")
			file := filepath.Join(w.dir, "services/default/web.json")
			for range 2 { // the second time it is not told again
				must(t, os.WriteFile(file+".new", []byte(tt.text), 0o600))
				must(t, os.Rename(file+".new", file))
				f.wait("a mistake told", func() bool { return f.told() != "" })
				time.Sleep(2 * settle)
			}
			told := f.told()
			if strings.Count(told, "\n") != 1 || !strings.Contains(strings.ReplaceAll(told, `\"`, `"`), tt.want) || !strings.Contains(told, file) {
				t.Errorf("told %q, want one line with %q and %q", told, file, tt.want)
			}
			f.wantIP("web", "10.96.0.20")
			must(t, w.Put(newService("web", "10.96.0.21")))
			f.wantIP("web", "10.96.0.21")
		})
	}
}

// A file that holds no object when the folder is read first keeps nothing else from being in force.
func TestMistakeAtTheStart(t *testing.T) {
	w, f := newWriter(t), newFixture(t)
	must(t, w.Put(newService("web", "10.96.0.20")))
	must(t, os.WriteFile(filepath.Join(w.dir, "services/default/bad.json"), []byte("{"), 0o600))
	must(t, os.WriteFile(filepath.Join(w.dir, marker), nil, 0o600))
	f.run(w.dir)
	f.wantIP("web", "10.96.0.20")
	f.wait("told", func() bool { return strings.Count(f.told(), "\n") == 1 })
	for _, want := range []string{"bad.json", "unexpected end of JSON input"} {
		if !strings.Contains(f.told(), want) {
			t.Errorf("told %q, want %q", f.told(), want)
		}
	}
	must(t, os.Remove(filepath.Join(w.dir, "services/default/bad.json")))
	must(t, w.Put(newService("bad", "10.96.0.21")))
	f.wantIP("bad", "10.96.0.21")
}

// Where the kernel does not tell of changes, the folder is read again and again.
func TestWithoutWatches(t *testing.T) {
	w, f := newWriter(t), newFixture(t)
	must(t, w.Put(newService("web", "10.96.0.20")))
	must(t, w.Put(newService("old", "10.96.0.21")))
	must(t, w.Complete())
	f.source.newWatcher = func() (*fsnotify.Watcher, error) { return nil, syscall.EMFILE }
	f.run(w.dir)
	f.wantIP("web", "10.96.0.20")
	must(t, w.Put(newService("web", "10.96.0.22")))
	must(t, w.Delete(object.Services, "default", "old"))
	must(t, os.WriteFile(filepath.Join(w.dir, "services/default/bad.json"), []byte("{"), 0o600))
	f.wantIP("web", "10.96.0.22")
	f.wait("old gone", func() bool { return f.store.Len(object.Services) == 1 })
	f.wait("told", func() bool { return strings.Contains(f.told(), "bad.json") })
	if told := f.told(); strings.Count(told, "\n") != 2 || !strings.Contains(told, "max_user_instances") {
		t.Errorf("told %q", told)
	}
}

// A field that is wrong by itself leaves out no more than what it says.
func TestPartOfAnObject(t *testing.T) {
	w, f := newWriter(t), newFixture(t)
	web := newService("web", "10.96.0.20")
	web.Spec.ClusterIPs = []string{"10.96.0.20", "fd00:10:96::zz"}
	must(t, w.Put(web))
	must(t, w.Complete())
	f.run(w.dir)
	f.wantIP("web", "10.96.0.20")
	want := `service default/web: spec.clusterIPs[1]: \"fd00:10:96::zz\" is no IP address, and is left out`
	if told := f.told(); strings.Count(told, "\n") != 1 || !strings.Contains(told, want) {
		t.Errorf("told %q, want one line with %q", told, want)
	}
}

func TestForeignFiles(t *testing.T) {
	w, f := newWriter(t), newFixture(t)
	must(t, w.Put(newService("web", "10.96.0.20")))
	must(t, w.Complete())
	f.run(w.dir)
	f.wantIP("web", "10.96.0.20")
	for _, rel := range []string{
		"README", "deployments/default/web.json", "services/web.json", "services/default/web.yaml", "services/default/.web.tmp",
		"services/default/deep/web.json", "services/.git/web.json", "nodes/default/n1.json",
	} {
		file := filepath.Join(w.dir, rel)
		must(t, os.MkdirAll(filepath.Dir(file), 0o700))
		must(t, os.WriteFile(file, []byte("no object"), 0o600))
	}
	must(t, w.Put(newService("last", "10.96.0.21")))
	f.wantIP("last", "10.96.0.21")
	time.Sleep(2 * settle)
	if told := f.told(); told != "" {
		t.Errorf("told %q, want nothing", told)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("services/default/web.json", []byte(`{"apiVersion":"v1","kind":"Service","metadata":{"name":"web","namespace":"default"},"spec":{"clusterIP":"10.96.0.20","ports":[{"port":80}]}}`))
	f.Add("endpointslices/default/web-x.json", []byte(`{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{"name":"web-x","namespace":"default","labels":{"kubernetes.io/service-name":"web"}},"addressType":"IPv4","endpoints":[{"addresses":["10.244.1.2"],"hints":{"forZones":[{"name":"a"}]}}],"ports":[{"name":"http","port":80}]}`))
	f.Add("nodes/n1.json", []byte(`{"apiVersion":"v1","kind":"Node","metadata":{"name":"n1"},"spec":{"podCIDR":"10.244.1.0/24"},"status":{"addresses":[{"type":"InternalIP","address":"192.168.254.11"}]}}`))
	f.Add("pods/default/web-1.json", []byte(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web-1","namespace":"default"},"status":{"podIP":"::ffff:10.244.1.2"}}`))
	f.Add("namespaces/default.json", []byte(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"default"}}`))
	f.Fuzz(func(t *testing.T, rel string, text []byte) {
		o, err := decode(rel, text)
		if o == nil {
			if err == nil {
				t.Fatal("neither object nor error")
			}
			return
		}
		if back, err := path(o.Kind(), o.Named()); err != nil || back != rel {
			t.Errorf("what was read from %q belongs to %q (%v)", rel, back, err)
		}
	})
}

// fixture is a Store that a Source fills.
type fixture struct {
	t      *testing.T
	store  *k8s.Store
	source Source
	log    lines
}

func newFixture(t *testing.T) *fixture { return &fixture{t: t, store: k8s.NewStore()} }

func (f *fixture) run(dir string) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	f.source.Dir, f.source.Log = dir, slog.New(slog.NewTextHandler(&f.log, nil))
	go func() {
		done <- f.source.Run(ctx, f.store)
	}()
	f.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			f.t.Error(err)
		}
	})
}

func (f *fixture) wait(what string, ok func() bool) {
	f.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatalf("%s: not within 10 s; told %q", what, f.told())
		}
	}
}

func (f *fixture) wantIP(service, ip string) {
	f.t.Helper()
	f.wait(service+" at "+ip, func() bool {
		s, _ := f.store.Service(key(service))
		return s != nil && len(s.ClusterIPs) == 1 && s.ClusterIPs[0] == netip.MustParseAddr(ip)
	})
}

func (f *fixture) told() string { return f.log.String() }

type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func newWriter(t *testing.T) *Writer {
	t.Helper()
	w, err := NewWriter(filepath.Join(t.TempDir(), "state"))
	must(t, err)
	return w
}

func key(name string) object.Key { return object.Key{Namespace: "default", Name: name} }

func newService(name, ip string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:       corev1.ServiceSpec{ClusterIP: ip, ClusterIPs: []string{ip}, Ports: []corev1.ServicePort{{Port: 80}}},
	}
}

func inNamespace(s *corev1.Service, namespace string) *corev1.Service {
	s.Namespace = namespace
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
