package perf

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/middleway-net/middleway/cluster/stage"
)

// node is one with its pods: net and peer in the pod network, host in the node's. All serve.
type node struct {
	name            string
	net, peer, host netip.Addr
	service         netip.Addr // leads to net's streams
	number          int
}

// container is the one of each pod.
const container = "tool"

// Ports of pods in the pod network: control, and where streams of TCP arrive.
const (
	controlPort = 5210
	streamPort  = 5211
)

func (n *node) pod(kind string) string { return fmt.Sprintf("%s-%d", kind, n.number) }

// setUp makes the pods and Services of all pairs, and waits for them.
func (r *run) setUp(ctx context.Context) error {
	for _, p := range r.pairs {
		for _, name := range p {
			if !slices.ContainsFunc(r.nodes, func(n *node) bool { return n.name == name }) {
				r.nodes = append(r.nodes, &node{name: name, number: len(r.nodes)})
			}
		}
	}
	for _, n := range r.nodes {
		for _, p := range r.podsOf(n) {
			if err := r.stage.Create(ctx, "", "pods", p, nil); err != nil {
				return err
			}
		}
		service := &corev1.Service{}
		if err := r.stage.Create(ctx, "", "services", serviceOf(n), service); err != nil {
			return err
		}
		var err error
		if n.service, err = netip.ParseAddr(service.Spec.ClusterIP); err != nil {
			return fmt.Errorf("service %s has no address: %w", service.Name, err)
		}
	}
	want := 3 * len(r.nodes)
	pods, err := r.stage.Await(ctx, r.Patience, func(pods []corev1.Pod) bool {
		ready := 0
		for _, p := range pods {
			if stage.Ready(&p) {
				ready++
			}
		}
		r.Progress(fmt.Sprintf("%d of %d pods are ready", ready, want))
		return ready == want
	})
	if err != nil {
		return err
	}
	return r.findPods(ctx, pods)
}

// findPods notes the pods' addresses; each has to be ready.
func (r *run) findPods(ctx context.Context, pods []corev1.Pod) error {
	for _, n := range r.nodes {
		for kind, into := range map[string]*netip.Addr{"net": &n.net, "peer": &n.peer, "host": &n.host} {
			i := slices.IndexFunc(pods, func(p corev1.Pod) bool { return p.Name == n.pod(kind) })
			if i < 0 {
				return fmt.Errorf("pod %s on node %s has gone", n.pod(kind), n.name)
			}
			addrs := stage.Addrs(&pods[i])
			if !stage.Ready(&pods[i]) || len(addrs) == 0 {
				return fmt.Errorf("pod %s on node %s was not ready within %v: %s", n.pod(kind), n.name, r.Patience, r.stage.WhyNot(ctx, &pods[i]))
			}
			*into = addrs[0]
		}
	}
	return nil
}

func (r *run) podsOf(n *node) []*corev1.Pod {
	made := func(kind string, control, stream int) *corev1.Pod {
		spec := r.image.PodSpec(corev1.Container{
			Name:    container,
			Command: stage.Argv("tool", "perf", "--serve", "--listen", fmt.Sprintf(":%d", control), "--stream-port", fmt.Sprint(stream)),
		})
		spec.NodeName, spec.NodeSelector, spec.RestartPolicy = n.name, nil, corev1.RestartPolicyAlways
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: n.pod(kind), Labels: map[string]string{"app": n.pod(kind)}}, Spec: spec}
	}
	host := made("host", int(r.FirstPort), int(r.FirstPort+1))
	host.Spec.HostNetwork = true
	return []*corev1.Pod{made("net", controlPort, streamPort), made("peer", controlPort, streamPort), host}
}

func serviceOf(n *node) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: n.pod("net")},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": n.pod("net")},
			Ports:    []corev1.ServicePort{{Port: streamPort, TargetPort: intstr.FromInt32(streamPort), Protocol: corev1.ProtocolTCP}},
		},
	}
}

// port is an address with one, in words.
func port(a netip.Addr, p int) string { return netip.AddrPortFrom(a, uint16(p)).String() }

// brief is the first line of an error.
func brief(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
