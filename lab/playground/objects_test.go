package playground

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/middleway-net/middleway/lab/control"
)

const shop = `apiVersion: v1
kind: Service
metadata: {name: shop}
spec: {selector: {app: shop}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      containers:
      - name: main
        command: [sleep, "1000"]
        ports: [{name: http, containerPort: 80}]
        readinessProbe: {exec: {command: ["true"]}, periodSeconds: 1}
`

// served are the requests of a client to a cluster.
type served struct {
	*testing.T
	dir string
}

func (s served) list(q control.Query) []control.Object {
	s.Helper()
	objects, err := List(s.Context(), s.dir, q)
	if err != nil {
		s.Fatal(err)
	}
	return objects
}

// endpoints returns the ready ones of a Service.
func (s served) endpoints(service string) (ready []string) {
	s.Helper()
	for _, o := range s.list(control.Query{Kind: "endpointslices", Namespace: "default", Selector: discoveryv1.LabelServiceName + "=" + service}) {
		for _, e := range o.(*discoveryv1.EndpointSlice).Endpoints {
			if *e.Conditions.Ready {
				ready = append(ready, e.Addresses[0])
			}
		}
	}
	return ready
}

func (s served) eventually(what string, ok func() bool) {
	s.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			s.Fatalf("not within 30 s: %s", what)
		}
	}
}

// Objects are applied, shown, scaled, watched and deleted over the control socket, and pods follow them.
func TestObjects(t *testing.T) {
	s := served{t, filepath.Join(t.TempDir(), "up")}
	c, err := New(t.Context(), Config{Pods: parse(t, sleeper), Dir: s.dir, Zones: []string{"a", "b"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	nodes := s.list(control.Query{Kind: "no"})
	if len(nodes) != 2 || nodes[1].GetLabels()[corev1.LabelTopologyZone] != "b" || nodes[0].(*corev1.Node).Status.Addresses[0].Address != "192.168.254.11" {
		t.Errorf("got %v", nodes)
	}
	// A watch sees what comes.
	watching, stop := context.WithCancel(t.Context())
	seen := make(chan string, 100)
	ended := make(chan error, 1)
	go func() {
		ended <- Watch(watching, s.dir, control.Query{Kind: "deployments"}, func(e control.Event) error {
			seen <- string(e.Type) + " " + e.Object.GetName()
			return nil
		})
	}()
	r, err := Apply(t.Context(), s.dir, control.ApplyRequest{Files: []control.File{{Name: "shop.yaml", Text: []byte(shop)}}})
	if err != nil || len(r.Applied) != 2 || r.Applied[1].Outcome != control.Created || r.Applied[1].Ref.String() != "deployment.apps/shop" {
		t.Errorf("apply: got %+v, %v", r, err)
	}
	if first := <-seen; first != "ADDED shop" && first != "MODIFIED shop" {
		t.Errorf("watch: got %s", first)
	}
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("watch: got %v", err)
	}
	s.eventually("both pods are endpoints", func() bool { return len(s.endpoints("shop")) == 2 })
	var told []control.Ref
	tell := func(r control.Ref) { told = append(told, r) }
	three := control.ScaleRequest{Query: control.Query{Kind: "deployment", Namespace: "default", Names: []string{"shop"}}, Replicas: 3}
	if err := Scale(t.Context(), s.dir, three, tell); err != nil || len(told) != 1 {
		t.Errorf("scale: got %v, %v", told, err)
	}
	s.eventually("a third pod is an endpoint", func() bool { return len(s.endpoints("shop")) == 3 })
	for _, o := range s.list(control.Query{Kind: "pods", Namespace: "default", Selector: "app=shop"}) {
		p := o.(*corev1.Pod)
		have := c.Pod("default", p.Name)
		if have == nil || have.uid != string(p.UID) || p.Spec.NodeName != have.node.Name() || p.Status.PodIP != have.Addrs()[0].String() || p.Status.Phase != corev1.PodRunning {
			t.Errorf("got %+v", p)
		}
	}
	err = Delete(t.Context(), s.dir, control.DeleteRequest{Files: []control.File{{Name: "shop.yaml", Text: []byte(shop)}}, Wait: true}, tell)
	if err != nil || fmt.Sprint(told[1:]) != "[deployment.apps/shop service/shop]" {
		t.Errorf("delete: got %v, %v", told, err)
	}
	s.eventually("their pods have gone", func() bool { return len(c.Pods()) == 1 })
	err = Delete(t.Context(), s.dir, control.DeleteRequest{Query: &control.Query{Kind: "pod", Namespace: "default", Names: []string{"web"}}, Wait: true, GracePeriod: new(int64)}, tell)
	if err != nil || len(c.Pods()) != 0 {
		t.Errorf("delete and wait: got %v, %d pods", err, len(c.Pods()))
	}
	if _, err := List(t.Context(), s.dir, control.Query{Kind: "pods", Namespace: "default", Names: []string{"web"}}); !apierrors.IsNotFound(err) || err.Error() != `pods "web" not found` {
		t.Errorf("got %v", err)
	}
	if _, err := Apply(t.Context(), s.dir, control.ApplyRequest{Files: []control.File{{Name: "x.yaml", Text: []byte("kind: Pod")}}}); err == nil || !strings.HasPrefix(err.Error(), "x.yaml, line 1, apiVersion:") {
		t.Errorf("got %v", err)
	}
}

// A container finds Services in its variables as they were at its start, and its own variables in their place.
func TestServiceVariables(t *testing.T) {
	r := run(t, shop, spec("client", sleeps), strings.Replace(spec("own", sleeps), "command:", `env: [{name: SHOP_SERVICE_HOST, value: mine}, {name: URL, value: "http://$(SHOP_SERVICE_HOST):$(SHOP_SERVICE_PORT)"}], command:`, 1),
		spec("without", "enableServiceLinks: false", sleeps))
	variables := func(pod string) []string {
		return slices.DeleteFunc(strings.Fields(r.sh(pod, "env | sort")), func(v string) bool {
			return !strings.HasPrefix(v, "SHOP_SERVICE") && !strings.HasPrefix(v, "KUBERNETES_SERVICE_HOST") && !strings.HasPrefix(v, "URL")
		})
	}
	for pod, want := range map[string]string{
		"client":  "KUBERNETES_SERVICE_HOST=10.96.0.1 SHOP_SERVICE_HOST=10.96.",
		"own":     "KUBERNETES_SERVICE_HOST=10.96.0.1 SHOP_SERVICE_HOST=mine SHOP_SERVICE_PORT=80 URL=http://mine:80",
		"without": "KUBERNETES_SERVICE_HOST=10.96.0.1",
	} {
		if got := strings.Join(variables(pod), " "); !strings.HasPrefix(got, want) || pod == "without" && got != want {
			t.Errorf("%s: got %s, want %s", pod, got, want)
		}
	}
}
