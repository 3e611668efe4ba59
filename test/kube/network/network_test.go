package network

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/middleway-net/middleway/test/kube/cluster"
	"github.com/middleway-net/middleway/test/kube/plan"
)

func TestConfigure(t *testing.T) {
	manifests := `# a comment alone
---
kind: ConfigMap
metadata: {name: other}
data: {node.yaml: "untouched: true"}
---
kind: ConfigMap
metadata: {name: middleway, namespace: middleway}
data:
  node.yaml: |
    kubernetes: {inCluster: true, server: "https://192.0.2.1:6443"}
    services: {cidrs: [10.0.0.0/8]}
    runDir: /run/middleway
---
kind: DaemonSet
`
	for _, c := range []struct {
		name   string
		m      Middleway
		family plan.Family
		want   map[string]any // of node.yaml
	}{
		{"alone", Middleway{}, plan.IPv4, map[string]any{
			"kubernetes": map[string]any{"inCluster": true, "server": "https://192.168.254.11:6443"},
			"services":   map[string]any{"cidrs": []any{"10.96.0.0/16"}, "besideKubeProxy": false},
			"dns":        map[string]any{"off": false},
			"runDir":     "/run/middleway",
		}},
		{"beside", Middleway{KubeProxy: true, CoreDNS: true}, plan.Dual, map[string]any{
			"kubernetes": map[string]any{"inCluster": true, "server": "https://192.168.254.11:6443"},
			"services":   map[string]any{"cidrs": []any{"10.96.0.0/16", "fd00:10:96::/112"}, "besideKubeProxy": true},
			"dns":        map[string]any{"off": true},
			"runDir":     "/run/middleway",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			text, err := c.m.configure([]byte(manifests), plan.Plan{Name: "kube", Nodes: 1, Family: c.family})
			if err != nil {
				t.Fatal(err)
			}
			docs := objects(t, text)
			if len(docs) != 3 {
				t.Fatalf("got %d objects, want 3:\n%s", len(docs), text)
			}
			if got := docs[0]["data"].(map[string]any)["node.yaml"]; got != "untouched: true" {
				t.Errorf("another ConfigMap was changed: %v", got)
			}
			var got map[string]any
			if err := yaml.Unmarshal([]byte(docs[1]["data"].(map[string]any)["node.yaml"].(string)), &got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
	if _, err := (Middleway{}).configure([]byte("kind: Namespace"), plan.Plan{}); err == nil {
		t.Error("manifests without the ConfigMap were taken")
	}
}

// objects reads YAML documents, each of which must be an object.
func objects(t *testing.T, text string) []map[string]any {
	t.Helper()
	var all []map[string]any
	for _, doc := range strings.Split(text, "\n---\n") {
		var o map[string]any
		if err := yaml.Unmarshal([]byte(strings.TrimPrefix(doc, "---\n")), &o); err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		all = append(all, o)
	}
	return all
}

func TestRender(t *testing.T) {
	c := cluster.Config{Plan: plan.Plan{Name: "kube", Nodes: 1, Family: plan.IPv6}, Programs: cluster.Programs{CoreDNS: "localhost/coredns:v1"}}
	for _, name := range []string{"kube-dns.yaml", "coredns.yaml"} {
		text, err := render(name, c)
		if err != nil {
			t.Fatal(err)
		}
		docs := objects(t, text)
		service := docs[len(docs)-1]
		if got := service["spec"].(map[string]any)["clusterIP"]; service["kind"] != "Service" || got != "fd00:10:96::a" {
			t.Errorf("%s: a %v with the address %v", name, service["kind"], got)
		}
	}
}

func TestFlannelConfig(t *testing.T) {
	for family, want := range map[plan.Family]string{
		plan.IPv4: `{"Backend":{"Type":"vxlan"},"EnableIPv4":true,"EnableIPv6":false,"Network":"10.244.0.0/16"}`,
		plan.Dual: `{"Backend":{"Type":"vxlan"},"EnableIPv4":true,"EnableIPv6":true,"IPv6Network":"fd00:10:244::/56","Network":"10.244.0.0/16"}`,
	} {
		if got, err := flannelConfig(plan.Plan{Family: family}); err != nil || got != want {
			t.Errorf("%s: got %s, %v, want %s", family, got, err, want)
		}
	}
}

func TestMixedNames(t *testing.T) {
	for network, want := range map[string][3]bool{
		"mixed": {true, false, false}, "mixed+coredns": {true, false, true}, "mixed+kube-proxy+coredns": {true, true, true},
		"middleway+kube-proxy": {false, true, false}, "reference": {},
	} {
		c := &cluster.Cluster{Config: cluster.Config{Network: network}}
		if got := [3]bool{IsMixed(c), Beside(c, "kube-proxy"), Beside(c, "coredns")}; got != want {
			t.Errorf("%s: got %v, want %v", network, got, want)
		}
	}
}

func TestDNSEndpoints(t *testing.T) {
	text, err := dnsEndpoints("kube-1 10.244.0.0/24\nkube-2 10.244.1.0/24\nkube-3 10.244.2.0/24\n", "kube-2")
	if err != nil {
		t.Fatal(err)
	}
	want := []any{map[string]any{"addresses": []any{"10.244.0.1"}}, map[string]any{"addresses": []any{"10.244.2.1"}}}
	if diff := cmp.Diff(want, objects(t, text)[0]["endpoints"]); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if _, err := dnsEndpoints("kube-1 \n", ""); err == nil || !strings.Contains(err.Error(), "kube-1") {
		t.Errorf("a node without a range: %v", err)
	}
}

func TestMasquerade(t *testing.T) {
	want := `table inet reference {
	chain post {
		type nat hook postrouting priority srcnat
		ip saddr 10.244.0.0/16 ip daddr != { 10.244.0.0/16, 192.168.254.11-192.168.254.98 } masquerade
	}
}
`
	if diff := cmp.Diff(want, masquerade(plan.Plan{Family: plan.IPv4})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
