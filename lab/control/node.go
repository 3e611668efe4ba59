package control

import (
	"runtime"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// maxPods is kubelet's default.
const maxPods = 110

// object returns a node as its kubelet would have registered it.
func (n *Node) object() *corev1.Node {
	o := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: n.Name, Labels: map[string]string{
			corev1.LabelHostname: n.Name, corev1.LabelOSStable: runtime.GOOS, corev1.LabelArchStable: runtime.GOARCH,
		}},
	}
	if n.Zone != "" {
		o.Labels[corev1.LabelTopologyZone] = n.Zone
	}
	for _, c := range n.PodCIDRs {
		o.Spec.PodCIDRs = append(o.Spec.PodCIDRs, c.String())
	}
	o.Spec.PodCIDR = strings.Join(o.Spec.PodCIDRs[:min(1, len(o.Spec.PodCIDRs))], "")
	for _, a := range n.Addresses {
		o.Status.Addresses = append(o.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a.String()})
	}
	o.Status.Addresses = append(o.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: n.Name})
	now := metav1.NewTime(time.Now().Truncate(time.Second))
	o.Status.Conditions = []corev1.NodeCondition{{
		Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady", LastHeartbeatTime: now, LastTransitionTime: now,
	}}
	// Each node has the whole machine. The hints of topology-mode: Auto are in proportion to it.
	o.Status.Capacity = corev1.ResourceList{
		corev1.ResourceCPU: *resource.NewQuantity(int64(runtime.NumCPU()), resource.DecimalSI), corev1.ResourcePods: *resource.NewQuantity(maxPods, resource.DecimalSI),
	}
	o.Status.Allocatable = o.Status.Capacity
	o.Status.NodeInfo.OperatingSystem, o.Status.NodeInfo.Architecture = runtime.GOOS, runtime.GOARCH
	return o
}

func port(n int32) intstr.IntOrString { return intstr.FromInt32(n) }
