package lab

import (
	"net/netip"
	"testing"

	"github.com/middleway-net/middleway/node"
)

func newCluster(t testing.TB, c ClusterConfig) *Cluster {
	t.Helper()
	cl, err := NewCluster(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, n := range cl.Nodes {
				st, err := n.Status()
				t.Logf("%s: %+v %v\n%s", n.Name(), st.Stack, err, n.Daemon().Tail())
			}
		}
		if err := cl.Close(); err != nil {
			t.Error(err)
		}
	})
	return cl
}

func TestCluster(t *testing.T) { testCluster(t, ClusterConfig{}) }

// TestClusterPortable is TestCluster on the portable back end.
func TestClusterPortable(t *testing.T) {
	testCluster(t, ClusterConfig{Change: func(_ int, c *node.Config) { c.PortableDevices = true }})
}

func testCluster(t *testing.T, c ClusterConfig) {
	cl := newCluster(t, c)
	a, b := cl.Nodes[0].Pods[0], cl.Nodes[0].Pods[1]
	far := cl.Nodes[1].Pods[0]
	for name, to := range map[string]netip.Addr{
		"same node": b.Addr4, "same node IPv6": b.Addr6, "other node": far.Addr4, "other node IPv6": far.Addr6,
		"gateway": host(PodCIDR4(1), 1).Addr(), "gateway IPv6": host(PodCIDR6(1), 1).Addr(), "other node's gateway": host(PodCIDR4(2), 1).Addr(),
	} {
		t.Logf("%s: %v", name, mustPing(t, a.Namespace, to, 56))
	}
	size := int64(64 << 20)
	if testing.Short() {
		size = 8 << 20
	}
	transfer(t, a.Namespace, b.Namespace, b.Addr4, size)
	transfer(t, a.Namespace, far.Namespace, far.Addr4, size)
	transfer(t, far.Namespace, a.Namespace, a.Addr6, size)
}
