package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/middleway-net/middleway/cni"
	"github.com/middleway-net/middleway/k8s/folder"
	"github.com/middleway-net/middleway/k8s/object"
	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
	"github.com/middleway-net/middleway/stack/packet"
)

// The test program is the CNI plugin too, under its name.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == cni.PluginName {
		os.Exit(cni.Main("test"))
	}
	lab.Main(m)
}

// cluster is a lab's cluster with a host outside, whose daemons follow a state folder.
type cluster struct {
	*lab.Cluster
	t      testing.TB
	folder *folder.Writer
	dir    string // of folder
}

// newCluster makes a cluster without Services. Its nodes have two pods each, if conf does not say otherwise.
func newCluster(t testing.TB, conf lab.ClusterConfig) *cluster {
	t.Helper()
	c := &cluster{t: t, dir: filepath.Join(t.TempDir(), "state")}
	if conf.Pods == nil {
		conf.Pods = []int{2, 2}
	}
	c.fill(len(conf.Pods))
	conf.External = true
	change := conf.Change
	conf.Change = func(number int, n *node.Config) {
		n.Address, n.NodeAddresses, n.PodCIDRs, n.Peers = netip.Addr{}, nil, nil, nil // they are in the folder
		n.Kubernetes.Folder = c.dir
		n.Services.CIDRs = lab.ServiceCIDRs()
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
	c.must(c.folder.Put(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}}))
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

// put writes a Service and its slices.
func (c *cluster) put(s *corev1.Service, of ...endpoint) {
	c.t.Helper()
	c.must(c.folder.Put(s))
	for _, f := range families {
		c.must(c.folder.Put(sliceOf(s, f, of...)))
	}
}

// remove deletes a Service and its slices.
func (c *cluster) remove(s *corev1.Service) {
	c.t.Helper()
	c.must(c.folder.Delete(object.Services, s.Namespace, s.Name))
	for _, f := range families {
		c.must(c.folder.Delete(object.EndpointSlices, s.Namespace, sliceOf(s, f).Name))
	}
}

// drops returns what a node has dropped for a reason.
func (c *cluster) drops(n *lab.Node, reason packet.DropReason) uint64 {
	c.t.Helper()
	st, err := n.Status()
	c.must(err)
	return st.Stack.Drops[reason.String()]
}

// restart kills a node's daemon by SIGKILL and starts another.
func (c *cluster) restart(n *lab.Node) {
	c.t.Helper()
	c.must(n.Daemon().Kill())
	c.must(n.Start())
	c.must(n.WaitReady(20 * time.Second))
}

// resident returns the memory of a node's daemon, in bytes.
func (c *cluster) resident(n *lab.Node) int64 {
	c.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.Daemon().PID()))
	c.must(err)
	for line := range strings.Lines(string(b)) {
		var kib int64
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kib); err == nil {
			return kib << 10
		}
	}
	c.must(errors.New("no VmRSS"))
	return 0
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
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}
