package check

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/middleway-net/middleway/cluster/stage"
)

// The DaemonSets, which are their pods' label app as well, and the container in their pods.
const (
	netPods   = "net"  // in the pod network
	hostPods  = "host" // in the node's
	container = "tool"
)

// Ports in pods of the pod network, and of the Services. Those of the node are FirstPort and what follows:
//
//	+0  host pods: HTTP        +2  host port of HTTP
//	+1  host pods: echo, TCP and UDP   +3  host port of echo by UDP
const (
	podHTTP     = 8080
	podEcho     = 8081
	serviceHTTP = 80
	serviceEcho = 7
)

// node is a node with its two pods.
type node struct {
	name      string
	flannel   bool // in the place of middleway
	net, host place
}

// place is a pod to ask from and to ask.
type place struct {
	pod   string
	addrs []netip.Addr
	ready bool
}

// addr returns the address of a family, if there is one.
func (p place) addr(f family) (netip.Addr, bool) {
	i := slices.IndexFunc(p.addrs, f.has)
	if i < 0 {
		return netip.Addr{}, false
	}
	return p.addrs[i], true
}

// services are those of the stage.
type services struct{ web, own, headless, outer *corev1.Service }

// findNodes reads the nodes, and says which are not looked at.
func (r *run) findNodes(ctx context.Context) error {
	query := url.Values{}
	if s := labels(r.Selector); s != "" {
		query.Set("labelSelector", s)
	}
	var list corev1.NodeList
	if err := r.API.Get(ctx, "/api/v1/nodes", query, &list); err != nil {
		return err
	}
	ready, daemons := r.check(groupNodes, "node is Ready", ""), r.check(groupNodes, daemonAnswers, "")
	if r.daemons == nil {
		daemons.Why = "there is no DaemonSet middleway in namespace " + r.API.Namespace
	}
	for _, n := range list.Items {
		if n.Labels[corev1.LabelOSStable] != "linux" {
			r.note("node %s is left out: its label %s is %q, not linux", n.Name, corev1.LabelOSStable, n.Labels[corev1.LabelOSStable])
			continue
		}
		_, daemon := r.daemons[n.Name]
		flannel := !daemon && hasFlannel(&n)
		if flannel && r.daemons != nil {
			r.note("node %s has flannel, and is asked for no daemon", n.Name)
		}
		r.nodes = append(r.nodes, &node{name: n.Name, flannel: flannel})
		r.report.Nodes = append(r.report.Nodes, n.Name)
		if why := notReady(&n); why != "" {
			ready.fail(n.Name, "", why)
		} else {
			ready.pass(n.Name, "", 0)
		}
	}
	if len(r.nodes) == 0 {
		return fmt.Errorf("there is no Linux node with the labels %q", labels(r.Selector))
	}
	slices.SortFunc(r.nodes, func(a, b *node) int { return strings.Compare(a.name, b.name) })
	slices.Sort(r.report.Nodes)
	if r.daemons == nil {
		return nil
	}
	return r.askDaemons(ctx, daemons)
}

// daemonAnswers is the check of the nodes' daemons.
const daemonAnswers = "its middleway daemon answers"

// hasFlannel reports whether a Node announces flannel's tunnel, and is none of middleway's (docs/kubernetes.md, "How nodes know each other").
func hasFlannel(n *corev1.Node) bool {
	return n.Annotations["flannel.alpha.coreos.com/kube-subnet-manager"] == "true" && n.Annotations["middleway.net/tunnel"] == ""
}

func labels(all map[string]string) string {
	var words []string
	for k, v := range all {
		words = append(words, k+"="+v)
	}
	slices.Sort(words)
	return strings.Join(words, ",")
}

func notReady(n *corev1.Node) string {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady && c.Status != corev1.ConditionTrue {
			return cmp.Or(c.Message, c.Reason, "it is not Ready")
		}
	}
	return ""
}

// setUp makes the Services and pods, and waits for them.
func (r *run) setUp(ctx context.Context) error {
	if err := r.makeServices(ctx); err != nil {
		return err
	}
	for _, d := range []*appsv1.DaemonSet{r.netDaemonSet(), r.hostDaemonSet()} {
		if err := r.stage.Create(ctx, "apps", "daemonsets", d, nil); err != nil {
			return err
		}
	}
	pods, err := r.stage.Await(ctx, r.Patience, func(pods []corev1.Pod) bool {
		ready := 0
		for _, p := range pods {
			if stage.Ready(&p) {
				ready++
			}
		}
		r.Progress(fmt.Sprintf("%d of %d pods are ready", ready, 2*len(r.nodes)))
		return ready == 2*len(r.nodes)
	})
	if err != nil {
		return err
	}
	r.castPods(ctx, pods)
	return r.awaitEndpoints(ctx)
}

// castPods finds the pods of each node.
func (r *run) castPods(ctx context.Context, pods []corev1.Pod) {
	for _, kind := range []struct {
		app, name string
		of        func(*node) *place
	}{
		{netPods, "a pod starts", func(n *node) *place { return &n.net }},
		{hostPods, "a pod with hostNetwork starts", func(n *node) *place { return &n.host }},
	} {
		c := r.check(groupNodes, kind.name, "")
		for _, n := range r.nodes {
			i := slices.IndexFunc(pods, func(p corev1.Pod) bool {
				return p.Labels["app"] == kind.app && (p.Spec.NodeName == n.name || wantsNode(&p, n.name))
			})
			if i < 0 {
				c.fail(n.name, "", "the DaemonSet made no pod there")
				continue
			}
			p := &pods[i]
			*kind.of(n) = place{p.Name, stage.Addrs(p), stage.Ready(p)}
			if !stage.Ready(p) {
				c.fail(n.name, "", fmt.Sprintf("pod %s was not ready within %v: %s", p.Name, r.Patience, r.stage.WhyNot(ctx, p)))
				c.Next = []string{"`kubectl describe node " + n.name + "`, and the log of its daemon: `kubectl -n " + r.API.Namespace + " logs POD`"}
				continue
			}
			c.pass(n.name, "", p.Status.StartTime.Sub(p.CreationTimestamp.Time))
		}
		c.times = nil // of whole seconds, they say nothing
	}
}

// wantsNode reports whether a DaemonSet's pod that no node has yet is meant for one.
func wantsNode(p *corev1.Pod, node string) bool {
	a := p.Spec.Affinity
	if a == nil || a.NodeAffinity == nil || a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return false
	}
	return slices.ContainsFunc(a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms, func(t corev1.NodeSelectorTerm) bool {
		return slices.ContainsFunc(t.MatchFields, func(f corev1.NodeSelectorRequirement) bool { return slices.Contains(f.Values, node) })
	})
}

// endpointPatience is how long the controller has to note that pods are ready.
const endpointPatience = 20 * time.Second

// awaitEndpoints waits until the pods that are ready are endpoints.
func (r *run) awaitEndpoints(ctx context.Context) error {
	r.Progress("waiting for EndpointSlices")
	want := len(r.reach(func(n *node) place { return n.net }))
	return r.stage.AwaitSlices(ctx, endpointPatience, func(slices []discoveryv1.EndpointSlice) bool {
		ready := map[string]int{}
		for _, s := range slices {
			for _, e := range s.Endpoints {
				if e.Conditions.Ready == nil || *e.Conditions.Ready {
					ready[s.Labels[discoveryv1.LabelServiceName]+" "+string(s.AddressType)]++
				}
			}
		}
		for _, n := range ready {
			if n != want {
				return false
			}
		}
		return len(ready) > 0 || want == 0
	})
}

// reach returns the nodes whose pod is ready.
func (r *run) reach(of func(*node) place) (all []*node) {
	for _, n := range r.nodes {
		if of(n).ready {
			all = append(all, n)
		}
	}
	return all
}

func (r *run) makeServices(ctx context.Context) error {
	prefer, local := corev1.IPFamilyPolicyPreferDualStack, corev1.ServiceInternalTrafficPolicyLocal
	ports := []corev1.ServicePort{
		{Name: "http", Port: serviceHTTP, TargetPort: intstr.FromInt32(podHTTP), Protocol: corev1.ProtocolTCP},
		{Name: "echo", Port: serviceEcho, TargetPort: intstr.FromInt32(podEcho), Protocol: corev1.ProtocolUDP},
	}
	made := func(name string, change func(*corev1.ServiceSpec)) (*corev1.Service, error) {
		s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": netPods}, Ports: slices.Clone(ports), IPFamilyPolicy: &prefer,
		}}
		change(&s.Spec)
		answer := &corev1.Service{}
		return answer, r.stage.Create(ctx, "", "services", s, answer)
	}
	for _, s := range []struct {
		into   **corev1.Service
		name   string
		change func(*corev1.ServiceSpec)
	}{
		{&r.service.web, "web", func(*corev1.ServiceSpec) {}},
		{&r.service.own, "own", func(s *corev1.ServiceSpec) { s.InternalTrafficPolicy = &local }},
		{&r.service.headless, "headless", func(s *corev1.ServiceSpec) { s.ClusterIP = corev1.ClusterIPNone }},
		{&r.service.outer, "outer", func(s *corev1.ServiceSpec) { s.Type = corev1.ServiceTypeNodePort }},
	} {
		var err error
		if *s.into, err = made(s.name, s.change); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) netDaemonSet() *appsv1.DaemonSet {
	c := corev1.Container{
		Name:    container,
		Command: stage.Argv("tool", "serve", "--listen", fmt.Sprintf(":%d", podHTTP), "--listen", fmt.Sprintf("tcp://:%d", podEcho), "--listen", fmt.Sprintf("udp://:%d", podEcho)),
		Ports: []corev1.ContainerPort{
			{Name: "http", ContainerPort: podHTTP, HostPort: int32(r.FirstPort + 2), Protocol: corev1.ProtocolTCP},
			{Name: "echo", ContainerPort: podEcho, HostPort: int32(r.FirstPort + 3), Protocol: corev1.ProtocolUDP},
		},
	}
	return r.daemonSet(netPods, r.image.PodSpec(c))
}

func (r *run) hostDaemonSet() *appsv1.DaemonSet {
	first := int(r.FirstPort)
	spec := r.image.PodSpec(corev1.Container{
		Name:    container,
		Command: stage.Argv("tool", "serve", "--listen", fmt.Sprintf(":%d", first), "--listen", fmt.Sprintf("tcp://:%d", first+1), "--listen", fmt.Sprintf("udp://:%d", first+1)),
	})
	spec.HostNetwork, spec.DNSPolicy = true, corev1.DNSClusterFirstWithHostNet
	return r.daemonSet(hostPods, spec)
}

func (r *run) daemonSet(app string, spec corev1.PodSpec) *appsv1.DaemonSet {
	for k, v := range r.Selector {
		spec.NodeSelector[k] = v
	}
	label := map[string]string{"app": app}
	return &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: app},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: label},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: label}, Spec: spec},
		},
	}
}
