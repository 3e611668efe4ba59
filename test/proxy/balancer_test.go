package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/middleway-net/middleway/k8s/object"
	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
)

// healthNodePort is the healthCheckNodePort of these tests.
const healthNodePort = 32000

// balanced returns a Service of type LoadBalancer and policy Local.
func balanced(name string, number int) *corev1.Service {
	s := service(name, number)
	s.Spec.Type, s.Spec.ExternalTrafficPolicy = corev1.ServiceTypeLoadBalancer, corev1.ServiceExternalTrafficPolicyLocal
	s.Spec.HealthCheckNodePort = healthNodePort
	return s
}

// get asks by HTTP, on a connection of its own.
func get(from client, to netip.AddrPort, path string) (status int, header http.Header, body string, err error) {
	c := http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return from.Dial(ctx, network, addr)
		},
	}}
	r, err := c.Get("http://" + to.String() + path)
	if err != nil {
		return 0, nil, "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return r.StatusCode, r.Header, string(b), err
}

// awaitStatus asks until an answer has a status.
func awaitStatus(t testing.TB, from client, to netip.AddrPort, path string, want int) (header http.Header, body string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%v%s answers %d", to, path, want), func() bool {
		var status int
		var err error
		status, header, body, err = get(from, to, path)
		return err == nil && status == want
	})
	return header, body
}

// TestHealthCheckNodePort: a load balancer hears from each node how many ready endpoints it has, as kube-proxy would say it, whoever asks.
func TestHealthCheckNodePort(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{})
	s := balanced("web", 0)
	c.put(s, onPod(1, c.pod(1, 1)), onPod(1, c.pod(1, 2)))
	for _, f := range families {
		for _, from := range []client{c.outside(f.outside(2)), c.Nodes[0], c.Nodes[1], c.pod(1, 1), c.pod(2, 1)} {
			header, body := awaitStatus(t, from, netip.AddrPortFrom(f.node(1), healthNodePort), "/healthz", http.StatusOK)
			got := map[string]string{}
			for _, name := range []string{"Content-Type", "X-Content-Type-Options", "X-Load-Balancing-Endpoint-Weight"} {
				got[name] = header.Get(name)
			}
			want := map[string]string{"Content-Type": "application/json", "X-Content-Type-Options": "nosniff", "X-Load-Balancing-Endpoint-Weight": "2"}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: header (-want +got):\n%s", f.name, diff)
			}
			if want := `{"service":{"namespace":"default","name":"web"},"localEndpoints":2,"serviceProxyHealthy":true}`; strings.TrimSpace(body) != want {
				t.Errorf("%s: got %s, want %s", f.name, body, want)
			}
			awaitStatus(t, from, netip.AddrPortFrom(f.node(2), healthNodePort), "/", http.StatusServiceUnavailable)
		}
	}
	c.put(s, onPod(2, c.pod(2, 1)))
	for _, f := range families {
		header, _ := awaitStatus(t, c.outside(f.outside(2)), netip.AddrPortFrom(f.node(1), healthNodePort), "/", http.StatusServiceUnavailable)
		if got := header.Get("X-Load-Balancing-Endpoint-Weight"); got != "0" {
			t.Errorf("%s: weight %s, want 0", f.name, got)
		}
		awaitStatus(t, c.outside(f.outside(2)), netip.AddrPortFrom(f.node(2), healthNodePort), "/", http.StatusOK)
	}
	s.Spec.ExternalTrafficPolicy, s.Spec.HealthCheckNodePort = corev1.ServiceExternalTrafficPolicyCluster, 0
	c.put(s, onPod(2, c.pod(2, 1)))
	for _, f := range families {
		for number := 1; number <= 2; number++ {
			eventually(t, "nobody answers any more", func() bool {
				_, _, _, err := get(c.outside(f.outside(2)), netip.AddrPortFrom(f.node(number), healthNodePort), "/")
				return errors.Is(err, syscall.ECONNREFUSED)
			})
		}
	}
}

// TestHealthPortInUse: where a program of the node has the port the daemon goes on, says so, and answers when it is free.
func TestHealthPortInUse(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{Pods: []int{1}})
	at := netip.AddrPortFrom(v4.node(1), healthNodePort)
	other := serve(t, c.Nodes[0].Namespace, at)
	c.put(balanced("web", 0), onPod(1, c.pod(1, 1)))
	awaitStatus(t, c.Nodes[0], netip.AddrPortFrom(v4.loopback(), healthNodePort), "/", http.StatusOK)
	eventually(t, "the daemon says so", func() bool {
		st, err := c.Nodes[0].Status()
		return err == nil && len(st.Outside.Problems) == 1 && st.Outside.Problems[0].For == "default/web" && strings.Contains(st.Outside.Problems[0].Listener, at.String())
	})
	other.close()
	awaitStatus(t, c.outside(v4.outside(2)), at, "/", http.StatusOK)
}

// TestProxyHealth: a load balancer hears whether a node serves, with the fields of kube-proxy's answer, until the node is about to go;
// the daemon itself is well then, too.
func TestProxyHealth(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{Pods: []int{1, 1}, Change: func(_ int, n *node.Config) {
		n.Services.HealthAddress, n.Services.ModeAddress = ":10256", "localhost:10249"
	}})
	for _, f := range families {
		at := netip.AddrPortFrom(f.node(1), 10256)
		_, body := awaitStatus(t, c.outside(f.outside(2)), at, "/healthz", http.StatusOK)
		mustSay(t, body, "currentTime healthy lastUpdated nodeEligible status", true)
		_, body = awaitStatus(t, c.outside(f.outside(2)), at, "/livez", http.StatusOK)
		mustSay(t, body, "currentTime healthy lastUpdated status", true)
		awaitStatus(t, c.outside(f.outside(2)), at, "/proxyMode", http.StatusNotFound)

		mode := netip.AddrPortFrom(f.loopback(), 10249)
		if _, body := awaitStatus(t, c.Nodes[0], mode, "/proxyMode", http.StatusOK); body != "userspace" {
			t.Errorf("%v: mode %q", mode, body)
		}
		if _, _, _, err := get(c.outside(f.outside(2)), netip.AddrPortFrom(f.node(1), 10249), "/proxyMode"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("the mode is told outside: %v", err)
		}
	}
	leaving := nodeObject(1)
	leaving.Spec.Taints = []corev1.Taint{{Key: "ToBeDeletedByClusterAutoscaler", Effect: corev1.TaintEffectNoSchedule}}
	for _, step := range []struct {
		name   string
		do     func() error
		want   int
		stands bool
	}{
		{"tainted", func() error { return c.folder.Put(leaving) }, http.StatusServiceUnavailable, false},
		{"not any more", func() error { return c.folder.Put(nodeObject(1)) }, http.StatusOK, true},
		{"deleted", func() error { return c.folder.Delete(object.Nodes, "", "node-1") }, http.StatusServiceUnavailable, false},
	} {
		t.Run(step.name, func(t *testing.T) {
			c.must(step.do())
			at := netip.AddrPortFrom(v4.node(1), 10256)
			_, body := awaitStatus(t, c.outside(v4.outside(2)), at, "/healthz", step.want)
			mustSay(t, body, "currentTime healthy lastUpdated nodeEligible status", step.stands)
			awaitStatus(t, c.outside(v4.outside(2)), at, "/livez", http.StatusOK)
			awaitStatus(t, c.outside(v4.outside(2)), netip.AddrPortFrom(v4.node(2), 10256), "/healthz", http.StatusOK)
		})
	}
}

// mustSay fails the test unless a body has these fields, says that the daemon is well, and, where it has that, whether the node is to get
// clients.
func mustSay(t *testing.T, body, fields string, eligible bool) {
	t.Helper()
	var all map[string]any
	if err := json.Unmarshal([]byte(body), &all); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	for _, name := range strings.Fields(fields) {
		if _, ok := all[name]; !ok {
			t.Errorf("no %s: %s", name, body)
		}
	}
	if len(all) != len(strings.Fields(fields)) || all["healthy"] != true || all["nodeEligible"] != nil && all["nodeEligible"] != eligible {
		t.Errorf("want %s, healthy, nodeEligible %v: %s", fields, eligible, body)
	}
}
