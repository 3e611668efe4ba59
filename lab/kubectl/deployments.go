package kubectl

import (
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/middleway-net/middleway/lab/control"
)

var deploymentColumns = []column{
	{name: "NAME"}, {name: "READY"}, {name: "UP-TO-DATE"}, {name: "AVAILABLE"}, {name: "AGE"},
	{"CONTAINERS", true}, {"IMAGES", true}, {"SELECTOR", true},
}

func deploymentCells(o control.Object, at clock) []string {
	d := o.(*appsv1.Deployment)
	names, images := containers(d.Spec.Template)
	return []string{
		d.Name, fmt.Sprintf("%d/%d", d.Status.ReadyReplicas, replicas(d.Spec.Replicas)), fmt.Sprint(d.Status.UpdatedReplicas),
		fmt.Sprint(d.Status.AvailableReplicas), at.age(d.CreationTimestamp), names, images, selector(d.Spec.Selector),
	}
}

var replicaSetColumns = []column{
	{name: "NAME"}, {name: "DESIRED"}, {name: "CURRENT"}, {name: "READY"}, {name: "AGE"},
	{"CONTAINERS", true}, {"IMAGES", true}, {"SELECTOR", true},
}

func replicaSetCells(o control.Object, at clock) []string {
	r := o.(*appsv1.ReplicaSet)
	names, images := containers(r.Spec.Template)
	return []string{
		r.Name, fmt.Sprint(replicas(r.Spec.Replicas)), fmt.Sprint(r.Status.Replicas), fmt.Sprint(r.Status.ReadyReplicas),
		at.age(r.CreationTimestamp), names, images, selector(r.Spec.Selector),
	}
}

// replicas is how many pods are wanted.
func replicas(n *int32) int32 {
	if n == nil {
		return 1 // Kubernetes' default
	}
	return *n
}

// containers lists the names and images of a template's containers.
func containers(t corev1.PodTemplateSpec) (names, images string) {
	var ns, is []string
	for _, c := range t.Spec.Containers {
		ns, is = append(ns, c.Name), append(is, c.Image)
	}
	return strings.Join(ns, ","), strings.Join(is, ",")
}

func selector(s *metav1.LabelSelector) string {
	parsed, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return "<invalid>"
	}
	return parsed.String()
}
