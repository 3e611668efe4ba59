package service

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/middleway-net/middleway/k8s/folder"
	"github.com/middleway-net/middleway/k8s/object"
	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
	"github.com/middleway-net/middleway/stack"
	"github.com/middleway-net/middleway/stack/packet"
)

func TestMain(m *testing.M) { lab.Main(m) }

// cluster is a lab's cluster whose daemons follow a state folder.
type cluster struct {
	*lab.Cluster
	t      testing.TB
	folder *folder.Writer
	dir    string // of folder
}

var serviceCIDRs = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd00:10:96::/112")}

// newCluster makes a cluster without Services.
func newCluster(t testing.TB, conf lab.ClusterConfig) *cluster {
	t.Helper()
	c := &cluster{t: t, dir: filepath.Join(t.TempDir(), "state")}
	if conf.Pods == nil {
		conf.Pods = []int{2, 2}
	}
	c.fill(len(conf.Pods))
	change := conf.Change
	conf.Change = func(number int, n *node.Config) {
		n.Address, n.NodeAddresses, n.PodCIDRs, n.Peers = netip.Addr{}, nil, nil, nil // they are in the folder
		n.Kubernetes.Folder = c.dir
		n.Services.CIDRs = serviceCIDRs
		n.DNS.ResolvConf = "none"
		if change != nil {
			change(number, n)
		}
	}
	var err error
	c.Cluster, err = lab.NewCluster(conf)
	c.must(err)
	t.Cleanup(c.close)
	for _, n := range c.Nodes {
		c.awaitSynced(n)
	}
	return c
}

// fill makes a folder with what a cluster has before anybody uses it.
func (c *cluster) fill(nodes int) {
	c.t.Helper()
	var err error
	c.folder, err = folder.NewWriter(c.dir)
	c.must(err)
	c.must(c.folder.Put(&corev1.Namespace{ObjectMeta: meta("", "default")}))
	for number := range nodes {
		c.must(c.folder.Put(nodeObject(number + 1)))
	}
	c.must(c.folder.Complete())
}

func (c *cluster) close() {
	for _, n := range c.Nodes {
		if c.t.Failed() || strings.Contains(n.Daemon().Tail(), "panic:") {
			st, err := n.Status()
			c.t.Errorf("%s: %+v %+v %v\n%s", n.Name(), st.Stack, st.Cluster, err, n.Daemon().Tail())
		}
	}
	if err := c.Close(); err != nil {
		c.t.Error(err)
	}
}

func (c *cluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// awaitSynced waits until a node has all that is in the folder.
func (c *cluster) awaitSynced(n *lab.Node) {
	c.t.Helper()
	eventually(c.t, n.Name()+" has read the folder", func() bool {
		st, err := n.Status()
		return err == nil && st.Cluster != nil && st.Cluster.Synced && st.Cluster.InForce != nil
	})
}

// pod returns a pod by its number on its node, both from 1.
func (c *cluster) pod(node, number int) *lab.Pod { return c.Nodes[node-1].Pods[number-1] }

// put writes a Service and its slices and waits until they are in force on all nodes.
func (c *cluster) put(s *corev1.Service, of ...endpoint) {
	c.t.Helper()
	c.must(c.folder.Put(s))
	c.endpoints(s, of...)
}

// endpoints writes a Service's slices and waits until they are in force on all nodes. The Service has traffic policy Cluster.
func (c *cluster) endpoints(s *corev1.Service, of ...endpoint) {
	c.t.Helper()
	c.write(slicesOf(s, of...)...)
	for _, n := range c.Nodes {
		c.await(n, s, of...)
	}
}

func (c *cluster) write(all ...*discoveryv1.EndpointSlice) {
	c.t.Helper()
	for _, s := range all {
		c.must(c.folder.Put(s))
	}
}

// await waits until a node chooses among the usable ones of these endpoints for each of a Service's addresses.
func (c *cluster) await(n *lab.Node, s *corev1.Service, of ...endpoint) {
	c.t.Helper()
	for _, f := range families {
		want := usable(f, of)
		i := slices.Index(s.Spec.IPFamilies, f.ip)
		eventually(c.t, fmt.Sprintf("%s chooses among %v for %s", n.Name(), want, s.Spec.ClusterIPs[i]), func() bool {
			got := c.traced(n, s, netip.MustParseAddr(s.Spec.ClusterIPs[i]))
			if got == nil {
				return false
			}
			slices.SortFunc(got.Backends, netip.AddrPort.Compare)
			return slices.Equal(got.Backends, want)
		})
	}
}

// traced returns what a node makes of a packet of its host to a Service's first port, which is one of TCP; nil if it knows none.
func (c *cluster) traced(n *lab.Node, s *corev1.Service, ip netip.Addr) *stack.TracedService {
	c.t.Helper()
	hop := c.trace(n, node.TraceRequest{From: node.DefaultHostDevice, Dst: ip, Proto: uint8(packet.TCP), DstPort: uint16(s.Spec.Ports[0].Port)})
	i := slices.IndexFunc(hop.Steps, func(s stack.Step) bool { return s.Service != nil })
	if i < 0 {
		return nil
	}
	return hop.Steps[i].Service
}

func (c *cluster) trace(n *lab.Node, req node.TraceRequest) node.TraceHop {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	hop, err := node.In(n.Config.RunDir).Trace(ctx, req)
	c.must(err)
	return hop
}

// remove deletes a Service and its slices and waits until no node knows it.
func (c *cluster) remove(s *corev1.Service) {
	c.t.Helper()
	for _, slice := range slicesOf(s) {
		c.must(c.folder.Delete(object.EndpointSlices, slice.Namespace, slice.Name))
	}
	c.must(c.folder.Delete(object.Services, s.Namespace, s.Name))
	for _, n := range c.Nodes {
		for _, ip := range s.Spec.ClusterIPs {
			eventually(c.t, n.Name()+" has forgotten "+s.Name, func() bool { return c.traced(n, s, netip.MustParseAddr(ip)) == nil })
		}
	}
}

// drops returns what a node has dropped, by reason, but for what comes by itself: the kernels' own multicast, and greetings of another
// node that has read the folder first.
func (c *cluster) drops(n *lab.Node) map[string]uint64 {
	c.t.Helper()
	st, err := n.Status()
	c.must(err)
	delete(st.Stack.Drops, packet.DropScope.String())
	delete(st.Stack.Drops, packet.DropUnknownPeer.String())
	return st.Stack.Drops
}

// kill ends a node's daemon by SIGKILL.
func (c *cluster) kill(n *lab.Node) {
	c.t.Helper()
	c.must(n.Daemon().Kill())
}

func (c *cluster) start(n *lab.Node) {
	c.t.Helper()
	c.must(n.Start())
	c.must(n.WaitReady(20 * time.Second))
}

// fewer returns a tenth of n in a short run, for slow machines.
func fewer[N int | int64](n N) N {
	if testing.Short() {
		return n / 10
	}
	return n
}

// eventually fails the test if ok does not become true within 20 seconds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}
