// Package manifest renders the chart as Helm does, with Helm's own engine, into manifests that are applied without it.
package manifest

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
)

// Namespace is where the manifests of the repository put what has one.
const Namespace = "middleway"

// order in which the templates' objects are applied: the namespace first, what needs the others last.
var order = []string{"namespace.yaml", "rbac.yaml", "configmap.yaml", "kube-dns.yaml", "daemonset.yaml"}

// Render returns the chart's manifests with these values in the place of its own, as one text of YAML documents.
func Render(chart string, values map[string]any) (string, error) {
	c, err := loader.LoadDir(chart)
	if err != nil {
		return "", fmt.Errorf("load chart %s: %w", chart, err)
	}
	release := common.ReleaseOptions{Name: "middleway", Namespace: Namespace, Revision: 1, IsInstall: true}
	all, err := util.ToRenderValues(c, values, release, common.DefaultCapabilities)
	if err != nil {
		return "", err
	}
	files, err := engine.Render(c, all)
	if err != nil {
		return "", err
	}
	var documents []string
	for _, name := range slices.SortedFunc(maps.Keys(files), inOrder) {
		if text := tidy(files[name]); text != "" && path.Ext(name) == ".yaml" {
			documents = append(documents, text)
		}
	}
	return strings.Join(documents, "---\n"), nil
}

// inOrder puts templates that order does not know behind the others.
func inOrder(a, b string) int {
	place := func(name string) int {
		if i := slices.Index(order, path.Base(name)); i >= 0 {
			return i
		}
		return len(order)
	}
	if d := place(a) - place(b); d != 0 {
		return d
	}
	return strings.Compare(a, b)
}

// tidy takes away the empty lines and the blanks at ends of lines that templates leave.
func tidy(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimRight(line, " \n"); line != "" {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		return ""
	}
	return strings.Join(lines, "\n") + "\n"
}

// head of the manifests in the repository.
const (
	installHead = `# middleway on every node of a cluster: kubectl apply -f middleway.yaml. As it stands it is the pod network of a cluster with kube-proxy and CoreDNS;
# the ConfigMap below says what to change to replace these too, docs/install.md how to install it on kubeadm, k3s, kind and minikube.
# This file is made from the chart in deploy/chart by make manifest.
`
	uninstallHead = `# Takes middleway off the nodes again: each pod of the DaemonSet becomes one that removes what the daemon has left there.
#   kubectl apply -f uninstall.yaml && kubectl -n middleway rollout status daemonset/middleway && kubectl delete -f middleway.yaml
# This file is made from the chart in deploy/chart by make manifest.
`
)

// Files returns the manifests of the repository's folder deploy by name.
func Files(chart string) (map[string]string, error) {
	install, err := Render(chart, map[string]any{"plain": true})
	if err != nil {
		return nil, err
	}
	uninstall, err := Render(chart, map[string]any{"plain": true, "uninstall": true})
	if err != nil {
		return nil, err
	}
	return map[string]string{"middleway.yaml": installHead + install, "uninstall.yaml": uninstallHead + uninstall}, nil
}

// empty matches a document of comments alone.
var empty = regexp.MustCompile(`(?m)\A(?:\s*(?:#.*)?\n?)*\z`)

// Documents splits a text of YAML documents, and leaves those out that have nothing but comments.
func Documents(text string) (documents []string) {
	for _, d := range strings.Split("\n"+text, "\n---\n") {
		if !empty.MatchString(d) {
			documents = append(documents, d)
		}
	}
	return documents
}
