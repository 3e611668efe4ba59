package report

import (
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Annotations and labels that go in: middleway's own, flannel's, by which nodes know each other, and where a node is.
var (
	ourAnnotations = []string{"middleway.net/", "flannel.alpha.coreos.com/"}
	ourLabels      = []string{"middleway.net/", "kubernetes.io/os", "kubernetes.io/arch", "kubernetes.io/hostname", "topology.kubernetes.io/", "node-role.kubernetes.io/"}
)

// ours keeps the entries whose keys begin with one of the prefixes.
func ours(all map[string]string, prefixes []string) map[string]string {
	kept := map[string]string{}
	for k, v := range all {
		for _, p := range prefixes {
			if strings.HasPrefix(k, p) {
				kept[k] = v
			}
		}
	}
	return kept
}

type nodeObject struct {
	Name          string                 `json:"name"`
	Created       metav1.Time            `json:"created"`
	Labels        map[string]string      `json:"labels"`
	Annotations   map[string]string      `json:"annotations"`
	PodCIDRs      []string               `json:"podCIDRs"`
	Unschedulable bool                   `json:"unschedulable,omitempty"`
	Taints        []string               `json:"taints,omitempty"`
	Addresses     []corev1.NodeAddress   `json:"addresses"`
	Conditions    []corev1.NodeCondition `json:"conditions"`
	Kernel        string                 `json:"kernel"`
	OS            string                 `json:"os"`
	Runtime       string                 `json:"runtime"`
	Kubelet       string                 `json:"kubelet"`
	Arch          string                 `json:"arch"`
}

func nodeOf(n *corev1.Node) nodeObject {
	i := n.Status.NodeInfo
	o := nodeObject{
		Name: n.Name, Created: n.CreationTimestamp, Labels: ours(n.Labels, ourLabels), Annotations: ours(n.Annotations, ourAnnotations),
		PodCIDRs: n.Spec.PodCIDRs, Unschedulable: n.Spec.Unschedulable, Addresses: n.Status.Addresses, Conditions: n.Status.Conditions,
		Kernel: i.KernelVersion, OS: i.OSImage, Runtime: i.ContainerRuntimeVersion, Kubelet: i.KubeletVersion, Arch: i.Architecture,
	}
	for _, t := range n.Spec.Taints {
		o.Taints = append(o.Taints, t.Key+":"+string(t.Effect))
	}
	return o
}

type containerObject struct {
	Name     string                  `json:"name"`
	Image    string                  `json:"image"`
	Command  []string                `json:"command,omitempty"`
	Args     []string                `json:"args,omitempty"`
	Env      []string                `json:"env,omitempty"` // names alone
	Mounts   []corev1.VolumeMount    `json:"mounts,omitempty"`
	Security *corev1.SecurityContext `json:"security,omitempty"`
}

func containerOf(c *corev1.Container) containerObject {
	o := containerObject{Name: c.Name, Image: c.Image, Command: c.Command, Args: c.Args, Mounts: c.VolumeMounts, Security: c.SecurityContext}
	for _, e := range c.Env {
		o.Env = append(o.Env, e.Name)
	}
	return o
}

type daemonSetObject struct {
	Name        string                         `json:"name"`
	Generation  int64                          `json:"generation"`
	Strategy    appsv1.DaemonSetUpdateStrategy `json:"strategy"`
	HostNetwork bool                           `json:"hostNetwork"`
	DNSPolicy   corev1.DNSPolicy               `json:"dnsPolicy"`
	Priority    string                         `json:"priority,omitempty"`
	Selector    map[string]string              `json:"nodeSelector,omitempty"`
	Tolerations []corev1.Toleration            `json:"tolerations"`
	Init        []containerObject              `json:"initContainers"`
	Containers  []containerObject              `json:"containers"`
	Volumes     map[string]string              `json:"volumes"` // the kind of each, and the path or name
	Status      appsv1.DaemonSetStatus         `json:"status"`
}

func daemonSetOf(d *appsv1.DaemonSet) daemonSetObject {
	s := &d.Spec.Template.Spec
	o := daemonSetObject{
		Name: d.Name, Generation: d.Generation, Strategy: d.Spec.UpdateStrategy, HostNetwork: s.HostNetwork, DNSPolicy: s.DNSPolicy,
		Priority: s.PriorityClassName, Selector: s.NodeSelector, Tolerations: s.Tolerations, Volumes: map[string]string{}, Status: d.Status,
	}
	for i := range s.InitContainers {
		o.Init = append(o.Init, containerOf(&s.InitContainers[i]))
	}
	for i := range s.Containers {
		o.Containers = append(o.Containers, containerOf(&s.Containers[i]))
	}
	for _, v := range s.Volumes {
		switch {
		case v.HostPath != nil:
			o.Volumes[v.Name] = "hostPath " + v.HostPath.Path
		case v.ConfigMap != nil:
			o.Volumes[v.Name] = "configMap " + v.ConfigMap.Name
		default:
			o.Volumes[v.Name] = "of another kind"
		}
	}
	return o
}

type podObject struct {
	Name       string                   `json:"name"`
	Node       string                   `json:"node"`
	Created    metav1.Time              `json:"created"`
	Deleted    *metav1.Time             `json:"deleted,omitempty"`
	Phase      corev1.PodPhase          `json:"phase"`
	Reason     string                   `json:"reason,omitempty"`
	Message    string                   `json:"message,omitempty"`
	IPs        []corev1.PodIP           `json:"ips"`
	Conditions []corev1.PodCondition    `json:"conditions"`
	Init       []corev1.ContainerStatus `json:"initContainers,omitempty"`
	Containers []corev1.ContainerStatus `json:"containers"`
}

func podOf(p *corev1.Pod) podObject {
	return podObject{
		Name: p.Name, Node: p.Spec.NodeName, Created: p.CreationTimestamp, Deleted: p.DeletionTimestamp, Phase: p.Status.Phase, Reason: p.Status.Reason,
		Message: p.Status.Message, IPs: p.Status.PodIPs, Conditions: p.Status.Conditions, Init: p.Status.InitContainerStatuses, Containers: p.Status.ContainerStatuses,
	}
}

type eventObject struct {
	First   metav1.Time `json:"first"`
	Last    metav1.Time `json:"last"`
	Count   int32       `json:"count"`
	Type    string      `json:"type"`
	Reason  string      `json:"reason"`
	By      string      `json:"by"`
	About   string      `json:"about"`
	Message string      `json:"message"`
}

func eventOf(e *corev1.Event) eventObject {
	o := eventObject{
		First: e.FirstTimestamp, Last: e.LastTimestamp, Count: e.Count, Type: e.Type, Reason: e.Reason, By: e.ReportingController,
		About: strings.TrimPrefix(e.InvolvedObject.Kind+" "+e.InvolvedObject.Namespace+"/"+e.InvolvedObject.Name, "/"), Message: e.Message,
	}
	if o.By == "" {
		o.By = e.Source.Component
	}
	if o.Last.IsZero() {
		o.First, o.Last = metav1.Time(e.EventTime), metav1.Time(e.EventTime)
	}
	return o
}

// serviceCounts is how many Services there are of what kinds.
type serviceCounts struct {
	Services   int            `json:"services"`
	Types      map[string]int `json:"types"`
	Headless   int            `json:"headless"`
	Affinity   int            `json:"sessionAffinity"`
	External   int            `json:"externalTrafficPolicyLocal"`
	Internal   int            `json:"internalTrafficPolicyLocal"`
	DualStack  int            `json:"dualStack"`
	Scheduler  map[string]int `json:"scheduler"`
	Slices     int            `json:"endpointSlices"`
	Endpoints  int            `json:"endpoints"`
	Namespaces int            `json:"namespaces"` // that have Services
}

func (c *serviceCounts) count(s *corev1.Service) {
	c.Services++
	c.Types[string(s.Spec.Type)]++
	if word := s.Annotations["middleway.net/scheduler"]; word != "" {
		c.Scheduler[word]++
	}
	for _, kind := range []struct {
		n  *int
		is bool
	}{
		{&c.Headless, s.Spec.ClusterIP == corev1.ClusterIPNone},
		{&c.Affinity, s.Spec.SessionAffinity == corev1.ServiceAffinityClientIP},
		{&c.External, s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal},
		{&c.Internal, s.Spec.InternalTrafficPolicy != nil && *s.Spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal},
		{&c.DualStack, len(s.Spec.IPFamilies) > 1},
	} {
		if kind.is {
			*kind.n++
		}
	}
}
