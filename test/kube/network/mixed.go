package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/middleway-net/middleway/test/kube/cluster"
)

// Mixed is a cluster whose nodes have middleway, or flannel's VXLAN with kube-proxy. A label of the Node says which, as in
// docs/kubernetes.md, "Coming from flannel".
type Mixed struct {
	Middleway Middleway // its manifest is for the nodes with Label alone
	Flannel   []string  // nodes that have flannel at first
}

var _ cluster.Network = Mixed{}

// IsMixed says whether a cluster's network is a mixed one.
func IsMixed(c *cluster.Cluster) bool {
	name, _, _ := strings.Cut(c.Network, "+")
	return name == "mixed"
}

// Beside says whether a program, kube-proxy or coredns, runs beside middleway.
func Beside(c *cluster.Cluster, program string) bool {
	return slices.Contains(strings.Split(c.Network, "+")[1:], program)
}

// Label is that of the nodes that have middleway, by its value. Those whose value is leaving are being cleaned of it, and those without the label have
// flannel.
const Label, labelMiddleway, labelLeaving = "network", "middleway", "leaving"

// Install applies middleway's manifest.
func (m Mixed) Install(ctx context.Context, c *cluster.Cluster) error {
	return m.Middleway.Install(ctx, c)
}

// Join gives the node its network.
func (m Mixed) Join(ctx context.Context, c *cluster.Cluster, n *cluster.Node) error {
	if slices.Contains(m.Flannel, n.Name) {
		return Reference{Flannel: true}.Join(ctx, c, n)
	}
	if err := m.Middleway.Join(ctx, c, n); err != nil {
		return err
	}
	return label(ctx, c, n, "="+labelMiddleway)
}

// Ready waits for the daemons, and leads flannel's nodes to them for names.
func (m Mixed) Ready(ctx context.Context, c *cluster.Cluster) error {
	if err := m.Middleway.Ready(ctx, c); err != nil {
		return err
	}
	return applyDNSEndpoints(ctx, c, "")
}

// label sets the label of a node to "=VALUE", or takes it away by "-".
func label(ctx context.Context, c *cluster.Cluster, n *cluster.Node, change string) error {
	args := []string{"label", "node", n.Name, Label + change}
	if change != "-" {
		args = append(args, "--overwrite")
	}
	_, err := c.Kubectl(ctx, args...)
	return err
}

// applyDNSEndpoints names the gateway addresses of the nodes that have middleway as endpoints of the DNS Service, but for one node's, and none of that
// name where it is empty. Where CoreDNS is, names are its own business.
func applyDNSEndpoints(ctx context.Context, c *cluster.Cluster, without string) error {
	if Beside(c, "coredns") {
		return nil
	}
	out, err := c.Kubectl(ctx, "get", "nodes", "-l", Label+"="+labelMiddleway, "-o", `jsonpath={range .items[*]}{.metadata.name} {.spec.podCIDR}{"\n"}{end}`)
	if err != nil {
		return err
	}
	text, err := dnsEndpoints(out, without)
	if err != nil {
		return err
	}
	return c.Apply(ctx, text)
}

// dnsEndpoints is the EndpointSlice for lines "NODE RANGE".
func dnsEndpoints(nodes, without string) (string, error) {
	endpoints := []any{}
	for line := range strings.Lines(nodes) {
		name, cidr, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name == without {
			continue
		}
		p, err := netip.ParsePrefix(cidr)
		if err != nil {
			return "", fmt.Errorf("range of pods of node %s: %w", name, err)
		}
		endpoints = append(endpoints, map[string]any{"addresses": []string{p.Masked().Addr().Next().String()}})
	}
	text, err := yaml.Marshal(map[string]any{
		"apiVersion":  "discovery.k8s.io/v1",
		"kind":        "EndpointSlice",
		"metadata":    map[string]any{"name": "kube-dns-middleway", "namespace": "kube-system", "labels": map[string]any{"kubernetes.io/service-name": "kube-dns"}},
		"addressType": "IPv4",
		"ports":       []any{map[string]any{"name": "dns", "port": 53, "protocol": "UDP"}, map[string]any{"name": "dns-tcp", "port": 53, "protocol": "TCP"}},
		"endpoints":   endpoints,
	})
	return string(text), err
}

// Move gives a node of a mixed cluster the other network, "flannel" or "middleway", as its owner would: its pods are evicted, and those of DaemonSets
// attached anew.
func Move(ctx context.Context, c *cluster.Cluster, n *cluster.Node, to string, say func(format string, args ...any)) error {
	if !IsMixed(c) {
		return fmt.Errorf("cluster %s has the network %s; nodes move in a mixed one: kube up --network mixed", c.Name, c.Network)
	}
	is, err := c.Kubectl(ctx, "get", "node", n.Name, "-o", "jsonpath={.metadata.labels."+Label+"}")
	if err != nil {
		return err
	}
	var change func(context.Context, *cluster.Cluster, *cluster.Node, func(string, ...any)) error
	switch {
	case to == "middleway" && is == "":
		change = toMiddleway
	case to == "flannel" && is != "":
		change = toFlannel
	case to == "middleway" || to == "flannel":
		return fmt.Errorf("%s has %s already", n.Name, to)
	default:
		return fmt.Errorf("a node moves to flannel or to middleway, not to %q", to)
	}
	if err := n.Registered(ctx); err != nil {
		return err
	}
	if err := applyDNSEndpoints(ctx, c, n.Name); err != nil {
		return err
	}
	if _, err := c.Kubectl(ctx, "drain", n.Name, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=2m"); err != nil {
		return err
	}
	say("%s is drained", n.Name)
	if err := change(ctx, c, n, say); err != nil {
		return err
	}
	if err := renewPods(ctx, c, n); err != nil {
		return err
	}
	if _, err := c.Kubectl(ctx, "uncordon", n.Name); err != nil {
		return err
	}
	if err := n.Ready(ctx); err != nil {
		return err
	}
	return applyDNSEndpoints(ctx, c, "")
}

func toMiddleway(ctx context.Context, c *cluster.Cluster, n *cluster.Node, say func(string, ...any)) error {
	if err := label(ctx, c, n, "="+labelMiddleway); err != nil {
		return err
	}
	components, script, arguments := []string{"flanneld", "kube-proxy"}, filepath.Join(c.Deploy, "from-flannel.sh"), []string{"sh", "-s"}
	if Beside(c, "kube-proxy") {
		components, arguments = components[:1], append(arguments, "--", "--keep-kube-proxy")
	}
	for _, component := range components { // which are DaemonSets elsewhere
		if err := n.Remove(ctx, component); err != nil {
			return err
		}
	}
	text, err := os.Open(script)
	if err != nil {
		return err
	}
	defer text.Close()
	cmd, err := n.Command(ctx, arguments...)
	if err != nil {
		return err
	}
	cmd.Stdin = text
	if _, err := cluster.Output(cmd, nil); err != nil {
		return fmt.Errorf("%s on %s: %w", script, n.Name, err)
	}
	say("%s has no %s, nor what was left", n.Name, strings.Join(components, ", no "))
	if err := podReady(ctx, c, n, "middleway"); err != nil {
		return err
	}
	say("the daemon of %s serves", n.Name)
	return nil
}

func toFlannel(ctx context.Context, c *cluster.Cluster, n *cluster.Node, say func(string, ...any)) error {
	if err := label(ctx, c, n, "="+labelLeaving); err != nil {
		return err
	}
	if err := podReady(ctx, c, n, "middleway-to-flannel"); err != nil {
		return err
	}
	say("%s has no daemon, nor what it left", n.Name)
	if err := label(ctx, c, n, "-"); err != nil {
		return err
	}
	if err := (Reference{Flannel: true}).Join(ctx, c, n); err != nil {
		return err
	}
	say("flannel serves on %s", n.Name)
	return nil
}

// podReady waits until the pod of a DaemonSet, by its label app, is Ready on a node.
func podReady(ctx context.Context, c *cluster.Cluster, n *cluster.Node, app string) error {
	return cluster.Eventually(ctx, 2*time.Minute, func() error {
		_, err := c.Kubectl(ctx, "-n", "middleway", "wait", "pod", "-l", "app="+app, "--field-selector", "spec.nodeName="+n.Name, "--for=condition=Ready", "--timeout=10s")
		return err
	})
}

// renewPods deletes the node's pods that a former network attached, which are those of DaemonSets, and waits until they are gone.
func renewPods(ctx context.Context, c *cluster.Cluster, n *cluster.Node) error {
	out, err := c.Kubectl(ctx, "get", "pods", "-A", "--field-selector", "spec.nodeName="+n.Name, "-o",
		`go-template={{range .items}}{{if not .spec.hostNetwork}}{{.metadata.namespace}} {{.metadata.name}}{{"\n"}}{{end}}{{end}}`)
	if err != nil {
		return err
	}
	var errs []error
	for line := range strings.Lines(out) {
		namespace, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		_, err := c.Kubectl(ctx, "-n", namespace, "delete", "pod", name, "--ignore-not-found", "--timeout=2m")
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
