// Package clustertest is a cluster in the process of a test: an API server that keeps what it is given as it stands, and controllers as far
// as the commands for a cluster's owner wait for them. DaemonSets get a pod on each node, which is ready at once; Services get addresses, and
// EndpointSlices that name their pods. What runs in the pods is the test's matter.
package clustertest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"

	"github.com/middleway-net/middleway/cluster"
)

// Object is one in JSON.
type Object = map[string]any

// Server is a cluster. The fields are set before it is used.
type Server struct {
	// Run runs a command in a container, for API.Run.
	Run func(ctx context.Context, c cluster.Container, argv []string, in io.Reader, out, errs io.Writer) error
	// Forbidden are kinds that nobody may ask for.
	Forbidden []string
	// Texts are answers that are no objects, by path: logs.
	Texts map[string]string
	// Unready are nodes on which no pod becomes ready.
	Unready []string

	http *httptest.Server

	mu       sync.Mutex // guards the following
	objects  map[string]Object
	asked    []string // METHOD PATH
	services int
}

// New starts a cluster of nodes node-1, node-2, …, on which daemons run, that ends with the test.
func New(t testing.TB, nodes int) *Server {
	s := &Server{objects: map[string]Object{}, Texts: map[string]string{}}
	for i := range nodes {
		name := fmt.Sprintf("node-%d", i+1)
		s.Put("/api/v1/nodes/"+name, Object{
			"metadata": Object{"name": name, "labels": Object{corev1.LabelOSStable: "linux"}},
			"spec":     Object{"podCIDRs": []any{fmt.Sprintf("10.244.%d.0/24", i+1)}},
			"status": Object{
				"addresses":  []any{Object{"type": "InternalIP", "address": nodeIP(i)}},
				"conditions": []any{Object{"type": "Ready", "status": "True"}},
			},
		})
	}
	s.post("/apis/apps/v1/namespaces/middleway/daemonsets", Object{
		"metadata": Object{"name": "middleway", "labels": Object{"app": "middleway"}},
		"spec": Object{"template": Object{
			"metadata": Object{"labels": Object{"app": "middleway"}},
			"spec":     Object{"hostNetwork": true, "containers": []any{Object{"name": "node", "image": "middleway:test"}}},
		}},
	})
	s.http = httptest.NewServer(s)
	t.Cleanup(s.http.Close)
	return s
}

func nodeIP(i int) string { return fmt.Sprintf("192.168.254.%d", 11+i) }

// API is the cluster as commands see it.
func (s *Server) API(t testing.TB) *cluster.API {
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	c := &rest.Config{Host: s.http.URL, QPS: -1, APIPath: "/api", ContentConfig: rest.ContentConfig{
		GroupVersion: &schema.GroupVersion{Version: "v1"}, NegotiatedSerializer: serializer.NewCodecFactory(scheme).WithoutConversion(),
	}}
	client, err := rest.RESTClientFor(c)
	if err != nil {
		t.Fatal(err)
	}
	return &cluster.API{REST: client, Run: s.Run, Server: "https://192.168.254.11:6443", Namespace: "middleway"}
}

// Put keeps an object at a path.
func (s *Server) Put(at string, o Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects[at] = o
}

// Asked returns what was asked for, as METHOD PATH, in order.
func (s *Server) Asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

// Names returns the names of the objects below a path, sorted.
func (s *Server) Names(below string) (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for at := range s.objects {
		if path.Dir(at) == below {
			names = append(names, path.Base(at))
		}
	}
	slices.Sort(names)
	return names
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, r.Method+" "+r.URL.Path)
	for _, kind := range s.Forbidden {
		if strings.Contains(r.URL.Path+"/", "/"+kind+"/") {
			refuse(w, http.StatusForbidden, metav1.StatusReasonForbidden, fmt.Sprintf("%s is forbidden: User \"visitor\" cannot do that", kind))
			return
		}
	}
	if text, ok := s.Texts[r.URL.Path+"?"+r.URL.Query().Get("container")+","+r.URL.Query().Get("previous")]; ok {
		_, _ = io.WriteString(w, text) // the client is the test
		return
	}
	switch r.Method {
	case http.MethodPost:
		var o Object
		if err := json.NewDecoder(r.Body).Decode(&o); err != nil {
			refuse(w, http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error())
			return
		}
		send(w, http.StatusCreated, s.post(r.URL.Path, o))
	case http.MethodDelete:
		s.remove(r.URL.Path)
		send(w, http.StatusOK, Object{"kind": "Status", "apiVersion": "v1", "status": "Success"})
	default:
		s.get(w, r)
	}
}

func (s *Server) get(w http.ResponseWriter, r *http.Request) {
	if o, ok := s.objects[r.URL.Path]; ok {
		send(w, http.StatusOK, o)
		return
	}
	base := path.Base(r.URL.Path)
	if !strings.HasSuffix(base, "s") {
		refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound, base+" not found")
		return
	}
	items := []any{}
	for at, o := range s.objects {
		if dir := path.Dir(at); path.Base(dir) == base && (dir == r.URL.Path || !strings.Contains(r.URL.Path, "/namespaces/")) && selected(o, r.URL.Query().Get("labelSelector")) {
			items = append(items, o)
		}
	}
	if base == "endpointslices" {
		items = s.slices(r.URL.Path)
	}
	send(w, http.StatusOK, Object{"kind": "List", "items": items})
}

func selected(o Object, selector string) bool {
	if selector == "" {
		return true
	}
	for _, pair := range strings.Split(selector, ",") {
		k, v, _ := strings.Cut(pair, "=")
		if dig(o, "metadata", "labels", k) != v {
			return false
		}
	}
	return true
}

// dig returns the value at the end of keys, or nil.
func dig(v any, keys ...string) any {
	for _, k := range keys {
		o, ok := v.(Object)
		if !ok {
			return nil
		}
		v = o[k]
	}
	return v
}

func (s *Server) remove(at string) {
	delete(s.objects, at)
	for below := range s.objects {
		if strings.Contains(below, "/namespaces/"+path.Base(at)+"/") && path.Base(path.Dir(at)) == "namespaces" {
			delete(s.objects, below)
		}
	}
}

// post makes an object, and what controllers make of it.
func (s *Server) post(collection string, o Object) Object {
	name, _ := dig(o, "metadata", "name").(string)
	o["metadata"].(Object)["creationTimestamp"] = time.Now().UTC().Format(time.RFC3339)
	s.objects[collection+"/"+name] = o
	namespace := path.Base(path.Dir(collection))
	switch path.Base(collection) {
	case "namespaces":
		s.objects[collection+"/"+name+"/serviceaccounts/default"] = Object{}
	case "pods":
		s.start(namespace, o)
	case "services":
		s.address(o)
	case "daemonsets":
		for i, node := range s.nodes() {
			spec := clone(dig(o, "spec", "template", "spec").(Object))
			spec["nodeName"] = node
			s.post("/api/v1/namespaces/"+namespace+"/pods", Object{
				"metadata": Object{"name": fmt.Sprintf("%s-%d", name, i+1), "namespace": namespace, "labels": dig(o, "spec", "template", "metadata", "labels")},
				"spec":     spec,
			})
		}
	}
	return o
}

func clone(o Object) Object {
	c := Object{}
	for k, v := range o {
		c[k] = v
	}
	return c
}

func (s *Server) nodes() (names []string) {
	for at := range s.objects {
		if path.Dir(at) == "/api/v1/nodes" {
			names = append(names, path.Base(at))
		}
	}
	slices.Sort(names)
	return names
}

// start gives a pod an address and has it run, unless its node is one of Unready.
func (s *Server) start(namespace string, o Object) {
	node, _ := dig(o, "spec", "nodeName").(string)
	i := slices.Index(s.nodes(), node)
	ip := nodeIP(i)
	if dig(o, "spec", "hostNetwork") != true {
		s.services++
		ip = fmt.Sprintf("10.244.%d.%d", i+1, 1+s.services)
	}
	ready, waiting := "True", Object{}
	if slices.Contains(s.Unready, node) && namespace != "middleway" {
		ready, waiting = "False", Object{"waiting": Object{"reason": "ImagePullBackOff", "message": "no such image"}}
	}
	now := time.Now().UTC().Format(time.RFC3339)
	o["status"] = Object{
		"phase": "Running", "podIPs": []any{Object{"ip": ip}}, "startTime": now,
		"conditions":        []any{Object{"type": "Ready", "status": ready}},
		"containerStatuses": []any{Object{"name": dig(o, "spec", "containers").([]any)[0].(Object)["name"], "state": waiting, "restartCount": 1}},
	}
}

// address gives a Service its addresses and ports.
func (s *Server) address(o Object) {
	s.services++
	spec := o["spec"].(Object)
	if spec["clusterIP"] != corev1.ClusterIPNone {
		spec["clusterIP"] = fmt.Sprintf("10.96.0.%d", s.services)
	}
	spec["clusterIPs"] = []any{spec["clusterIP"]}
	if spec["type"] == "NodePort" {
		for i, p := range spec["ports"].([]any) {
			p.(Object)["nodePort"] = 30000 + 10*s.services + i
		}
	}
}

// slices are those of all Services of a namespace.
func (s *Server) slices(collection string) (items []any) {
	namespace := path.Base(path.Dir(collection))
	for at, o := range s.objects {
		if path.Dir(at) != "/api/v1/namespaces/"+namespace+"/services" {
			continue
		}
		endpoints := []any{}
		for podAt, pod := range s.objects {
			if path.Dir(podAt) == "/api/v1/namespaces/"+namespace+"/pods" && dig(pod, "metadata", "labels", "app") == dig(o, "spec", "selector", "app") {
				ready := dig(pod, "status", "conditions").([]any)[0].(Object)["status"] == "True"
				endpoints = append(endpoints, Object{"conditions": Object{"ready": ready}})
			}
		}
		items = append(items, Object{
			"metadata": Object{"labels": Object{"kubernetes.io/service-name": path.Base(at)}}, "addressType": "IPv4", "endpoints": endpoints,
		})
	}
	return items
}

func refuse(w http.ResponseWriter, code int, reason metav1.StatusReason, message string) {
	send(w, code, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Code: int32(code), Reason: reason, Message: message})
}

func send(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // the client is the test
}
