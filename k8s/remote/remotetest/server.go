// Package remotetest is an API server in the process of a test: it has the objects it was given, lets those whom the test chooses run
// commands in pods, and runs them as functions. As a real one it lets a command go on when its client has gone, whose standard input
// ends with that.
package remotetest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/remotecommand"
	"k8s.io/klog/v2"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

// Command runs a command in a pod and returns its exit code.
type Command func(pod string, args []string, stdin io.Reader, stdout, stderr io.Writer) int

// Server is an API server.
type Server struct {
	Run Command
	// Forbidden are resources, for example "pods/exec", that nobody may ask for.
	Forbidden []string
	// NoWebSocket is how API servers were that speak SPDY alone.
	NoWebSocket bool
	http        *httptest.Server
	running     sync.WaitGroup

	mu    sync.Mutex // guards the following
	pods  []corev1.Pod
	nodes []corev1.Node
	svcs  []corev1.Service
}

// New starts a server that ends with the test, and that waits then for its commands to end.
func New(t testing.TB) *Server {
	klog.SetLogger(klog.Logger{}) // which would say of each command how its client went
	s := &Server{}
	s.http = httptest.NewServer(s)
	t.Cleanup(func() {
		s.http.CloseClientConnections()
		s.http.Close()
		s.running.Wait()
	})
	return s
}

// Kubeconfig writes a kubeconfig with a context "test" that means the server, and returns its path.
func (s *Server) Kubeconfig(t testing.TB) string {
	file := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: test, clusters: [{name: test, cluster: {server: %q}}], users: [{name: test, user: {token: t}}],
 contexts: [{name: test, context: {cluster: test, user: test, namespace: shop}}]}`, s.http.URL)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// Daemon is a pod of middleway on a node with an address.
func Daemon(node, address string) corev1.Pod {
	return corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "middleway", Name: "middleway-" + node, Labels: map[string]string{"app": "middleway"}},
		Spec:       corev1.PodSpec{NodeName: node, HostNetwork: true, Containers: []corev1.Container{{Name: "node"}}},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, HostIPs: []corev1.HostIP{{IP: address}},
			ContainerStatuses: []corev1.ContainerStatus{{Name: "node", Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}},
		},
	}
}

// Add adds pods, Services and nodes.
func (s *Server) Add(objects ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range objects {
		switch o := o.(type) {
		case corev1.Pod:
			s.pods = append(s.pods, o)
		case corev1.Node:
			s.nodes = append(s.nodes, o)
		case corev1.Service:
			s.svcs = append(s.svcs, o)
		default:
			panic(fmt.Sprintf("remotetest: %T", o))
		}
	}
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	namespace, resource, name, sub := split(r.URL.Path)
	if sub != "" {
		resource += "/" + sub
	}
	if slices.Contains(s.Forbidden, resource) {
		refuse(w, http.StatusForbidden, metav1.StatusReasonForbidden, resource+" is forbidden: User \"test\" cannot use it")
		return
	}
	selector, err := fields.ParseSelector(r.URL.Query().Get("fieldSelector"))
	if err != nil {
		refuse(w, http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error())
		return
	}
	if resource == "pods/exec" {
		s.running.Add(1)
		defer s.running.Done()
		s.exec(w, r, name)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch resource {
	case "pods":
		answer(w, "Pod", namespace, name, s.pods, func(p *corev1.Pod) bool {
			return selector.Matches(fields.Set{"spec.nodeName": p.Spec.NodeName, "metadata.name": p.Name})
		})
	case "services":
		answer(w, "Service", namespace, name, s.svcs, func(*corev1.Service) bool { return true })
	case "nodes":
		answer(w, "Node", namespace, name, s.nodes, func(*corev1.Node) bool { return true })
	default:
		refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound, "the server could not find the requested resource")
	}
}

// split takes /api/v1/namespaces/NAMESPACE/RESOURCE/NAME/SUB apart.
func split(p string) (namespace, resource, name, sub string) {
	parts := strings.Split(strings.TrimPrefix(path.Clean(p), "/api/v1/"), "/")
	if len(parts) > 2 && parts[0] == "namespaces" {
		namespace, parts = parts[1], parts[2:]
	}
	parts = append(parts, "", "", "")
	return namespace, parts[0], parts[1], parts[2]
}

// answer sends the object of a name, or a list of those that are wanted.
func answer[T any](w http.ResponseWriter, kind, namespace, name string, all []T, wanted func(*T) bool) {
	items := []T{}
	for i := range all {
		o := any(&all[i]).(metav1.Object)
		if namespace != "" && o.GetNamespace() != namespace || name != "" && o.GetName() != name || !wanted(&all[i]) {
			continue
		}
		items = append(items, all[i])
	}
	switch {
	case name == "":
		send(w, http.StatusOK, map[string]any{"apiVersion": "v1", "kind": kind + "List", "metadata": map[string]any{}, "items": items})
	case len(items) == 0:
		refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound, fmt.Sprintf("%s %q not found", kind, name))
	default:
		b, _ := json.Marshal(items[0])
		o := map[string]any{}
		_ = json.Unmarshal(b, &o)
		o["apiVersion"], o["kind"] = "v1", kind
		send(w, http.StatusOK, o)
	}
}

func refuse(w http.ResponseWriter, code int, reason metav1.StatusReason, message string) {
	send(w, code, metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: "Failure", Code: int32(code), Reason: reason, Message: message})
}

func send(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v)
}

// streams are those of a command, by WebSocket or SPDY.
type streams struct {
	stdin                 io.Reader
	stdout, stderr, fault io.WriteCloser
	close                 func() error
}

func (s *Server) exec(w http.ResponseWriter, r *http.Request, pod string) {
	open := openWebSocket
	if !wsstream.IsWebSocketRequest(r) {
		open = openSPDY
	} else if s.NoWebSocket {
		refuse(w, http.StatusBadRequest, metav1.StatusReasonBadRequest, "Upgrade request required")
		return
	}
	c, err := open(w, r)
	if err != nil {
		return // the client has been told, or has gone
	}
	defer c.close()
	code := s.Run(pod, r.URL.Query()["command"], c.stdin, c.stdout, c.stderr)
	status := metav1.Status{Status: metav1.StatusSuccess}
	if code != 0 {
		status = metav1.Status{
			Status: metav1.StatusFailure, Reason: remotecommand.NonZeroExitCodeReason,
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: remotecommand.ExitCodeCauseType, Message: fmt.Sprint(code)}}},
		}
	}
	_ = json.NewEncoder(c.fault).Encode(status)
	for _, out := range []io.Closer{c.stdout, c.stderr, c.fault} {
		_ = out.Close()
	}
}

// nobody reads what a command writes.
type nobody struct{}

func (nobody) Write(b []byte) (int, error) { return len(b), nil }
func (nobody) Close() error                { return nil }

func openWebSocket(w http.ResponseWriter, r *http.Request) (streams, error) {
	conn := wsstream.NewConn(map[string]wsstream.ChannelProtocolConfig{remotecommand.StreamProtocolV5Name: {
		Binary:   true,
		Channels: []wsstream.ChannelType{wsstream.ReadChannel, wsstream.WriteChannel, wsstream.WriteChannel, wsstream.WriteChannel, wsstream.ReadChannel},
	}})
	_, all, err := conn.Open(w, r)
	if err != nil {
		return streams{}, err
	}
	return streams{stdin: all[0], stdout: all[1], stderr: all[2], fault: all[3], close: conn.Close}, nil
}

func openSPDY(w http.ResponseWriter, r *http.Request) (streams, error) {
	if _, err := httpstream.Handshake(r, w, []string{remotecommand.StreamProtocolV4Name}); err != nil {
		return streams{}, err
	}
	opened := make(chan httpstream.Stream, 8)
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(s httpstream.Stream, replied <-chan struct{}) error {
		opened <- s
		return nil
	})
	if conn == nil {
		return streams{}, context.Canceled
	}
	c := streams{stdin: strings.NewReader(""), stdout: nobody{}, stderr: nobody{}, close: conn.Close}
	wanted := 1 // the error stream
	for _, flag := range []string{"stdin", "stdout", "stderr"} {
		if r.URL.Query().Get(flag) == "true" {
			wanted++
		}
	}
	for range wanted {
		s := <-opened
		switch s.Headers().Get(corev1.StreamType) {
		case corev1.StreamTypeStdin:
			c.stdin = s
		case corev1.StreamTypeStdout:
			c.stdout = s
		case corev1.StreamTypeStderr:
			c.stderr = s
		case corev1.StreamTypeError:
			c.fault = s
		}
	}
	return c, nil
}
