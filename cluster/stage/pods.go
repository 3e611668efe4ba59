package stage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/middleway-net/middleway/cluster"
	"github.com/middleway-net/middleway/k8s/remote"
)

// program is where the image has middleway.
const program = "/usr/local/bin/middleway"

// Argv is a command line of middleway in the image.
func Argv(words ...string) []string { return append([]string{program}, words...) }

// Image is what pods are made of.
type Image struct {
	Reference string
	Pull      corev1.PullPolicy
}

// daemonLabels are those by which the daemons' DaemonSet is known.
var daemonLabels = []string{"app=middleway", "app.kubernetes.io/name=middleway"}

// Daemons returns the DaemonSet of the cluster's daemons.
func Daemons(ctx context.Context, api *cluster.API) (*appsv1.DaemonSet, error) {
	path := "/apis/apps/v1/namespaces/" + api.Namespace + "/daemonsets"
	for _, label := range daemonLabels {
		var list appsv1.DaemonSetList
		if err := api.Get(ctx, path, url.Values{"labelSelector": {label}}, &list); err != nil {
			return nil, err
		}
		if len(list.Items) > 0 {
			return &list.Items[0], nil
		}
	}
	return nil, fmt.Errorf("%w in namespace %s; --middleway-namespace names another one, and --image an image with middleway", ErrNoDaemons, api.Namespace)
}

// ErrNoDaemons says that there is no DaemonSet of middleway.
var ErrNoDaemons = errors.New("there is no DaemonSet middleway")

// DaemonContainer is the daemon's in its pod.
const DaemonContainer = "node"

// DaemonPods returns the daemons' pods by their nodes' names.
func DaemonPods(ctx context.Context, api *cluster.API) (map[string]*corev1.Pod, error) {
	var list corev1.PodList
	if err := api.Get(ctx, "/api/v1/namespaces/"+api.Namespace+"/pods", nil, &list); err != nil {
		return nil, err
	}
	return remote.DaemonPods(list.Items), nil
}

// ImageOf is the daemons' image.
func ImageOf(d *appsv1.DaemonSet) (Image, error) {
	for _, c := range d.Spec.Template.Spec.Containers {
		if c.Name == DaemonContainer || len(d.Spec.Template.Spec.Containers) == 1 {
			return Image{c.Image, c.ImagePullPolicy}, nil
		}
	}
	return Image{}, fmt.Errorf("DaemonSet %s has no container %s; name an image by --image", d.Name, DaemonContainer)
}

// PodSpec is that of a pod on the stage: no rights, no service account's token, on every node whatever its taints.
func (i Image) PodSpec(containers ...corev1.Container) corev1.PodSpec {
	no, yes, nobody, second := false, true, int64(65534), int64(1)
	for n := range containers {
		c := &containers[n]
		c.Image, c.ImagePullPolicy = i.Reference, cmp.Or(i.Pull, corev1.PullIfNotPresent)
		c.SecurityContext = &corev1.SecurityContext{
			AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes, RunAsNonRoot: &yes, RunAsUser: &nobody, RunAsGroup: &nobody,
			Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		}
	}
	return corev1.PodSpec{
		Containers: containers, AutomountServiceAccountToken: &no, EnableServiceLinks: &no, TerminationGracePeriodSeconds: &second,
		NodeSelector: map[string]string{corev1.LabelOSStable: "linux"},
		Tolerations:  []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
	}
}

// Await waits until pods are ready, up to a time, and returns those that are there by then. enough says with each look whether the wait is
// over.
func (s *Stage) Await(ctx context.Context, patience time.Duration, enough func([]corev1.Pod) bool) (pods []corev1.Pod, err error) {
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err = poll(waiting, func() (bool, error) {
		var list corev1.PodList
		if err := s.List(waiting, "", "pods", &list); err != nil {
			return false, err
		}
		pods = list.Items
		return enough(pods), nil
	})
	if ctx.Err() == nil && waiting.Err() != nil {
		err = nil // what is not there is the answer
	}
	return pods, err
}

// Ready reports whether all containers of a pod run.
func Ready(p *corev1.Pod) bool {
	return p.DeletionTimestamp == nil && slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// Addrs returns a pod's addresses.
func Addrs(p *corev1.Pod) (addrs []netip.Addr) {
	for _, ip := range p.Status.PodIPs {
		if a, err := netip.ParseAddr(ip.IP); err == nil {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// WhyNot says why a pod is not ready: what a container waits for, what the scheduler says, and the latest warning about it.
func (s *Stage) WhyNot(ctx context.Context, p *corev1.Pod) string {
	var words []string
	for _, c := range p.Status.ContainerStatuses {
		if w := c.State.Waiting; w != nil && w.Reason != "ContainerCreating" {
			words = append(words, strings.TrimSuffix(w.Reason+": "+w.Message, ": "))
		}
		if t := c.State.Terminated; t != nil {
			words = append(words, fmt.Sprintf("ended with code %d", t.ExitCode))
		}
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			words = append(words, c.Message)
		}
	}
	if len(words) == 0 {
		words = s.warnings(ctx, p)
	}
	if len(words) == 0 {
		words = []string{cmp.Or(p.Status.Message, p.Status.Reason, "is "+string(p.Status.Phase))}
	}
	return strings.Join(words, "; ")
}

// warnings are the latest Events about a pod that warn.
func (s *Stage) warnings(ctx context.Context, p *corev1.Pod) []string {
	var list corev1.EventList
	query := url.Values{"fieldSelector": {"involvedObject.name=" + p.Name + ",type=Warning"}}
	if s.API.Get(ctx, s.path("events"), query, &list) != nil || len(list.Items) == 0 {
		return nil // there may be no right to read them, and none is needed
	}
	latest := slices.MaxFunc(list.Items, func(a, b corev1.Event) int { return a.LastTimestamp.Compare(b.LastTimestamp.Time) })
	return []string{latest.Reason + ": " + latest.Message}
}

// AwaitSlices waits until the namespace's EndpointSlices are as enough wants them, up to a time. What is late then is found out by those
// who ask.
func (s *Stage) AwaitSlices(ctx context.Context, patience time.Duration, enough func([]discoveryv1.EndpointSlice) bool) error {
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := poll(waiting, func() (bool, error) {
		var list discoveryv1.EndpointSliceList
		if err := s.List(waiting, "discovery.k8s.io", "endpointslices", &list); err != nil {
			return false, err
		}
		return enough(list.Items), nil
	})
	if ctx.Err() == nil && (waiting.Err() != nil || errors.Is(err, cluster.ErrForbidden)) {
		return nil
	}
	return err
}
