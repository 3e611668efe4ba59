package kubectl

import (
	"cmp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/middleway-net/middleway/lab/control"
)

var nodeColumns = []column{
	{name: "NAME"}, {name: "STATUS"}, {name: "ROLES"}, {name: "AGE"}, {name: "VERSION"},
	{"INTERNAL-IP", true}, {"EXTERNAL-IP", true}, {"OS-IMAGE", true}, {"KERNEL-VERSION", true}, {"CONTAINER-RUNTIME", true},
}

func nodeCells(o control.Object, at clock) []string {
	n := o.(*corev1.Node)
	const unknown = "<unknown>"
	info := n.Status.NodeInfo
	kernel := cmp.Or(info.KernelVersion, unknown)
	if info.Architecture != "" {
		kernel += " (" + info.Architecture + ")"
	}
	return []string{
		n.Name, nodeWord(n), orNone(strings.Join(nodeRoles(n), ",")), at.age(n.CreationTimestamp), info.KubeletVersion,
		nodeAddress(n, corev1.NodeInternalIP), nodeAddress(n, corev1.NodeExternalIP),
		cmp.Or(info.OSImage, unknown), kernel, cmp.Or(info.ContainerRuntimeVersion, unknown),
	}
}

func nodeWord(n *corev1.Node) string {
	word := "Unknown"
	for _, c := range n.Status.Conditions {
		if c.Type != corev1.NodeReady {
			continue
		}
		if word = "NotReady"; c.Status == corev1.ConditionTrue {
			word = "Ready"
		}
	}
	if n.Spec.Unschedulable {
		word += ",SchedulingDisabled"
	}
	return word
}

// nodeRoles are told by labels, of two conventions.
func nodeRoles(n *corev1.Node) []string {
	var roles []string
	for key, value := range n.Labels {
		if role, ok := strings.CutPrefix(key, "node-role.kubernetes.io/"); ok && role != "" {
			roles = append(roles, role)
		} else if key == "kubernetes.io/role" && value != "" {
			roles = append(roles, value)
		}
	}
	slices.Sort(roles)
	return slices.Compact(roles)
}

func nodeAddress(n *corev1.Node, t corev1.NodeAddressType) string {
	for _, a := range n.Status.Addresses {
		if a.Type == t {
			return a.Address
		}
	}
	return "<none>"
}

var namespaceColumns = []column{{name: "NAME"}, {name: "STATUS"}, {name: "AGE"}}

func namespaceCells(o control.Object, at clock) []string {
	n := o.(*corev1.Namespace)
	return []string{n.Name, string(n.Status.Phase), at.age(n.CreationTimestamp)}
}
