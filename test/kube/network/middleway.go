package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/middleway-net/middleway/test/kube/cluster"
	"github.com/middleway-net/middleway/test/kube/plan"
)

// Middleway is the network under test, whole: nothing of it is started but by its manifest. Its image has to be among those of
// the cluster.
type Middleway struct {
	Manifest  string // file: deploy/middleway.yaml
	KubeProxy bool   // kube-proxy serves NodePorts and the nodes' own clients beside it
	CoreDNS   bool   // CoreDNS answers names in its place
}

var _ cluster.Network = Middleway{}

// Install applies the manifest, set for this cluster.
func (m Middleway) Install(ctx context.Context, c *cluster.Cluster) error {
	text, err := os.ReadFile(m.Manifest)
	if err != nil {
		return err
	}
	manifests, err := m.configure(text, c.Plan)
	if err != nil {
		return fmt.Errorf("%s: %w", m.Manifest, err)
	}
	if err := c.Apply(ctx, manifests); err != nil {
		return err
	}
	if m.CoreDNS {
		return applyCoreDNS(ctx, c)
	}
	return applyDNSService(ctx, c)
}

// Join starts what is beside it on a node.
func (m Middleway) Join(ctx context.Context, c *cluster.Cluster, n *cluster.Node) error {
	if m.KubeProxy {
		return runKubeProxy(ctx, c, n, "nftables")
	}
	return nil
}

// Ready waits for the daemons of all nodes, by which names are answered, too.
func (m Middleway) Ready(ctx context.Context, c *cluster.Cluster) error {
	if err := rolledOut(ctx, c, "middleway", "daemonset/middleway"); err != nil {
		return err
	}
	if m.CoreDNS {
		return rolledOut(ctx, c, "kube-system", "deployment/coredns")
	}
	return nil
}

func rolledOut(ctx context.Context, c *cluster.Cluster, namespace, what string) error {
	_, err := c.Kubectl(ctx, "-n", namespace, "rollout", "status", what, "--timeout="+(3*time.Minute).String())
	return err
}

// configMap is where the manifest has the daemon's configuration, by the name of the object and of its entry.
const configMap, configEntry = "middleway", "node.yaml"

// configure sets in the manifests what depends on the cluster, as docs/kubernetes.md tells its owner to: the API server's address and
// the ranges of Services, and what runs beside.
func (m Middleway) configure(manifests []byte, p plan.Plan) (string, error) {
	var out bytes.Buffer
	found := false
	for _, doc := range bytes.Split(manifests, []byte("\n---\n")) {
		var object map[string]any
		if err := yaml.Unmarshal(doc, &object); err != nil {
			return "", err
		}
		if len(object) == 0 {
			continue
		}
		if metadata, _ := object["metadata"].(map[string]any); object["kind"] == "ConfigMap" && metadata["name"] == configMap {
			data, _ := object["data"].(map[string]any)
			text, _ := data[configEntry].(string)
			config, err := m.nodeConfig(text, p)
			if err != nil {
				return "", fmt.Errorf("%s of ConfigMap %s: %w", configEntry, configMap, err)
			}
			data[configEntry] = config
			found = true
		}
		text, err := yaml.Marshal(object)
		if err != nil {
			return "", err
		}
		out.WriteString("---\n")
		out.Write(text)
	}
	if !found {
		return "", errors.New("there is no ConfigMap " + configMap + " to set")
	}
	return out.String(), nil
}

// nodeConfig is the daemon's configuration for this cluster (docs/node.md).
func (m Middleway) nodeConfig(text string, p plan.Plan) (string, error) {
	var config map[string]any
	if err := yaml.Unmarshal([]byte(text), &config); err != nil {
		return "", err
	}
	set := func(section, field string, value any) {
		s, _ := config[section].(map[string]any)
		if s == nil {
			s = map[string]any{}
			config[section] = s
		}
		s[field] = value
	}
	set("kubernetes", "server", p.Server())
	set("services", "cidrs", p.ServiceCIDRs())
	set("services", "besideKubeProxy", m.KubeProxy)
	set("dns", "off", m.CoreDNS)
	out, err := yaml.Marshal(config)
	return string(out), err
}
