package playground

import (
	"fmt"
	"slices"

	"github.com/middleway-net/middleway/lab/manifest"
)

// load is what runs on a node.
type load struct {
	pods  int
	ports []manifest.HostPort // which of the node's are taken
}

func (l *load) add(p *manifest.Pod) {
	l.pods++
	l.ports = append(slices.Clone(l.ports), p.HostPorts()...)
}

// conflict returns the first of the pod's host ports that the node does not have free, or nil.
func (l *load) conflict(p *manifest.Pod) *manifest.HostPort {
	for _, want := range p.HostPorts() {
		if slices.ContainsFunc(l.ports, func(taken manifest.HostPort) bool { return want.Conflicts(&taken) }) {
			return &want
		}
	}
	return nil
}

// schedule returns for each pod the index of its node: the one that it names, else the one with the fewest pods, the first of
// them if there are several. Pods that name their node count first, wherever they stand, so that the others go around them. It is
// -1 for a pod that has to wait until a node has its host ports free. have is what each node has already.
func schedule(pods []*manifest.Pod, have []load) ([]int, error) {
	chosen := make([]int, len(pods))
	nodes := slices.Clone(have)
	for i, p := range pods {
		chosen[i] = -1
		if p.Spec.NodeName == "" {
			continue
		}
		n := nodeIndex(p.Spec.NodeName, len(nodes))
		if n < 0 {
			return nil, p.Errorf("spec.nodeName", "there is no node %q; %s", p.Spec.NodeName, existing(len(nodes)))
		}
		if nodes[n].conflict(p) == nil {
			chosen[i] = n
			nodes[n].add(p)
		}
	}
	for i, p := range pods {
		if p.Spec.NodeName != "" {
			continue
		}
		for n := range nodes {
			if nodes[n].conflict(p) == nil && (chosen[i] < 0 || nodes[n].pods < nodes[chosen[i]].pods) {
				chosen[i] = n
			}
		}
		if chosen[i] >= 0 {
			nodes[chosen[i]].add(p)
		}
	}
	return chosen, nil
}

// nodeIndex returns the index of a node by its name, -1 if there is none.
func nodeIndex(name string, nodes int) int {
	for n := range nodes {
		if nodeName(n+1) == name {
			return n
		}
	}
	return -1
}

// waits says why a pod has no node yet.
func waits(p *manifest.Pod, nodes []load) error {
	where := "no node has it free"
	if n := nodeIndex(p.Spec.NodeName, len(nodes)); n >= 0 {
		nodes, where = nodes[n:n+1], p.Spec.NodeName+" does not have it free"
	}
	want := nodes[0].conflict(p)
	return fmt.Errorf("waits for hostPort %s %d: %s", want.Protocol, want.Port, where)
}

func existing(nodes int) string {
	if nodes == 1 {
		return "the only one is " + nodeName(1)
	}
	return fmt.Sprintf("there are %s to %s, and --nodes makes more", nodeName(1), nodeName(nodes))
}
