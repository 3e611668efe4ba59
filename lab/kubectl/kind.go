package kubectl

import (
	"fmt"
	"slices"
	"strings"

	"github.com/middleway-net/middleway/lab/control"
)

// form is how the objects of a kind are shown.
type form struct {
	kind    *control.Kind
	columns []column
	// cells returns an object's cells, one for each column.
	cells func(o control.Object, at clock) []string
}

var forms = []form{
	{control.Pods, podColumns, podCells},
	{control.Services, serviceColumns, serviceCells},
	{control.Deployments, deploymentColumns, deploymentCells},
	{control.ReplicaSets, replicaSetColumns, replicaSetCells},
	{control.EndpointSlices, endpointSliceColumns, endpointSliceCells},
	{control.Nodes, nodeColumns, nodeCells},
	{control.Namespaces, namespaceColumns, namespaceCells},
}

// all are the kinds of `get all`, in kubectl's order.
var all = []*control.Kind{control.Pods, control.Services, control.Deployments, control.ReplicaSets}

func formOf(k *control.Kind) form {
	i := slices.IndexFunc(forms, func(f form) bool { return f.kind == k })
	return forms[i] // a test holds the two lists against each other
}

// elsewhere are kinds of Kubernetes that the playground does not have, with their short names.
var elsewhere = []string{
	"configmaps", "cm", "controllerrevisions", "cronjobs", "cj", "customresourcedefinitions", "crd", "daemonsets", "ds", "events", "ev",
	"horizontalpodautoscalers", "hpa", "ingressclasses", "ingresses", "ing", "jobs", "leases", "limitranges", "limits", "networkpolicies", "netpol",
	"persistentvolumeclaims", "pvc", "persistentvolumes", "pv", "poddisruptionbudgets", "pdb", "podtemplates", "priorityclasses", "pc",
	"replicationcontrollers", "rc", "resourcequotas", "quota", "rolebindings", "roles", "secrets", "serviceaccounts", "sa",
	"statefulsets", "sts", "storageclasses", "sc",
}

// kindsNamed returns the kinds that a word stands for: one, or those of `all`.
func kindsNamed(word string) ([]*control.Kind, error) {
	name := strings.ToLower(word)
	switch name {
	case "all":
		return all, nil
	case "ep", "endpoint", "endpoints":
		return nil, fmt.Errorf("%s: there are no Endpoints in the playground, which Kubernetes has deprecated; ask for endpointslices", word)
	}
	if k := control.KindNamed(name); k != nil {
		return []*control.Kind{k}, nil
	}
	name, _, _ = strings.Cut(name, ".")
	if slices.ContainsFunc(elsewhere, func(n string) bool { return name == n || name == singular(n) }) {
		return nil, fmt.Errorf("%s: a real cluster has them, the playground does not; it has %s", word, kindList())
	}
	return nil, fmt.Errorf("there is no kind %q; there are %s", word, kindList())
}

func singular(plural string) string {
	switch {
	case strings.HasSuffix(plural, "ies"):
		return strings.TrimSuffix(plural, "ies") + "y"
	case strings.HasSuffix(plural, "sses"):
		return strings.TrimSuffix(plural, "es")
	}
	return strings.TrimSuffix(plural, "s")
}

// kindList names the kinds for a person.
func kindList() string {
	var words []string
	for _, f := range forms {
		word := f.kind.Plural
		if len(f.kind.Short) > 0 {
			word += " (" + f.kind.Short[0] + ")"
		}
		words = append(words, word)
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " and " + words[last]
}

// ref names an object as kubectl's messages do, for example deployment.apps/web.
func ref(kind, group, name string) string { return groupKind(kind, group) + "/" + name }

func groupKind(kind, group string) string {
	if group != "" {
		kind += "." + group
	}
	return strings.ToLower(kind)
}
