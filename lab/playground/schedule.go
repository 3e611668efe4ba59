package playground

import (
	"fmt"
	"slices"

	"github.com/middleway-net/middleway/lab/manifest"
)

// schedule returns for each pod the index of its node: the one that it names, else the one with the fewest pods, the first of
// them if there are several. Pods that name their node count first, wherever they stand, so that the others go around them. have
// is how many pods each node has already.
func schedule(pods []*manifest.Pod, have []int) ([]int, error) {
	chosen := make([]int, len(pods))
	nodes, count := len(have), slices.Clone(have)
	for i, p := range pods {
		chosen[i] = -1
		if p.Spec.NodeName == "" {
			continue
		}
		for n := range nodes {
			if nodeName(n+1) == p.Spec.NodeName {
				chosen[i] = n
			}
		}
		if chosen[i] < 0 {
			return nil, p.Errorf("spec.nodeName", "there is no node %q; %s", p.Spec.NodeName, existing(nodes))
		}
		count[chosen[i]]++
	}
	for i := range pods {
		if chosen[i] >= 0 {
			continue
		}
		least := 0
		for n := range count {
			if count[n] < count[least] {
				least = n
			}
		}
		chosen[i] = least
		count[least]++
	}
	return chosen, nil
}

func existing(nodes int) string {
	if nodes == 1 {
		return "the only one is " + nodeName(1)
	}
	return fmt.Sprintf("there are %s to %s, and --nodes makes more", nodeName(1), nodeName(nodes))
}
