package check

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/middleway-net/middleway/cluster"
	"github.com/middleway-net/middleway/cluster/clustertest"
	"github.com/middleway-net/middleway/cluster/probe"
)

// world is a cluster whose pods answer as if all worked, but for what is broken.
type world struct {
	t      *testing.T
	server *clustertest.Server
	api    *cluster.API
	// broken returns what goes wrong when a pod on a node asks; "" for nothing.
	broken func(node, pod string, q probe.Question) string
	// silent are nodes whose daemons do not answer.
	silent []string
}

func newWorld(t *testing.T, nodes int) *world {
	w := &world{t: t, server: clustertest.New(t, nodes), broken: func(string, string, probe.Question) string { return "" }}
	w.server.Run = w.run
	w.api = w.server.API(t)
	return w
}

func (w *world) check(ctx context.Context, c Config) (*Report, error) {
	c.API, c.Timeout = w.api, time.Second
	if c.Patience == 0 {
		c.Patience = time.Second
	}
	return Run(ctx, c)
}

// run is what happens in a container.
func (w *world) run(ctx context.Context, c cluster.Container, argv []string, in io.Reader, out, _ io.Writer) error {
	if c.Namespace == "middleway" {
		node := "node-" + strings.TrimPrefix(c.Pod, "middleway-")
		if slices.Contains(w.silent, node) {
			return errors.New("command ended with exit code 1")
		}
		_, err := io.WriteString(out, `{"tunnel": {"port": 8472}, "peers": [{"name": "node-2", "state": "down", "since": "2026-01-02T03:04:05Z", "why": "no answer"}]}`)
		return err
	}
	if !slices.Equal(argv[1:], []string{"tool", "probe"}) {
		return fmt.Errorf("unexpected command %q", argv)
	}
	var plan probe.Plan
	if err := json.NewDecoder(in).Decode(&plan); err != nil {
		return err
	}
	pods := w.stagePods(c.Namespace)
	for _, q := range plan.Questions {
		a := w.answer(pods, pods[c.Pod], q)
		if err := json.NewEncoder(out).Encode(a); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// stagePods reads the pods of a namespace, by their names.
func (w *world) stagePods(namespace string) map[string]corev1.Pod {
	var list corev1.PodList
	if err := w.api.Get(context.Background(), "/api/v1/namespaces/"+namespace+"/pods", nil, &list); err != nil {
		w.t.Error(err)
	}
	pods := map[string]corev1.Pod{}
	for _, p := range list.Items {
		pods[p.Name] = p
	}
	return pods
}

func (w *world) answer(pods map[string]corev1.Pod, from corev1.Pod, q probe.Question) probe.Answer {
	if why := w.broken(from.Spec.NodeName, from.Name, q); why != "" {
		return probe.Answer{ID: q.ID, Error: why, Tries: 3}
	}
	own := netip.MustParseAddr(from.Status.PodIPs[0].IP)
	a := probe.Answer{ID: q.ID, Took: time.Millisecond, Tries: 1, Seen: netip.AddrPortFrom(own, 40000), MTU: 1450, Whole: 1450, Status: 200}
	if to, err := netip.ParseAddrPort(q.To); err == nil {
		a.Hosts = []string{w.whoAnswers(pods, from, to)}
	}
	if q.Kind == probe.DNS {
		a.Records = w.records(from.Namespace, pods, q)
	}
	return a
}

// whoAnswers is the pod behind an address. A Service leads to the pod that asks, if it has one, and a node's ports to its pod.
func (w *world) whoAnswers(pods map[string]corev1.Pod, from corev1.Pod, to netip.AddrPort) string {
	node := from.Spec.NodeName
	for _, p := range pods {
		if p.Status.PodIPs[0].IP == to.Addr().String() {
			if p.Labels["app"] == netPods {
				return p.Name
			}
			node = p.Spec.NodeName
		}
	}
	for _, p := range pods {
		if p.Spec.NodeName == node && p.Labels["app"] == netPods {
			return p.Name
		}
	}
	return ""
}

func (w *world) records(namespace string, pods map[string]corev1.Pod, q probe.Question) (records []string) {
	switch {
	case q.Type == "PTR":
		return []string{"web." + namespace + ".svc.cluster.local."}
	case strings.Contains(q.To, "headless"):
		for _, p := range pods {
			if p.Labels["app"] == netPods && p.Status.Conditions[0].Status == "True" {
				records = append(records, p.Status.PodIPs[0].IP)
			}
		}
		return records
	}
	var s corev1.Service
	if err := w.api.Get(context.Background(), "/api/v1/namespaces/"+namespace+"/services/web", nil, &s); err != nil {
		w.t.Error(err)
	}
	return []string{s.Spec.ClusterIP}
}

// namespaces are those of the cluster but the first ones.
func (w *world) namespaces() []string { return w.server.Names("/api/v1/namespaces") }

func verdict(r *Report, name string) (c Check) {
	for _, c := range r.Checks {
		if c.Name == name {
			return *c
		}
	}
	return Check{State: "absent"}
}

func TestEverythingWorks(t *testing.T) {
	w := newWorld(t, 3)
	r, err := w.check(t.Context(), Config{Outside: []string{"192.0.2.1:443"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range r.Checks {
		if c.State != OK {
			t.Errorf("%s: %s %v, want ok", c.Name, c.State, c.Failures)
		}
	}
	if !r.Passed || len(r.Checks) < 30 || len(r.Notes) > 0 {
		t.Errorf("passed %v, %d checks, notes %q", r.Passed, len(r.Checks), r.Notes)
	}
	for name, want := range map[string]int{
		"pod → pod on the same node, TCP": 3, "pod → pod on another node, UDP": 6, "node → pod, TCP": 9, betweenNodes: 6, "pod → 192.0.2.1:443": 3,
	} {
		if got := verdict(r, name).Asked; got != want {
			t.Errorf("%s: %d questions, want %d", name, got, want)
		}
	}
	if left := w.namespaces(); len(left) > 0 {
		t.Errorf("namespaces %q are left", left)
	}
}

// A node that has flannel in the place of middleway is checked like the others, and is no failure for having no daemon.
func TestNodeWithFlannel(t *testing.T) {
	const manager = "flannel.alpha.coreos.com/kube-subnet-manager"
	for _, row := range []struct {
		name        string
		annotations clustertest.Object
		state       State
		asked       int
	}{
		{"flannel", clustertest.Object{manager: "true"}, OK, 3},
		{"middleway, whose pod has gone", clustertest.Object{manager: "true", "middleway.net/tunnel": "1"}, Failed, 4},
		{"no network yet", nil, Failed, 4},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newWorld(t, 3)
			w.server.Put("/api/v1/nodes/node-4", clustertest.Object{
				"metadata": clustertest.Object{"name": "node-4", "labels": clustertest.Object{corev1.LabelOSStable: "linux"}, "annotations": row.annotations},
				"status": clustertest.Object{
					"addresses":  []any{clustertest.Object{"type": "InternalIP", "address": "192.168.254.14"}},
					"conditions": []any{clustertest.Object{"type": "Ready", "status": "True"}},
				},
			})
			r, err := w.check(t.Context(), Config{})
			if err != nil {
				t.Fatal(err)
			}
			if c := verdict(r, daemonAnswers); c.State != row.state || c.Asked != row.asked {
				t.Errorf("daemons: %s %v, asked %d; want %s, asked %d", c.State, c.Failures, c.Asked, row.state, row.asked)
			}
			if got := verdict(r, "pod → pod on another node, TCP").Asked; got != 12 {
				t.Errorf("%d questions between nodes, want 12", got)
			}
			if noted := slices.ContainsFunc(r.Notes, func(n string) bool { return strings.Contains(n, "node-4 has flannel") }); noted != (row.state == OK) {
				t.Errorf("notes %q", r.Notes)
			}
		})
	}
}

// Every node asks a few, and every node is asked by a few.
func TestTargets(t *testing.T) {
	w := newWorld(t, 7)
	r, err := w.check(t.Context(), Config{Targets: 3})
	if err != nil {
		t.Fatal(err)
	}
	c := verdict(r, "pod → pod on another node, TCP")
	to := map[string]int{}
	for _, p := range c.pairs {
		to[p.to]++
	}
	if c.Asked != 14 || len(to) != 7 || to["node-1"] != 2 {
		t.Errorf("%d questions, to %v, want 14, two to each node", c.Asked, to)
	}
	if len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "--targets 7") {
		t.Errorf("notes %q, want one of --targets", r.Notes)
	}
}

func TestFailures(t *testing.T) {
	toPods := func(q probe.Question) bool { return strings.HasPrefix(q.To, "10.244.") }
	for _, tt := range []struct {
		name    string
		broken  func(node, pod string, q probe.Question) string
		silent  []string
		failed  string // a check
		from    string // the first failure's node
		next    string // what it says to look at
		stillOK string // a check
	}{
		{
			"the tunnel to node-2",
			func(node, pod string, q probe.Question) string {
				if node == "node-1" && strings.HasPrefix(q.To, "10.244.2.") {
					return "no answer"
				}
				return ""
			}, nil, "pod → pod on another node, UDP", "node-1", "is UDP port 8472 open", betweenNodes,
		},
		{
			"the nodes' own network",
			func(node, _ string, q probe.Question) string {
				if node == "node-1" && (strings.HasPrefix(q.To, "10.244.2.") || strings.HasPrefix(q.To, "192.168.254.12:")) {
					return "no answer"
				}
				return ""
			}, nil, "pod → pod on another node, TCP", "node-1", "without the pod network either", "pod → pod on the same node, TCP",
		},
		{
			"large packets",
			func(_, _ string, q probe.Question) string {
				if q.Kind == probe.Path && toPods(q) {
					return "packets of 1450 bytes get lost, and nobody says so"
				}
				return ""
			}, nil, "pod → pod on another node, largest packets", "node-1", "small packets pass", "pod → pod on another node, UDP",
		},
		{
			"names",
			func(_, _ string, q probe.Question) string {
				if q.Kind == probe.DNS {
					return "no answer"
				}
				return ""
			}, nil, "pod asks for a Service by its name, completed", "node-1", "clusterDNS", "pod → ClusterIP, UDP",
		},
		{
			"a daemon", func(node, _ string, q probe.Question) string {
				if node == "node-2" && strings.HasPrefix(q.To, "10.96.") {
					return "no answer"
				}
				return ""
			}, []string{"node-2"}, "pod → ClusterIP, TCP", "node-2", "the daemon of node-2 does not answer", "node → pod, TCP",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, 3)
			w.broken, w.silent = tt.broken, tt.silent
			r, err := w.check(t.Context(), Config{})
			if err != nil {
				t.Fatal(err)
			}
			c := verdict(r, tt.failed)
			if r.Passed || c.State != Failed || c.Failures[0].From != tt.from || !strings.Contains(strings.Join(c.Next, " "), tt.next) {
				t.Errorf("got %s, failures %v, next %q; want failed from %s, next with %q", c.State, c.Failures, c.Next, tt.from, tt.next)
			}
			if got := verdict(r, tt.stillOK); got.State != OK {
				t.Errorf("%s: got %s, want ok", tt.stillOK, got.State)
			}
		})
	}
}

// Whose address the server saw, and who answered, are looked at, not only that somebody did.
func TestWrongAnswers(t *testing.T) {
	pod := probe.Answer{Hosts: []string{"net-2"}, Seen: netip.MustParseAddrPort("192.168.254.11:1"), Records: []string{"10.96.0.1"}}
	for name, err := range map[string]error{
		"another pod":        answeredBy("net-1")(pod),
		"another address":    seenAs([]netip.Addr{netip.MustParseAddr("10.244.1.2")})(pod),
		"none of the pods":   answeredByOneOf([]string{"net-1", "net-3"})(pod),
		"another record":     theRecords("10.96.0.2")(pod),
		"one record missing": theRecords("10.96.0.1", "10.96.0.2")(pod),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	for name, err := range map[string]error{
		"the pod":         answeredBy("net-2")(pod),
		"its address":     seenAs([]netip.Addr{netip.MustParseAddr("192.168.254.11")})(pod),
		"one of the pods": answeredByOneOf([]string{"net-1", "net-2"})(pod),
		"the record":      theRecords("10.96.0.1")(pod),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A node whose pods do not start is told with the reason, and the others are checked.
func TestPodsThatDoNotStart(t *testing.T) {
	w := newWorld(t, 3)
	w.server.Unready = []string{"node-3"}
	r, err := w.check(t.Context(), Config{Patience: 600 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	c := verdict(r, "a pod starts")
	if c.State != Failed || c.Answered != 2 || !strings.Contains(c.Failures[0].Error, "ImagePullBackOff: no such image") {
		t.Errorf("got %s, %d of %d, %v", c.State, c.Answered, c.Asked, c.Failures)
	}
	if got := verdict(r, "pod → pod on another node, TCP"); got.State != OK || got.Asked != 2 {
		t.Errorf("pods on the others: got %s, %d questions, want ok, 2", got.State, got.Asked)
	}
}

func TestInterrupted(t *testing.T) {
	w := newWorld(t, 2)
	ctx, cancel := context.WithCancel(t.Context())
	w.broken = func(string, string, probe.Question) string { cancel(); return "" }
	if _, err := w.check(ctx, Config{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that it was interrupted", err)
	}
	if left := w.namespaces(); len(left) > 0 {
		t.Errorf("namespaces %q are left", left)
	}
}

func TestLeftovers(t *testing.T) {
	w := newWorld(t, 1)
	at := func(name string, age time.Duration, labels clustertest.Object) {
		labels["app.kubernetes.io/name"] = Prefix
		w.server.Put("/api/v1/namespaces/"+name, clustertest.Object{"metadata": clustertest.Object{
			"name": name, "creationTimestamp": time.Now().Add(-age).UTC().Format(time.RFC3339), "labels": labels,
		}})
	}
	at("middleway-check-old", 2*time.Hour, clustertest.Object{})
	at("middleway-check-new", time.Minute, clustertest.Object{})
	at("middleway-check-kept", 2*time.Hour, clustertest.Object{"middleway.net/keep": "true"})
	at("shop", 2*time.Hour, clustertest.Object{}) // somebody else's, whatever its label
	r, err := w.check(t.Context(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := w.namespaces(), []string{"middleway-check-kept", "middleway-check-new", "shop"}; !slices.Equal(got, want) || len(r.Notes) != 3 {
		t.Errorf("namespaces %q, want %q; notes %q", got, want, r.Notes)
	}
	names, err := Cleanup(t.Context(), w.api)
	if got := w.namespaces(); err != nil || len(names) != 2 || !slices.Equal(got, []string{"shop"}) {
		t.Errorf("cleanup: %q, %v, left %q", names, err, got)
	}
}

func TestKeep(t *testing.T) {
	w := newWorld(t, 1)
	r, err := w.check(t.Context(), Config{Keep: true})
	if got := w.namespaces(); err != nil || !slices.Equal(got, []string{r.Namespace}) {
		t.Errorf("got %q, %v, want %s", got, err, r.Namespace)
	}
}

func TestForbidden(t *testing.T) {
	w := newWorld(t, 1)
	w.server.Forbidden = []string{"daemonsets"}
	if _, err := w.check(t.Context(), Config{Image: "middleway:test"}); !errors.Is(err, cluster.ErrForbidden) || !strings.Contains(err.Error(), "docs/check.md") {
		t.Errorf("got %v, want one that names the manual", err)
	}
	if left := w.namespaces(); len(left) > 0 {
		t.Errorf("namespaces %q are left", left)
	}
}

func TestPrint(t *testing.T) {
	w := newWorld(t, 3)
	w.broken = func(node, _ string, q probe.Question) string {
		if node == "node-1" && strings.HasPrefix(q.To, "10.244.2.") {
			return "no answer"
		}
		return ""
	}
	r, err := w.check(t.Context(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := r.Print(&b, Style{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"3 nodes, image middleway:test",
		"  ok       pod → pod on the same node, TCP, IPv4",
		"  FAILED   pod → pod on another node, TCP, IPv4",
		"5 of 6",
		" 1  node-1    .  X  .", // a matrix
		"node-1 → node-2: no answer",
		"is UDP port 8472 open",
		"  skipped  pod → outside of the cluster: --outside HOST:PORT says what to reach there",
		"\nFAILED  ",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in\n%s", want, b.String())
		}
	}
}
