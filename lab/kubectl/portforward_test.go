package kubectl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/middleway-net/middleway/lab/control"
)

// connector is a store whose pods are served by this process.
type connector struct {
	store
	server string        // where port 80 is; others refuse
	ended  chan struct{} // closed when the pod has
}

var errEnded = errors.New("the pod has ended")

func (c connector) Attend(ctx context.Context, _ PodRef) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-c.ended:
		return errEnded
	}
}

func (c connector) Connect(ctx context.Context, pod PodRef, port uint16) (*net.TCPConn, error) {
	if port != 80 {
		return nil, fmt.Errorf("connect to localhost:%d inside pod %s: %w", port, pod.Name, syscall.ECONNREFUSED)
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", c.server)
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// text is what is printed, read while it is written.
type text struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (x *text) Write(b []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.b.Write(b)
}

func (x *text) String() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.b.String()
}

// await waits for what matches in the text and returns it.
func (x *text) await(t *testing.T, pattern string) []string {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if m := regexp.MustCompile(pattern).FindStringSubmatch(x.String()); m != nil {
			return m
		}
	}
	t.Fatalf("%s was not printed, but:\n%s", pattern, x.String())
	return nil
}

// run is a port-forward under way.
type run struct {
	connector
	out, errOut text
	cancel      func()
	done        chan error
}

// forward starts a port-forward to a pod of the shop, of which each connection is served by serve.
func forward(t *testing.T, serve func(*net.TCPConn), args ...string) *run {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go serve(conn.(*net.TCPConn))
		}
	}()
	r := &run{connector: connector{shop(), l.Addr().String(), make(chan struct{})}, done: make(chan error, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	r.cancel = cancel
	f := PortForward{Namespace: "shop", Addresses: []string{"localhost"}}
	go func() { r.done <- f.Run(ctx, r.connector, args, &r.out, &r.errOut) }()
	return r
}

func (r *run) end(t *testing.T) error {
	t.Helper()
	select {
	case err := <-r.done:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("it does not end")
		return nil
	}
}

func dialLocal(t *testing.T, port string) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp4", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	return conn.(*net.TCPConn)
}

// Bytes pass both ways, and each end by itself: the server answers after it has read all.
func TestPortForward(t *testing.T) {
	r := forward(t, func(c *net.TCPConn) {
		defer c.Close()
		if all, err := io.ReadAll(c); err == nil {
			_, _ = c.Write(bytes.ToUpper(all))
		}
	}, "front-1", ":80", ":81")
	local := r.out.await(t, `Forwarding from 127\.0\.0\.1:(\d+) -> 80\n`)[1]
	refused := r.out.await(t, `Forwarding from 127\.0\.0\.1:(\d+) -> 81\n`)[1]
	for range 3 {
		conn := dialLocal(t, local)
		want := strings.Repeat("abcdefgh", 1<<16)
		go func() {
			_, _ = io.WriteString(conn, want)
			_ = conn.CloseWrite()
		}()
		if got, err := io.ReadAll(conn); err != nil || string(got) != strings.ToUpper(want) {
			t.Errorf("%v, %d bytes", err, len(got))
		}
	}
	r.out.await(t, "Handling connection for "+local)
	conn := dialLocal(t, refused)
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("a refused connection: %d, %v", n, err)
	}
	r.errOut.await(t, "an error occurred forwarding "+refused+" -> 81: connect to localhost:81 inside pod front-1: connection refused")
	idle := dialLocal(t, local)
	r.out.await(t, "(?s)(Handling.*){5}")
	r.cancel()
	if err := r.end(t); err != nil {
		t.Errorf("ended by Ctrl-C: %v", err)
	}
	if _, err := idle.Read(make([]byte, 1)); err == nil {
		t.Error("a connection outlived the command")
	}
	if conn, err := net.Dial("tcp4", "127.0.0.1:"+local); err == nil {
		conn.Close()
		t.Error("the port still listens")
	}
}

// A reset is passed on as one.
func TestPortForwardReset(t *testing.T) {
	r := forward(t, func(c *net.TCPConn) {
		_, _ = c.Read(make([]byte, 1))
		_ = c.SetLinger(0)
		c.Close()
	}, "pod/front-1", ":80")
	conn := dialLocal(t, r.out.await(t, `127\.0\.0\.1:(\d+)`)[1])
	_, _ = conn.Write([]byte("x"))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v", err)
	}
	r.cancel()
	if err := r.end(t); err != nil {
		t.Error(err)
	}
}

// The end of the pod is the end of the command, and of its connections.
func TestPortForwardPodEnds(t *testing.T) {
	r := forward(t, func(*net.TCPConn) {}, "deploy/cart", ":80")
	conn := dialLocal(t, r.out.await(t, `127\.0\.0\.1:(\d+)`)[1])
	close(r.ended)
	if err := r.end(t); !errors.Is(err, errLost) || !errors.Is(err, errEnded) || !strings.HasPrefix(err.Error(), "lost connection to pod") {
		t.Errorf("got %v", err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("a connection outlived the pod")
	}
}

// A port that is taken is told; with another one the command goes on.
func TestPortForwardTaken(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, taken, _ := net.SplitHostPort(l.Addr().String())
	f := PortForward{Namespace: "shop", Addresses: []string{"127.0.0.1"}}
	var out, errOut text
	err = f.Run(t.Context(), connector{store: shop()}, []string{"front-1", taken + ":80"}, &out, &errOut)
	if want := "unable to listen on any of the requested ports: [{" + taken + " 80}]"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- f.Run(ctx, connector{store: shop()}, []string{"front-1", taken + ":80", ":80"}, &out, &errOut)
	}()
	out.await(t, `Forwarding from 127\.0\.0\.1`)
	errOut.await(t, "Unable to listen on port "+taken+": .*address already in use")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestPortForwardMistakes(t *testing.T) {
	s := shop()
	s.objects[0].(*corev1.Pod).Status.Phase = corev1.PodPending
	for args, want := range map[string]string{
		"front-1":         "TYPE/NAME and list of ports are required for port-forward",
		"cart-1 80":       "unable to forward port because pod is not running. Current status=Pending",
		"none 80":         `pods "none" not found`,
		"svc/none 80":     `services "none" not found`,
		"svc/cart 80":     "invalid service 'cart': Service is defined without a selector",
		"no/node-1 80":    "node/node-1 has no pods",
		"shop/front-1 80": `there is no kind "shop"`,
		"all/front-1 80":  "want TYPE/NAME",
		"pod/ 80":         "want TYPE/NAME",
		"front-1 x":       "Pod 'front-1' does not have a named port 'x'",
	} {
		f := PortForward{Namespace: "shop", Addresses: []string{"localhost"}}
		err := f.Run(t.Context(), connector{store: s}, strings.Split(args, " "), io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", args, err, want)
		}
	}
}

// Of several pods the one that is most likely to answer is taken, and the first one is waited for.
func TestChoosePod(t *testing.T) {
	pod := func(name string, change func(p *corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, Status: corev1.PodStatus{Phase: corev1.PodRunning}}
		p.Name, p.Namespace, p.Labels = name, "default", map[string]string{"app": "web"}
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		p.CreationTimestamp = metav1.NewTime(time.Unix(1700000000, 0))
		change(p)
		return p
	}
	same := func(*corev1.Pod) {}
	pending := func(p *corev1.Pod) { p.Status.Phase = corev1.PodPending }
	unready := func(p *corev1.Pod) { p.Status.Conditions = nil }
	ending := func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)} }
	newer := func(p *corev1.Pod) { p.CreationTimestamp = metav1.NewTime(time.Unix(1800000000, 0)) }
	for _, tt := range []struct {
		name string
		pods []*corev1.Pod
		want string
	}{
		{"running", []*corev1.Pod{pod("a", pending), pod("b", unready)}, "b"},
		{"ready", []*corev1.Pod{pod("a", unready), pod("b", newer)}, "b"},
		{"stays", []*corev1.Pod{pod("a", ending), pod("b", unready)}, "b"},
		{"oldest", []*corev1.Pod{pod("a", newer), pod("b", same)}, "b"},
		{"first name", []*corev1.Pod{pod("b", same), pod("a", same)}, "a"},
	} {
		var s store
		for _, p := range tt.pods {
			s.objects = append(s.objects, p)
		}
		got, err := (&PortForward{}).choosePod(t.Context(), connector{store: s}, "app=web")
		if err != nil || got.Name != tt.want {
			t.Errorf("%s: got %v, %v, want %s", tt.name, got, err, tt.want)
		}
	}
	late := connector{store: store{changes: []control.Event{{Type: control.Added, Object: pod("late", same)}}}}
	if got, err := (&PortForward{Timeout: time.Minute}).choosePod(t.Context(), late, "app=web"); err != nil || got.Name != "late" {
		t.Errorf("got %v, %v", got, err)
	}
}
