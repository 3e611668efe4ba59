package e2e

import (
	"testing"

	"github.com/middleway-net/middleway/lab"
)

func TestHostPing(t *testing.T) {
	cl := newCluster(t, lab.ClusterConfig{Pods: []int{1, 1}})
	a, b := cl.Nodes[0], cl.Nodes[1]
	t.Logf("%+v", mustStatus(t, a).Host)
	mustPing(t, a.Namespace, a.Pods[0].Addr4, 56)
	mustPing(t, a.Namespace, b.Pods[0].Addr4, 56)
	mustPing(t, a.Namespace, a.Pods[0].Addr6, 56)
	mustPing(t, a.Namespace, b.Pods[0].Addr6, 56)
	mustPing(t, a.Pods[0].Namespace, lab.NodeAddr4(1).Addr(), 56)
	mustPing(t, a.Pods[0].Namespace, lab.NodeAddr4(2).Addr(), 56)
	mustPing(t, a.Pods[0].Namespace, lab.NodeAddr6(1).Addr(), 56)
	mustPing(t, a.Pods[0].Namespace, lab.NodeAddr6(2).Addr(), 56)
	mustPing(t, a.Pods[0].Namespace, host(lab.PodCIDR4(1), 0), 56)
	mustPing(t, a.Pods[0].Namespace, host(lab.PodCIDR4(2), 0), 56)
	mustPing(t, a.Namespace, host(lab.PodCIDR4(1), 1), 56)
}
