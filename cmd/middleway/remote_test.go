package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/middleway-net/middleway/capture"
	"github.com/middleway-net/middleway/k8s/remote/remotetest"
	"github.com/middleway-net/middleway/node"
	"github.com/middleway-net/middleway/stack"
)

// played is a cluster whose API server and daemons are in this process: what is run in a pod is this program.
type played struct {
	*remotetest.Server
	kubeconfig string
	relays     sync.WaitGroup // that run
}

func play(t *testing.T) *played {
	p := &played{Server: remotetest.New(t)}
	p.kubeconfig = p.Kubeconfig(t)
	p.Run = func(_ string, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
		p.relays.Add(1)
		defer p.relays.Done()
		cmd := called([]string{"middleway"})
		cmd.SetArgs(args[1:])
		cmd.SetIn(stdin)
		cmd.SetOut(stdout)
		cmd.SetErr(stderr)
		if err := cmd.Execute(); err != nil {
			fmt.Fprintln(stderr, "middleway:", err)
			return 1
		}
		return 0
	}
	return p
}

// daemon adds a node whose daemon answers as mux does.
func (p *played) daemon(t *testing.T, name, address string, mux *http.ServeMux) {
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "node.sock"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: mux}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close() })
	pod := remotetest.Daemon(name, address)
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "run", MountPath: dir}}
	p.Add(pod, corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}})
}

// kubectl runs the program as kubectl's plugin.
func (p *played) kubectl(t *testing.T, ctx context.Context, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	t.Setenv("KUBECONFIG", p.kubeconfig)
	var out, errs bytes.Buffer
	cmd := called([]string{"/usr/local/bin/kubectl-middleway"})
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	err = cmd.ExecuteContext(ctx)
	return out.String(), errs.String(), err
}

// answers is a daemon that answers questions with values.
func answers(all map[string]any) *http.ServeMux {
	mux := http.NewServeMux()
	for path, v := range all {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if f, ok := v.(func(*http.Request) any); ok {
				_ = json.NewEncoder(w).Encode(f(r))
				return
			}
			_ = json.NewEncoder(w).Encode(v)
		})
	}
	return mux
}

func broken(name string) corev1.Pod {
	p := remotetest.Daemon(name, "192.168.254.13")
	p.Status.ContainerStatuses[0] = corev1.ContainerStatus{Name: "node", RestartCount: 4, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}}
	return p
}

func TestRemoteStatus(t *testing.T) {
	p := play(t)
	p.daemon(t, "node-1", "192.168.254.11", answers(map[string]any{"/status": node.Status{
		Name: "node-1", Version: "v0.7.0", Address: netip.MustParseAddr("192.168.254.11"), PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}, MTU: 1450,
		Started: time.Now().Add(-time.Minute), Stack: stack.Stats{Attachments: 3, Flows: 7, Drops: map[string]uint64{"no-route": 2, "ttl": 1}},
		Peers: []node.PeerStatus{{Name: "node-2", State: "up"}, {Name: "node-3", State: "down", Why: "has not answered for 5s"}}, Notes: []string{"small MTU"},
		Problems: []node.Problem{{Reason: "PeerLeftOut", Message: "node node-5 is left out"}},
	}}))
	p.Add(broken("node-3"), corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-4"}})
	out, _, err := p.kubectl(t, t.Context(), "status")
	if !errors.Is(err, errSilent) {
		t.Errorf("got %v, want an exit code for the daemon that cannot be asked", err)
	}
	want := `
NODE    READY  VERSION  ADDRESS         POD RANGES     MTU   PODS  PEERS  FLOWS  DROPPED  RESTARTS  AGE  MESSAGE
node-1  yes    v0.7.0   192.168.254.11  10.244.1.0/24  1450  3     1/2    7      3        0         60s  peer node-3 is down: has not answered for 5s; node node-5 is left out; small MTU
node-3  no     -        -               -              -     -     -      -      -        4         -    is not running (container node waits: CrashLoopBackOff); ` +
		"`kubectl -n middleway describe pod middleway-node-3` and `kubectl -n middleway logs middleway-node-3 -c node` say more" + `
node-4  no     -        -               -              -     -     -      -      -        0         -    no pod of middleway is on it
`
	if diff := cmp.Diff(want, "\n"+out); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var st remoteStatus
	if out, _, _ = p.kubectl(t, t.Context(), "status", "-o", "json"); json.Unmarshal([]byte(out), &st) != nil || len(st.Nodes) != 3 || st.Nodes[0].Status.Stack.Flows != 7 {
		t.Errorf("JSON: got %s", out)
	}
	if out, _, err = p.kubectl(t, t.Context(), "status", "--node", "node-1"); err != nil || !strings.HasPrefix(out, "node      node-1, pid 0, up 1m") {
		t.Errorf("node-1: got %v, %s", err, out)
	}
	if _, _, err = p.kubectl(t, t.Context(), "status", "--node", "node-4"); err == nil || !strings.HasPrefix(err.Error(), "status: node node-4: there is no pod of middleway") {
		t.Errorf("node-4: got %v", err)
	}
}

func TestRemoteFlows(t *testing.T) {
	p := play(t)
	asked := make(chan node.FlowsRequest, 2)
	all := someFlows()
	for i, name := range []string{"node-1", "node-2"} {
		mux := http.NewServeMux()
		mux.HandleFunc("/flows", func(w http.ResponseWriter, r *http.Request) {
			var req node.FlowsRequest
			_ = json.NewDecoder(r.Body).Decode(&req)
			asked <- req
			_ = json.NewEncoder(w).Encode(all[1-i])
			if req.Follow && i == 0 && http.NewResponseController(w).Flush() == nil {
				<-r.Context().Done()
			}
		})
		p.daemon(t, name, fmt.Sprint("192.168.254.1", i+1), mux)
	}
	p.Add(corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "visitor"}, Status: corev1.PodStatus{PodIPs: []corev1.PodIP{{IP: "10.244.1.2"}}}}, broken("node-3"))
	out, stderr, err := p.kubectl(t, t.Context(), "flows", "--from", "visitor", "--service", "web")
	if !errors.Is(err, errSilent) || !strings.HasPrefix(stderr, "middleway: node node-3 is left out: pod middleway-node-3 is not running") {
		t.Errorf("got %v, %s", err, stderr)
	}
	want := `
NODE    PROTO  FROM             TO               SERVICE           BACKEND          GOES TO            STATE   AGE      IDLE
node-1  tcp    10.244.1.2:1000  10.96.0.7:80     default/web:http  10.244.2.2:8080  peer node-2        active  5s       3s
node-2  tcp    10.244.1.2:1000  10.244.2.2:8080  -                 -                pod default/web-1  active  1h30m0s  1m0s
`
	if diff := cmp.Diff(want, "\n"+out); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	req := node.FlowsRequest{From: []netip.Prefix{netip.MustParsePrefix("10.244.1.2/32")}, Services: []string{"shop/web"}} // of the context's namespace
	for range 2 {
		if diff := cmp.Diff(req, <-asked, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
			t.Errorf("asked (-want +got):\n%s", diff)
		}
	}
	// What follows ends with its client, and so do the relays.
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, _, err := p.kubectl(t, ctx, "flows", "node/node-1", "--follow")
		done <- err
	}()
	<-asked
	cancel()
	if err := <-done; err == nil || err.Error() != "the command failed" {
		t.Errorf("interrupted: got %v", err)
	}
	p.relays.Wait()
}

func TestRemoteTrace(t *testing.T) {
	p := play(t)
	asked := make(chan node.TraceRequest, 2)
	hop := func(h node.TraceHop) func(*http.Request) any {
		return func(r *http.Request) any {
			var req node.TraceRequest
			_ = json.NewDecoder(r.Body).Decode(&req)
			asked <- req
			return h
		}
	}
	leaves := stack.Tuple{Protocol: "tcp", Src: netip.MustParseAddrPort("10.244.1.2:49152"), Dst: netip.MustParseAddrPort("10.244.2.2:8080")}
	p.daemon(t, "node-1", "192.168.254.11", answers(map[string]any{
		"/status": node.Status{DNS: &node.DNSStatus{Addresses: []netip.Addr{netip.MustParseAddr("10.96.0.10")}, Domain: "test.example"}},
		"/trace": hop(node.TraceHop{
			Node: "node-1", Peer: netip.MustParseAddr("192.168.254.12"), PeerName: "node-2", TTL: 63,
			Trace: &stack.Trace{Packet: leaves, Verdict: "forwarded", To: "peer 192.168.254.12", LeavesAs: &leaves},
		}),
	}))
	p.daemon(t, "node-2", "192.168.254.12", answers(map[string]any{
		"/trace": hop(node.TraceHop{Node: "node-2", Trace: &stack.Trace{Packet: leaves, Verdict: "forwarded", To: "pod shop/web-1", LeavesAs: &leaves}}),
	}))
	p.Add(
		corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "visitor"}, Spec: corev1.PodSpec{NodeName: "node-1"}},
		corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}}}},
	)
	out, _, err := p.kubectl(t, t.Context(), "trace", "pod/visitor", "web")
	if err != nil || !strings.Contains(out, "shop/visitor asks web\n") || !strings.HasSuffix(out, "pod shop/web-1: tcp 10.244.1.2:49152 → 10.244.2.2:8080\n") && !strings.HasSuffix(out, "pod shop/web-1: tcp 10.244.1.2:49152 -> 10.244.2.2:8080\n") {
		t.Errorf("got %v\n%s", err, out)
	}
	first := node.TraceRequest{
		From: "shop/visitor", Proto: 6, DstPort: 80,
		Names: []string{"web.shop.svc.test.example.", "web.svc.test.example.", "web.test.example.", "web."},
	}
	second := node.TraceRequest{Src: leaves.Src.Addr(), Dst: leaves.Dst.Addr(), Proto: 6, SrcPort: 49152, DstPort: 8080, TTL: 63}
	for i, want := range []node.TraceRequest{first, second} {
		if diff := cmp.Diff(want, <-asked, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("request %d (-want +got):\n%s", i, diff)
		}
	}
	if _, _, err = p.kubectl(t, t.Context(), "trace", "nobody", "web"); err == nil || err.Error() != "trace: there is no pod shop/nobody; `kubectl get pods -A` lists them" {
		t.Errorf("got %v", err)
	}
}

func TestRemoteCapture(t *testing.T) {
	p := play(t)
	asked := make(chan []string, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("/capture", func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		_ = control.EnableFullDuplex()
		body := bufio.NewReader(r.Body)
		line, _ := body.ReadBytes('\n')
		var req capture.Request
		_ = json.Unmarshal(line, &req)
		asked <- req.Interfaces
		s := capture.NewSender(w)
		_ = s.Send(&capture.Message{Start: &capture.Start{Version: capture.Version, Node: "node-1", Interfaces: []capture.Interface{{Name: "shop/web-0"}}}})
		now := time.Now()
		_ = s.Send(&capture.Message{Record: &capture.Record{Time: now, Interface: "shop/web-0", Direction: capture.In, Verdict: capture.Dropped, Packets: 1, Reason: "no-route", Flow: "tcp a -> b", Length: 60}})
		_ = s.Send(&capture.Message{Mark: now.Add(time.Second)})
		_ = control.Flush()
		_, _ = io.Copy(io.Discard, body) // until it is to end
		_ = s.Send(&capture.Message{End: &capture.End{}})
	})
	p.daemon(t, "node-1", "192.168.254.11", mux)
	p.Add(
		corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-0"}, Spec: corev1.PodSpec{NodeName: "node-1"}},
		corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "agent"}, Spec: corev1.PodSpec{NodeName: "node-1", HostNetwork: true}},
	)
	for what, want := range map[string][]string{"web-0": {"shop/web-0"}, "pod/web-0": {"shop/web-0"}, "shop/web-0": {"shop/web-0"}, "node-1": nil, "node/node-1": nil, "tunnel": {"tunnel"}, "": nil} {
		args := []string{"capture", "-c", "1"}
		if what != "" {
			args = append(args, what)
		}
		out, stderr, err := p.kubectl(t, t.Context(), args...)
		if err != nil || !strings.Contains(out, "node-1/shop/web-0 in  tcp a -> b, 60 bytes: dropped: no-route") || !strings.HasSuffix(stderr, "1 packets, none was lost\n") {
			t.Errorf("%q: got %v\n%s%s", what, err, out, stderr)
		}
		if got := <-asked; !slices.Equal(got, want) {
			t.Errorf("%q: asked for %q, want %q", what, got, want)
		}
	}
	p.relays.Wait()
	for what, want := range map[string]string{
		"agent":   "capture: pod shop/agent has the network of node-1 and no interface of its own; `kubectl middleway capture node/node-1` shows the node's",
		"nobody":  "capture: there is no pod shop/nobody; `kubectl get pods -A` lists them",
		"node/no": "node no: there is no pod of middleway in namespace middleway on it",
	} {
		if _, _, err := p.kubectl(t, t.Context(), "capture", what); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", what, err, want)
		}
	}
}

// Whatever is meant by the kubeconfig that the environment names, only flags and the plugin's name mean it.
func TestWhenRemote(t *testing.T) {
	p := play(t)
	p.daemon(t, "node-1", "192.168.254.11", answers(map[string]any{"/status": node.Status{Name: "node-1"}}))
	t.Setenv("KUBECONFIG", p.kubeconfig)
	empty := t.TempDir()
	for args, want := range map[string]string{
		"status --run-dir " + empty:                 "no middleway node answers on " + empty + "/node.sock",
		"status --dir " + empty:                     "no cluster runs in " + empty,
		"status --node node-1":                      "",
		"status --context test":                     "",
		"status --kubeconfig " + p.kubeconfig:       "",
		"status --middleway-namespace other":        "there is no pod of middleway in namespace other of the cluster http://127.0.0.1:",
		"status --context test --dir " + empty:      "status: --dir is of this machine, --context of a real cluster; give one of them",
		"flows --run-dir x --kubeconfig y":          "flows: --run-dir is of this machine, --kubeconfig of a real cluster; give one of them",
		"capture --run-dir x --dir y":               "capture: --dir is the directory of a cluster, --run-dir that of a node daemon; give one of them",
		"trace a b --context other --namespace foo": "trace: there is no context other in kubeconfig " + p.kubeconfig + "; it has test",
	} {
		cmd := called([]string{"middleway"})
		cmd.SetArgs(strings.Fields(args))
		cmd.SetOut(io.Discard)
		err := cmd.ExecuteContext(t.Context())
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", args, err, want)
		}
	}
}

func TestCompletion(t *testing.T) {
	p := play(t)
	p.daemon(t, "node-1", "192.168.254.11", http.NewServeMux())
	p.Add(
		corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-0"}, Spec: corev1.PodSpec{NodeName: "node-1"}},
		corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "bank", Name: "gate-0"}, Spec: corev1.PodSpec{NodeName: "node-1"}},
	)
	t.Setenv("KUBECONFIG", p.kubeconfig)
	for args, want := range map[string]string{
		"capture ": "web-0 node-1 tunnel", "trace -n bank ": "gate-0", "status --node ": "node-1", "flows ": "node-1", "status --context ": "test", "flows node-1 ": "",
	} {
		var out bytes.Buffer
		cmd := called(append([]string{"kubectl_complete-middleway"}, strings.Split(args, " ")...))
		cmd.SetOut(&out)
		cmd.SetErr(io.Discard)
		if err := cmd.ExecuteContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		got, _, _ := strings.Cut(out.String(), ":4")
		if got = strings.Join(strings.Fields(got), " "); got != want {
			t.Errorf("%s: got %q, want %q", args, got, want)
		}
	}
}
