package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"

	plugin "github.com/middleway-net/middleway/cni"
	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
)

// The test program is the plugin, and a plugin to be chained with it, under their names.
func TestMain(m *testing.M) {
	switch name := filepath.Base(os.Args[0]); {
	case plugin.IsPlugin(name):
		os.Exit(plugin.Main("test"))
	case name == chainedName:
		os.Exit(chained())
	}
	lab.RegisterRole(asNobody, runAsNobody)
	lab.Main(m)
}

// newNode returns the only node of a cluster, with no pod but those that the test adds.
func newNode(t testing.TB, change func(*node.Config)) *lab.Node {
	t.Helper()
	cl, err := lab.NewCluster(lab.ClusterConfig{Pods: []int{0}, Change: func(_ int, c *node.Config) {
		c.HostDevice = "none" // it would count among the pods' devices, and may not change its kind
		if change != nil {
			change(c)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n := cl.Nodes[0]
		if t.Failed() || strings.Contains(n.Daemon().Tail(), "panic:") {
			t.Errorf("%s:\n%s", n.Name(), n.Daemon().Tail())
		}
		if err := cl.Close(); err != nil {
			t.Error(err)
		}
	})
	return cl.Nodes[0]
}

// runtime is a container runtime: libcni, and a network configuration.
type runtime struct {
	t    testing.TB
	node *lab.Node
	cni  *libcni.CNIConfig
	list *libcni.NetworkConfigList
	exec *executor

	plugins []string // directories
	cache   string
}

// newRuntime returns a runtime whose network is the plugin alone, or with what mutate puts beside it.
func newRuntime(t testing.TB, n *lab.Node, version string, mutate func(conf map[string]any)) *runtime {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{plugin.PluginName, chainedName} {
		if err := os.Symlink(self, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	conf := map[string]any{
		"cniVersion": version, "name": "middleway",
		"plugins": []any{map[string]any{"type": plugin.PluginName, "socket": socketOf(n), "capabilities": map[string]bool{"ips": true}}},
	}
	if mutate != nil {
		mutate(conf)
	}
	b, err := json.Marshal(conf)
	if err != nil {
		t.Fatal(err)
	}
	list, err := libcni.ConfListFromBytes(b)
	if err != nil {
		t.Fatal(err)
	}
	e := newExecutor()
	cache := t.TempDir()
	r := &runtime{t: t, node: n, list: list, plugins: []string{dir}, cache: cache}
	return r.with(e)
}

// with returns the same runtime with another executor.
func (r *runtime) with(e *executor) *runtime {
	other := *r
	other.exec, other.cni = e, libcni.NewCNIConfigWithCacheDir(r.plugins, r.cache, e)
	return &other
}

func socketOf(n *lab.Node) string {
	if n.Config.CNI.Socket != "" {
		return n.Config.CNI.Socket
	}
	return filepath.Join(n.Config.RunDir, "cni.sock")
}

// sandbox is a pod without network as the runtime makes it.
type sandbox struct {
	*lab.Namespace
	conf  *libcni.RuntimeConf
	addrs []netip.Addr // once it was added
}

func (r *runtime) sandbox(id string) *sandbox {
	r.t.Helper()
	ns, err := lab.NewNamespace(id)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { ns.Close() })
	return &sandbox{Namespace: ns, conf: &libcni.RuntimeConf{
		ContainerID: id, NetNS: ns.Path(), IfName: "eth0", Args: [][2]string{
			{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "default"}, {"K8S_POD_NAME", "pod-" + id}, {"K8S_POD_UID", "uid-" + id}, {"OTHER", "x"},
		},
	}}
}

// timeout bounds one call of the plugin.
const timeout = 40 * time.Second

func (r *runtime) add(s *sandbox) (*types100.Result, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	res, err := r.cni.AddNetworkList(ctx, r.list, s.conf)
	if err != nil {
		return nil, err
	}
	result, err := types100.NewResultFromResult(res)
	if err != nil {
		return nil, err
	}
	s.addrs = nil
	for _, ip := range result.IPs {
		a, _ := netip.AddrFromSlice(ip.Address.IP)
		s.addrs = append(s.addrs, a.Unmap())
	}
	return result, nil
}

func (r *runtime) mustAdd(s *sandbox) *types100.Result {
	r.t.Helper()
	res, err := r.add(s)
	if err != nil {
		r.t.Fatal(err)
	}
	return res
}

func (r *runtime) del(s *sandbox) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return r.cni.DelNetworkList(ctx, r.list, s.conf)
}

func (r *runtime) mustDel(s *sandbox) {
	r.t.Helper()
	if err := r.del(s); err != nil {
		r.t.Fatal(err)
	}
}

func (r *runtime) check(s *sandbox) error {
	return r.cni.CheckNetworkList(r.t.Context(), r.list, s.conf)
}

func (r *runtime) status() error { return r.cni.GetStatusNetworkList(r.t.Context(), r.list) }

func (r *runtime) gc(valid ...*sandbox) error {
	args := &libcni.GCArgs{}
	for _, s := range valid {
		args.ValidAttachments = append(args.ValidAttachments, types.GCAttachment{ContainerID: s.conf.ContainerID, IfName: s.conf.IfName})
	}
	return r.cni.GCNetworkList(r.t.Context(), r.list, args)
}

// wantCode expects an error with a CNI code and words in it.
func wantCode(t testing.TB, err error, code uint, words ...string) {
	t.Helper()
	var e *types.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Errorf("got %v (%T), want code %d", err, err, code)
		return
	}
	t.Logf("code %d: %v", e.Code, e)
	for _, w := range words {
		if !strings.Contains(e.Error(), w) {
			t.Errorf("%q is not in: %v", w, e)
		}
	}
}

func mustPing(t testing.TB, from *lab.Namespace, to netip.Addr) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := from.Ping(ctx, to, 56); err != nil {
		t.Error(err)
	}
}

// mustReach pings until there is an answer: a kernel activates a device some time after a restarted daemon took it up, and
// drops what is sent before.
func mustReach(t testing.TB, from *sandbox, to netip.Addr) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s reaches %v", from.Name(), to), func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := from.Ping(ctx, to, 56)
		return err == nil
	})
}

// devices returns the interfaces of a namespace but lo.
func devices(t testing.TB, ns *lab.Namespace) (names []string) {
	t.Helper()
	nl, err := ns.Netlink()
	if err != nil {
		t.Fatal(err)
	}
	links, err := nl.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if l.Attrs().Name != "lo" {
			names = append(names, l.Attrs().Name)
		}
	}
	return names
}

func mustStatus(t testing.TB, n *lab.Node) node.Status {
	t.Helper()
	st, err := n.Status()
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// eventually fails the test if ok does not become true within 15 seconds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 15 s: %s", what)
		}
	}
}

func start(t testing.TB, n *lab.Node) {
	t.Helper()
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	if err := n.WaitReady(15 * time.Second); err != nil {
		t.Fatal(err)
	}
}

// left returns what the node and its daemon still hold of pods: leases, attachments, tombstones, queues of devices.
func left(t testing.TB, n *lab.Node) (things []string) {
	t.Helper()
	st := mustStatus(t, n)
	for _, a := range st.Attachments {
		things = append(things, fmt.Sprint("lease ", a))
	}
	if st.Stack.Attachments != 0 {
		things = append(things, fmt.Sprint(st.Stack.Attachments, " attachments"))
	}
	stones, _ := filepath.Glob(filepath.Join(n.Config.RunDir, "tombstones", "*"))
	things = append(things, stones...)
	for range openQueues(t, n) {
		things = append(things, openQueue)
	}
	return things
}

// openQueue stands for a descriptor that pins a pod's namespace, in what left returns.
const openQueue = "open queue"

// openQueues returns how many descriptors the daemon has of TUN devices (character device 10:200) or of namespaces.
func openQueues(t testing.TB, n *lab.Node) (count int) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", n.Daemon().PID())
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		var st unix.Stat_t
		if unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(10, 200) {
			count++
		}
		if to, err := os.Readlink(path); err == nil && strings.HasPrefix(to, "net:[") {
			count++
		}
	}
	return count
}
