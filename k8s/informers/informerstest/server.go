// Package informerstest is a small API server for tests of what asks one: of the kinds that a node reads, its own Node's status, and Events.
package informerstest

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// Server is an API server, which streams lists (sendInitialEvents) as a real one does.
type Server struct {
	t      *testing.T
	listen func(addr string) (net.Listener, error)
	addr   string
	server *http.Server

	mu       sync.Mutex // guards the following
	refuse   string     // kind that nobody may ask for
	requests []string
	posts    int                       // of Events
	objects  map[string]runtime.Object // by "kind/namespace/name"
	version  int
	streams  map[chan event]string // kind
}

// event is one of a watch.
type event struct {
	Type   string         `json:"type"`
	Object runtime.Object `json:"object"`
}

// New starts a server on this machine's loopback address.
func New(t *testing.T) *Server {
	return At(t, "127.0.0.1:0", func(addr string) (net.Listener, error) { return net.Listen("tcp", addr) })
}

// At starts a server at an address, with listeners that listen opens, for example in another network namespace. It ends with the test.
func At(t *testing.T, addr string, listen func(addr string) (net.Listener, error)) *Server {
	s := &Server{t: t, listen: listen, addr: addr, objects: map[string]runtime.Object{}, streams: map[chan event]string{}}
	s.Start()
	t.Cleanup(s.Stop)
	return s
}

// Start starts a server that was stopped, with all that it knows.
func (s *Server) Start() {
	s.t.Helper()
	l, err := s.listen(s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.addr = l.Addr().String()
	s.server = &http.Server{Handler: s}
	go func() { _ = s.server.Serve(l) }()
}

// Stop stops answering.
func (s *Server) Stop() { _ = s.server.Close() }

// Kubeconfig returns the text of a kubeconfig file that leads to the server.
func (s *Server) Kubeconfig() string {
	return `{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}],
clusters: [{name: c, cluster: {server: "http://` + s.addr + `"}}], users: [{name: u, user: {}}]}`
}

// Refuse makes the server refuse requests for a kind, in the place of the former one; "" is none.
func (s *Server) Refuse(kind string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = kind
}

// Requests returns the method, path and field selector of all requests.
func (s *Server) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Posts returns how many Events were sent, those that there were already among them.
func (s *Server) Posts() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.posts
}

// Object returns an object by "kind/namespace/name"; nil if there is none. It is borrowed.
func (s *Server) Object(key string) runtime.Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.objects[key]
}

// Set makes an object what it is to be; kind is its plural, like nodes.
func (s *Server) Set(kind string, o runtime.Object) { s.change(kind, o, false) }

// Delete removes an object.
func (s *Server) Delete(kind string, o runtime.Object) {
	s.change(kind, o, true)
}

func (s *Server) change(kind string, o runtime.Object, gone bool) {
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

// ServeHTTP answers.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	kind := parts[len(parts)-1]
	s.mu.Lock()
	s.requests = append(s.requests, r.Method+" "+r.URL.Path+" "+r.URL.Query().Get("fieldSelector"))
	refuse := s.refuse
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	switch {
	case refuse != "" && refuse == kindOf(parts):
		w.WriteHeader(http.StatusForbidden)
		_ = json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: metav1.StatusReasonForbidden, Code: 403, Message: refuse + " is forbidden"})
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

// kindOf returns the kind in a path like /api/v1/KIND/…, /apis/GROUP/v1/KIND or /api/v1/namespaces/NAMESPACE/KIND/….
func kindOf(parts []string) string {
	if parts[0] == "apis" {
		return parts[3]
	}
	if len(parts) > 4 && parts[2] == "namespaces" {
		return parts[4]
	}
	return parts[2]
}

// watch streams what there is, the mark of its end, and what changes.
func (s *Server) watch(w http.ResponseWriter, r *http.Request, kind string) {
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

// patch changes a node as the API server does, by a strategic merge.
func (s *Server) patch(w http.ResponseWriter, r *http.Request, name string) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	n, ok := s.objects["nodes//"+name].(*corev1.Node)
	s.mu.Unlock()
	if !ok {
		http.Error(w, "no such node", http.StatusNotFound)
		return
	}
	was, _ := json.Marshal(n)
	is, err := strategicpatch.StrategicMergePatch(was, body, corev1.Node{})
	if err != nil || r.Header.Get("Content-Type") != "application/strategic-merge-patch+json" {
		http.Error(w, "bad patch", http.StatusBadRequest)
		return
	}
	n = &corev1.Node{}
	_ = json.Unmarshal(is, n) // what was one before
	s.Set("nodes", n)
	_ = json.NewEncoder(w).Encode(n)
}

func (s *Server) get(w http.ResponseWriter, key string) {
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
func (s *Server) create(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var sent runtime.Unknown
	e := &corev1.Event{}
	if len(body) < 4 || sent.Unmarshal(body[4:]) != nil || e.Unmarshal(sent.Raw) != nil {
		http.Error(w, "bad event", http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	s.posts++
	_, taken := s.objects["events/"+e.Namespace+"/"+e.Name]
	s.mu.Unlock()
	if taken {
		w.WriteHeader(http.StatusConflict)
		_ = json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: metav1.StatusReasonAlreadyExists, Code: 409})
		return
	}
	s.Set("events", e)
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(e)
}

// Events returns all Events, borrowed.
func (s *Server) Events() (all []*corev1.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, o := range s.objects {
		if strings.HasPrefix(key, "events/") {
			all = append(all, o.(*corev1.Event))
		}
	}
	return all
}
