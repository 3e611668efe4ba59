package remote

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
)

// container is that of the daemon in its pod (deploy/middleway.yaml).
const container = "node"

// Daemon is middleway's pod on a node.
type Daemon struct {
	Node, Pod string
	// Addresses are those of the node in the pod's status, by which its peers know it.
	Addresses []netip.Addr
	// Problem says why it cannot be asked, in a clause; "" where it can.
	Problem  string
	Ready    bool // for kubelet, which asks /readyz
	Restarts int
	Started  time.Time // its container
	runDir   string    // in the container; "" for the default
}

// Words names the daemon in a sentence.
func (d *Daemon) Words() string { return "the daemon of " + d.Node }

// Daemons returns middleway's pods, one of each node, sorted by node. It is an error if there is none.
func (c *Cluster) Daemons(ctx context.Context) ([]Daemon, error) {
	all, err := c.daemons(ctx, "")
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("there is no pod of middleway in namespace %s of the cluster %s; is it installed there, or in another namespace (--middleway-namespace)?", c.config.Namespace, c.rest.Host)
	}
	return all, err
}

// Daemon returns middleway's pod on a node that can be asked; where there is none the error is a *NoDaemon.
func (c *Cluster) Daemon(ctx context.Context, node string) (Daemon, error) {
	all, err := c.daemons(ctx, node)
	switch {
	case err != nil:
		return Daemon{}, err
	case len(all) == 0:
		return Daemon{}, &NoDaemon{node, fmt.Sprintf("there is no pod of middleway in namespace %s on it; is there such a node, and is middleway in another namespace (--middleway-namespace)?", c.config.Namespace)}
	case all[0].Problem != "":
		return Daemon{}, &NoDaemon{node, fmt.Sprintf("pod %s %s", all[0].Pod, all[0].Problem)}
	}
	return all[0], nil
}

// daemons returns middleway's pods of one node, or of all.
func (c *Cluster) daemons(ctx context.Context, node string) ([]Daemon, error) {
	where := fields.Everything()
	if node != "" {
		where = fields.OneTermEqualSelector("spec.nodeName", node)
	}
	var pods corev1.PodList
	if err := c.list(ctx, "pods", c.config.Namespace, where, &pods); err != nil {
		return nil, err
	}
	var all []Daemon
	for _, p := range DaemonPods(pods.Items) {
		all = append(all, daemonOf(p))
	}
	slices.SortFunc(all, func(a, b Daemon) int { return strings.Compare(a.Node, b.Node) })
	return all, nil
}

// DaemonPods returns those of a namespace's pods that are middleway's, by their nodes' names: of several on one node the one to be asked.
func DaemonPods(pods []corev1.Pod) map[string]*corev1.Pod {
	byNode := map[string]*corev1.Pod{}
	for i := range pods {
		p := &pods[i]
		if !isDaemon(p) {
			continue
		}
		if other := byNode[p.Spec.NodeName]; other == nil || better(p, other) {
			byNode[p.Spec.NodeName] = p
		}
	}
	return byNode
}

// isDaemon reports whether a pod on a node is middleway's.
func isDaemon(p *corev1.Pod) bool {
	labeled := p.Labels["app.kubernetes.io/name"] == "middleway" || p.Labels["app"] == "middleway"
	return labeled && p.Spec.NodeName != "" && slices.ContainsFunc(p.Spec.Containers, func(s corev1.Container) bool { return s.Name == container })
}

// better reports whether p is to be asked rather than another pod on its node, as there are two while one takes the other's place.
func better(p, other *corev1.Pod) bool {
	rank := func(p *corev1.Pod) int {
		switch {
		case problemOf(p) != "":
			return 0
		case p.DeletionTimestamp != nil:
			return 1
		}
		return 2
	}
	return cmp.Or(rank(p)-rank(other), p.CreationTimestamp.Compare(other.CreationTimestamp.Time)) > 0
}

func daemonOf(p *corev1.Pod) Daemon {
	d := Daemon{Node: p.Spec.NodeName, Pod: p.Name, Problem: problemOf(p), runDir: runDirOf(p)}
	for _, ip := range p.Status.HostIPs {
		if a, err := netip.ParseAddr(ip.IP); err == nil {
			d.Addresses = append(d.Addresses, a)
		}
	}
	for _, s := range p.Status.ContainerStatuses {
		if s.Name == container {
			d.Ready, d.Restarts = s.Ready, int(s.RestartCount)
			if s.State.Running != nil {
				d.Started = s.State.Running.StartedAt.Time
			}
		}
	}
	return d
}

// runDirOf returns the daemon's run directory as the container has it: where volume run of deploy/middleway.yaml is mounted.
func runDirOf(p *corev1.Pod) string {
	for _, s := range p.Spec.Containers {
		for _, m := range s.VolumeMounts {
			if s.Name == container && m.Name == "run" {
				return m.MountPath
			}
		}
	}
	return ""
}

// problemOf says why nothing can be run in the daemon's container; "" where it can.
func problemOf(p *corev1.Pod) string {
	var what string
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		switch {
		case s.Name == container && s.State.Running != nil:
			return ""
		case what != "" || s.State.Terminated != nil && s.State.Terminated.ExitCode == 0 && s.Name != container:
		case s.State.Waiting != nil && s.State.Waiting.Reason != "PodInitializing":
			what = fmt.Sprintf("container %s waits: %s", s.Name, words(s.State.Waiting.Reason, s.State.Waiting.Message))
		case s.State.Terminated != nil:
			what = fmt.Sprintf("container %s has ended with exit code %d: %s", s.Name, s.State.Terminated.ExitCode, words(s.State.Terminated.Reason, s.State.Terminated.Message))
		}
	}
	phase := words(string(p.Status.Phase), p.Status.Reason, p.Status.Message)
	return "is not running (" + cmp.Or(what, phase) + fmt.Sprintf("); `kubectl -n %s describe pod %s` and `kubectl -n %[1]s logs %s -c %s` say more", p.Namespace, p.Name, container)
}

func words(all ...string) string {
	return strings.Join(slices.DeleteFunc(all, func(s string) bool { return s == "" }), ", ")
}

// Pod returns a pod.
func (c *Cluster) Pod(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	var p corev1.Pod
	err := c.get(ctx, "pods", namespace, name, &p)
	if apierrors.IsNotFound(err) {
		err = fmt.Errorf("there is no pod %s/%s; `kubectl get pods -A` lists them", namespace, name)
	}
	return &p, err
}

// Service returns a Service, or nil if there is none of this name.
func (c *Cluster) Service(ctx context.Context, namespace, name string) (*corev1.Service, error) {
	var s corev1.Service
	err := c.get(ctx, "services", namespace, name, &s)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return &s, err
}

// Nodes returns the names of all nodes, sorted.
func (c *Cluster) Nodes(ctx context.Context) (names []string, err error) {
	var nodes corev1.NodeList
	err = c.list(ctx, "nodes", "", fields.Everything(), &nodes)
	for _, n := range nodes.Items {
		names = append(names, n.Name)
	}
	slices.Sort(names)
	return names, err
}

// Pods returns the pods of a namespace, or of all for "".
func (c *Cluster) Pods(ctx context.Context, namespace string) ([]corev1.Pod, error) {
	var pods corev1.PodList
	err := c.list(ctx, "pods", namespace, fields.Everything(), &pods)
	return pods.Items, err
}

func (c *Cluster) get(ctx context.Context, resource, namespace, name string, into runtime.Object) error {
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	err := c.core.Get().Namespace(namespace).Resource(resource).Name(name).Do(ctx).Into(into)
	return c.inWords(err, fmt.Sprintf("verb get on %s in namespace %s", resource, namespace))
}

func (c *Cluster) list(ctx context.Context, resource, namespace string, where fields.Selector, into runtime.Object) error {
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	right := "verb list on " + resource
	get := c.core.Get().Resource(resource).SpecificallyVersionedParams(&metav1.ListOptions{FieldSelector: where.String()}, metav1.ParameterCodec, metav1.SchemeGroupVersion)
	if namespace != "" {
		get, right = get.Namespace(namespace), right+" in namespace "+namespace
	}
	return c.inWords(get.Do(ctx).Into(into), right)
}
