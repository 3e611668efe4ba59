package playground

import (
	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
)

// join says how the nodes reach each other. This is the one place that knows; nodes, pods and status only see the
// configurations that come out of it.
func join(lc *lab.ClusterConfig, c Config) {
	labUnderlay{userspace: c.Userspace}.join(lc)
}

// underlay is a way to join the nodes.
type underlay interface {
	// join sets what the lab makes, and by Change what stands in each node's configuration.
	join(lc *lab.ClusterConfig)
}

// labUnderlay is a network of the lab's own between the nodes' namespaces, of the kernel or of a switch in userspace.
type labUnderlay struct{ userspace bool }

func (u labUnderlay) join(lc *lab.ClusterConfig) {
	lc.Underlay.Userspace = u.userspace
	lc.Change = func(int, *node.Config) {}
}

var _ underlay = labUnderlay{}

func describeUnderlay(cl *lab.Cluster) string {
	if cl.Underlay.Link() != nil {
		return "a switch in userspace"
	}
	return "the kernel's veth"
}
