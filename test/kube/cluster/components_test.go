package cluster

import (
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/middleway-net/middleway/test/kube/node"
	"github.com/middleway-net/middleway/test/kube/plan"
)

func TestSpec(t *testing.T) {
	c := Config{
		Plan: plan.Plan{Name: "kube", Nodes: 2, Family: plan.Dual}, Dir: "/clusters/kube",
		Programs: Programs{Bin: "/bin", Images: []string{"a.tar"}, Pause: "localhost/pause:v1"},
	}
	first, second := mustSpec(t, c, 1), mustSpec(t, c, 2)

	if got := names(first); !slices.Equal(got, []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "containerd", "kubelet"}) {
		t.Errorf("node 1 has %v", got)
	}
	if got := names(second); !slices.Equal(got, []string{"containerd", "kubelet"}) {
		t.Errorf("node 2 has %v", got)
	}
	for _, want := range []string{"--service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/112", "--advertise-address=192.168.254.11", "--bind-address=::"} {
		if !slices.Contains(first.Components[1].Args, want) {
			t.Errorf("the API server lacks %s: %v", want, first.Components[1].Args)
		}
	}
	if want := "--node-ip=192.168.254.12,fd00:254::12"; !slices.Contains(second.Components[1].Args, want) {
		t.Errorf("kubelet 2 lacks %s: %v", want, second.Components[1].Args)
	}

	var kubelet struct {
		ClusterDNS             []string `json:"clusterDNS"`
		TLSCertFile            string   `json:"tlsCertFile"`
		MakeIPTablesUtilChains *bool    `json:"makeIPTablesUtilChains"`
	}
	if err := yaml.Unmarshal([]byte(second.Files["/etc/kubernetes/kubelet.yaml"]), &kubelet); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(kubelet.ClusterDNS, []string{"10.96.0.10"}) || kubelet.TLSCertFile != "/clusters/kube/pki/kube-2-server.crt" || kubelet.MakeIPTablesUtilChains == nil || *kubelet.MakeIPTablesUtilChains {
		t.Errorf("kubelet's configuration: %+v", kubelet)
	}
	if got := second.Files["/etc/kubernetes/containerd.toml"]; !strings.Contains(got, `sandbox = "localhost/pause:v1"`) || !strings.Contains(got, `BinaryName = "/bin/runc"`) {
		t.Errorf("containerd's configuration:\n%s", got)
	}
}

func mustSpec(t *testing.T, c Config, i int) node.Spec {
	t.Helper()
	s, err := c.spec(i)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func names(s node.Spec) []string {
	var all []string
	for _, c := range s.Components {
		all = append(all, c.Name)
	}
	return all
}
