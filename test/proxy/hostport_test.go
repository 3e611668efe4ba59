package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/middleway-net/middleway/cni"
	"github.com/middleway-net/middleway/lab"
)

// portMapping is an entry of the capability portMappings as container runtimes write it.
type portMapping struct {
	HostPort      int    `json:"hostPort"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP"`
}

// runtime is a container runtime: libcni, and a network configuration.
type runtime struct {
	t    testing.TB
	cni  *libcni.CNIConfig
	list *libcni.NetworkConfigList
}

func newRuntime(t testing.TB, n *lab.Node) *runtime {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(self, filepath.Join(dir, cni.PluginName)); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(map[string]any{"cniVersion": "1.1.0", "name": "middleway", "plugins": []any{map[string]any{
		"type": cni.PluginName, "socket": filepath.Join(n.Config.RunDir, "cni.sock"), "capabilities": map[string]bool{"portMappings": true},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	list, err := libcni.ConfListFromBytes(b)
	if err != nil {
		t.Fatal(err)
	}
	return &runtime{t, libcni.NewCNIConfigWithCacheDir([]string{dir}, t.TempDir(), nil), list}
}

// sandbox is a pod that a runtime has made.
type sandbox struct {
	lab.Pod
	conf *libcni.RuntimeConf
}

// add makes a pod with host ports.
func (r *runtime) add(name string, mappings ...portMapping) *sandbox {
	r.t.Helper()
	ns, err := lab.NewNamespace(name)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { ns.Close() })
	s := &sandbox{lab.Pod{Namespace: ns}, &libcni.RuntimeConf{
		ContainerID: name, NetNS: ns.Path(), IfName: "eth0", CapabilityArgs: map[string]any{"portMappings": mappings},
		Args: [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "default"}, {"K8S_POD_NAME", name}, {"K8S_POD_UID", name}},
	}}
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	res, err := r.cni.AddNetworkList(ctx, r.list, s.conf)
	if err != nil {
		r.t.Fatal(err)
	}
	result, err := types100.NewResultFromResult(res)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, ip := range result.IPs {
		if a, _ := netip.AddrFromSlice(ip.Address.IP); a.Unmap().Is4() {
			s.Addr4 = a.Unmap()
		} else {
			s.Addr6 = a
		}
	}
	return s
}

func (r *runtime) del(s *sandbox) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	if err := r.cni.DelNetworkList(ctx, r.list, s.conf); err != nil {
		r.t.Fatal(err)
	}
}

// both maps a host port to port 8080 for TCP and UDP.
func both(hostPort int, hostIP string) (m []portMapping) {
	for _, network := range networks {
		m = append(m, portMapping{hostPort, targetPort, network, hostIP})
	}
	return m
}

// TestHostPort: a pod's host ports answer at its node's addresses, of which one with hostIP is one alone; they outlast the daemon, and end
// with the pod. The other node has no such port.
func TestHostPort(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{Pods: []int{1, 1}})
	r := newRuntime(t, c.Nodes[0])
	everywhere, one, loop := r.add("everywhere", both(9000, "")...), r.add("one", both(9001, v4.node(1).String())...), r.add("loop", both(9002, "::1")...)
	for _, s := range []*sandbox{everywhere, one, loop} {
		servePod(t, &s.Pod)
	}
	rows := func(f family, network string, want bool) {
		t.Helper()
		outside := c.outside(f.outside(2))
		for _, tt := range []struct {
			name string
			from client
			to   netip.AddrPort
			pod  *sandbox // none: it refuses
			seen netip.Addr
		}{
			{"outside", outside, netip.AddrPortFrom(f.node(1), 9000), everywhere, f.gateway(1)},
			{"loopback", c.Nodes[0], netip.AddrPortFrom(f.loopback(), 9000), everywhere, f.gateway(1)},
			{"pod of the node", c.pod(1, 1), netip.AddrPortFrom(f.node(1), 9000), everywhere, f.pod(c.pod(1, 1))},
			{"pod of another node", c.pod(2, 1), netip.AddrPortFrom(f.node(1), 9000), everywhere, f.gateway(1)},
			{"the other node", outside, netip.AddrPortFrom(f.node(2), 9000), nil, netip.Addr{}},
			{"hostIP", outside, netip.AddrPortFrom(f.node(1), 9001), map[family]*sandbox{v4: one}[f], f.gateway(1)},
			{"not hostIP", c.Nodes[0], netip.AddrPortFrom(f.loopback(), 9001), nil, netip.Addr{}},
			{"hostIP loopback", c.Nodes[0], netip.AddrPortFrom(f.loopback(), 9002), map[family]*sandbox{v6: loop}[f], f.gateway(1)},
			{"not loopback", outside, netip.AddrPortFrom(f.node(1), 9002), nil, netip.Addr{}},
		} {
			name := fmt.Sprintf("%s, %s, %s", f.name, network, tt.name)
			if tt.pod == nil || !want {
				eventually(t, name+" refuses", func() bool {
					_, err := ask(tt.from, network, tt.to)
					return errors.Is(err, syscall.ECONNREFUSED)
				})
				continue
			}
			awaitAnswer(t, tt.from, network, tt.to)
			mustAsk(t, tt.from, network, tt.to, tt.pod.Name(), tt.seen)
		}
	}
	all := func(want bool) {
		t.Helper()
		for _, f := range families {
			for _, network := range networks {
				rows(f, network, want)
			}
		}
	}
	all(true)
	c.restart(c.Nodes[0])
	all(true)
	for _, s := range []*sandbox{everywhere, one, loop} {
		r.del(s)
	}
	all(false)
}
