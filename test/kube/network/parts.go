package network

import (
	"context"
	"embed"
	"strings"
	"text/template"

	"sigs.k8s.io/yaml"

	"github.com/middleway-net/middleway/test/kube/cluster"
	"github.com/middleway-net/middleway/test/kube/node"
	"github.com/middleway-net/middleway/test/kube/plan"
)

//go:embed *.yaml
var manifests embed.FS

// render fills in a manifest of this package.
func render(name string, c cluster.Config) (string, error) {
	t, err := template.ParseFS(manifests, name)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	err = t.Execute(&b, struct {
		Address string // of the DNS Service
		Image   string // of CoreDNS
	}{c.DNSService()[0].String(), c.Programs.CoreDNS})
	return b.String(), err
}

// applyDNSService makes the Service by whose address pods ask for names, with nothing behind it.
func applyDNSService(ctx context.Context, c *cluster.Cluster) error {
	text, err := render("kube-dns.yaml", c.Config)
	if err != nil {
		return err
	}
	return c.Apply(ctx, text)
}

// applyCoreDNS makes CoreDNS, and the Service before it.
func applyCoreDNS(ctx context.Context, c *cluster.Cluster) error {
	text, err := render("coredns.yaml", c.Config)
	if err != nil {
		return err
	}
	return c.Apply(ctx, text)
}

// runKubeProxy starts kube-proxy as a program of the node.
func runKubeProxy(ctx context.Context, c *cluster.Cluster, n *cluster.Node, mode string) error {
	config, err := yaml.Marshal(map[string]any{
		"apiVersion":       "kubeproxy.config.k8s.io/v1alpha1",
		"kind":             "KubeProxyConfiguration",
		"mode":             mode,
		"hostnameOverride": n.Name,
		"clientConnection": map[string]any{"kubeconfig": c.PKI("proxy.kubeconfig")},
		"clusterCIDR":      plan.Join(c.PodCIDRs()),
		"conntrack":        map[string]any{"maxPerCore": 0, "min": 0}, // these are settings of the whole machine
		"iptables":         map[string]any{"minSyncPeriod": "100ms"},
		"nftables":         map[string]any{"minSyncPeriod": "100ms"},
	})
	if err != nil {
		return err
	}
	if err := n.WriteFile("/etc/kubernetes/kube-proxy.yaml", string(config)); err != nil {
		return err
	}
	return n.Run(ctx, node.Component{Name: "kube-proxy", Args: []string{c.Program("kube-proxy"), "--config=/etc/kubernetes/kube-proxy.yaml", "--v=2"}})
}
