package e2e

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/middleway-net/middleway/k8s/folder"
	"github.com/middleway-net/middleway/k8s/nodes"
	"github.com/middleway-net/middleway/k8s/object"
	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
)

// nodeObject is node number as kubelet, controller manager and its daemon have made it.
func nodeObject(number int, podCIDRs ...netip.Prefix) *corev1.Node {
	addr := lab.NodeAddr4(number).Addr()
	n := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name:        "node-" + string(rune('0'+number)),
			Annotations: nodes.Announcement{Address: addr, VNI: 1, MAC: node.DefaultMAC(addr)}.Annotations(nil),
		},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeHostName, Address: "node"},
			{Type: corev1.NodeInternalIP, Address: addr.String()},
			{Type: corev1.NodeInternalIP, Address: lab.NodeAddr6(number).Addr().String()},
		}},
	}
	for _, r := range podCIDRs {
		n.Spec.PodCIDRs = append(n.Spec.PodCIDRs, r.String())
	}
	return n
}

func ofPlan(number int) []netip.Prefix {
	return []netip.Prefix{lab.PodCIDR4(number), lab.PodCIDR6(number)}
}

// inCluster makes two nodes that know nothing but their names and a state folder.
func inCluster(t *testing.T) (*lab.Cluster, *folder.Writer) {
	t.Helper()
	dir := shortDir(t)
	state, err := folder.NewWriter(dir)
	mustHave(t, err)
	for number := 1; number <= 2; number++ {
		mustHave(t, state.Put(nodeObject(number, ofPlan(number)...)))
	}
	mustHave(t, state.Complete())
	return newCluster(t, lab.ClusterConfig{Pods: []int{1, 1}, Change: func(_ int, c *node.Config) {
		c.Peers, c.PodCIDRs, c.NodeAddresses, c.Address = nil, nil, nil, netip.Addr{}
		c.Kubernetes.Folder = dir
	}}), state
}

func awaitRoutes(t *testing.T, n *lab.Node, want ...string) {
	t.Helper()
	var got []string
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if got = throughMW0(t, n.Namespace); slices.Equal(got, want) {
			return
		}
	}
	t.Fatalf("%s routes %v through mw0, want %v", n.Name(), got, want)
}

// Nodes take their ranges, addresses and peers from a cluster's Node objects, and peers come and go while they run.
func TestNodesOfACluster(t *testing.T) {
	t.Parallel() // much of it is waiting
	cl, state := inCluster(t)
	one, two := cl.Nodes[0], cl.Nodes[1]
	both := []string{"10.244.1.0/24", "10.244.2.0/24", "fd00:10:244:1::/64", "fd00:10:244:2::/64"}
	for i, n := range cl.Nodes {
		awaitRoutes(t, n, both...)
		p := awaitPeer(t, n, 2-i, "the peer answers", isUp)
		if refused := strings.Contains(p.Why, "the route refuses trains"); !p.RemoteChecksum || !p.Trains && !refused {
			t.Errorf("a middleway peer is met as a kernel is: %+v", p)
		}
	}
	st := mustStatus(t, one)
	if !slices.Equal(st.PodCIDRs, ofPlan(1)) || st.Address != lab.NodeAddr4(1).Addr() {
		t.Errorf("podCIDRs %v, address %v", st.PodCIDRs, st.Address)
	}
	far := two.Pods[0]
	transfer{from: one.Pods[0].Namespace, to: far.Namespace, addr: far.Addr4, size: 4 << 20}.run(t)
	transfer{from: one.Namespace, to: far.Namespace, addr: far.Addr6, size: 4 << 20}.run(t)

	mustHave(t, state.Delete(object.Nodes, "", "node-2"))
	awaitRoutes(t, one, "10.244.1.0/24", "fd00:10:244:1::/64")
	if st := mustStatus(t, one); len(st.Peers) != 0 {
		t.Errorf("peers of node-1 after node-2 was deleted: %+v", st.Peers)
	}
	silent := nodeObject(2, ofPlan(2)...)
	silent.Annotations = nil
	mustHave(t, state.Put(silent))
	awaitLog(t, one, "a node is no peer yet", "peer=node-2", "not announced a tunnel")
	mustHave(t, state.Put(nodeObject(2, ofPlan(2)...)))
	awaitRoutes(t, one, both...)
	awaitPeer(t, one, 2, "the peer answers again", isUp)
	transfer{from: one.Pods[0].Namespace, to: far.Namespace, addr: far.Addr6, size: 4 << 20}.run(t)
}

// A daemon that comes back without the cluster goes on with what the last one knew of itself. When the cluster tells another range, it
// ends with a sentence, and the next one takes that.
func TestNodeObjectIsRemembered(t *testing.T) {
	t.Parallel() // much of it is waiting
	cl, state := inCluster(t)
	one := cl.Nodes[0]
	mustHave(t, state.Remove())
	killAndStart(t, one)
	mustPing(t, one.Namespace, one.Pods[0].Addr4, 56)

	other := netip.MustParsePrefix("10.244.7.0/24")
	state, err := folder.NewWriter(one.Config.Kubernetes.Folder)
	mustHave(t, err)
	mustHave(t, state.Put(nodeObject(1, other)))
	mustHave(t, state.Complete())
	select {
	case <-one.Daemon().Done():
	case <-time.After(20 * time.Second):
		t.Fatalf("the daemon lives on with a range that is no longer its:\n%s", one.Daemon().Tail())
	}
	if err, log := one.Daemon().Wait(), one.Daemon().Tail(); err == nil || !strings.Contains(log, "spec.podCIDRs of node node-1 is [10.244.7.0/24] now, and was [10.244.1.0/24 fd00:10:244:1::/64]") {
		t.Errorf("it ended with %v:\n%s", err, log)
	}
	one.Config.Pods = nil
	mustHave(t, one.Start())
	mustHave(t, one.WaitReady(10*time.Second))
	if st := mustStatus(t, one); !slices.Equal(st.PodCIDRs, []netip.Prefix{other}) {
		t.Errorf("podCIDRs %v, want %v", st.PodCIDRs, other)
	}
}

// A range of a new peer that somebody else routes a part of is told and tried again; the host reaches it once that route is gone, and pods
// reach it all the time.
func TestPeersRouteTaken(t *testing.T) {
	t.Parallel() // much of it is waiting
	cl, state := inCluster(t)
	one, far := cl.Nodes[0], cl.Nodes[1].Pods[0]
	awaitRoutes(t, one, "10.244.1.0/24", "10.244.2.0/24", "fd00:10:244:1::/64", "fd00:10:244:2::/64")
	mustHave(t, state.Delete(object.Nodes, "", "node-2"))
	awaitRoutes(t, one, "10.244.1.0/24", "fd00:10:244:1::/64")
	mustHave(t, one.AddRoute(netip.MustParsePrefix("10.244.2.64/26"), netip.Addr{}, "eth0"))
	mustHave(t, state.Put(nodeObject(2, ofPlan(2)...)))
	awaitLog(t, one, "the host does not reach the pods of all peers", "10.244.2.64/26", "eth0")
	if missing := mustStatus(t, one).Host.Missing; !strings.Contains(missing, "10.244.2.64/26") {
		t.Errorf("status says %q of the host's device", missing)
	}
	transfer{from: one.Pods[0].Namespace, to: far.Namespace, addr: far.Addr4, size: 1 << 20}.run(t)
	nl, err := one.Netlink()
	mustHave(t, err)
	routes, err := nl.RouteList(nil, netlink.FAMILY_V4)
	mustHave(t, err)
	for _, r := range routes {
		if r.Dst.String() == "10.244.2.64/26" {
			mustHave(t, nl.RouteDel(&r))
		}
	}
	awaitRoutes(t, one, "10.244.1.0/24", "10.244.2.0/24", "fd00:10:244:1::/64", "fd00:10:244:2::/64")
	if missing := mustStatus(t, one).Host.Missing; missing != "" {
		t.Errorf("status still says %q", missing)
	}
}
