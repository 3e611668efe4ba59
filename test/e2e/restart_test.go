package e2e

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/middleway-net/middleway/lab"
)

func TestRestart(t *testing.T)     { testRestart(t, 1) }
func TestSoakRestart(t *testing.T) { soak(t); testRestart(t, 20) }

// testRestart ends daemons in every way, times over, while a transfer within a node and one between nodes go on. Nothing
// else than time may be lost: bytes, devices, flows.
func testRestart(t *testing.T, times int) {
	cl := newCluster(t, lab.ClusterConfig{Pods: []int{2, 1}})
	near, far := cl.Nodes[0].Pods, cl.Nodes[1].Pods
	same := transfer{from: near[0].Namespace, to: near[1].Namespace, addr: near[1].Addr4}
	cross := transfer{from: near[0].Namespace, to: far[0].Namespace, addr: far[0].Addr6}
	program := copyOfTest(t)
	for _, tt := range []struct {
		name    string
		restart func(*testing.T, *lab.Node)
	}{
		{"kill -9", killAndStart},
		{"SIGTERM", stopAndStart},
		{"new binary", func(t *testing.T, n *lab.Node) { replace(t, n, program) }},
	} {
		for _, path := range []struct {
			name string
			transfer
			nodes []*lab.Node
		}{
			{"same node", same, cl.Nodes[:1]},
			{"cross node", cross, cl.Nodes},
		} {
			t.Run(tt.name+"/"+path.name, func(t *testing.T) {
				var worst time.Duration
				for range times {
					for _, n := range path.nodes {
						worst = max(worst, restartDuring(t, path.transfer, n, tt.restart))
					}
					if t.Failed() {
						return
					}
				}
				t.Logf("longest stall %v", worst.Round(time.Millisecond))
			})
		}
	}
}

// flowing is how many bytes show that a transfer is under way.
const flowing = 1 << 20

// restartDuring restarts a node's daemon in the middle of a transfer and returns the longest stall.
func restartDuring(t *testing.T, x transfer, n *lab.Node, restart func(*testing.T, *lab.Node)) time.Duration {
	devices := devicesOf(t, n)
	x.timeout = time.Minute
	r := x.start(t)
	r.more(t, flowing)
	begin := time.Now()
	restart(t, n)
	away := time.Since(begin)
	st := mustStatus(t, n)
	if st.Stack.RestoredFlows == 0 {
		t.Error("no flow was restored")
	}
	// Go on until data flows again: a retransmission comes when TCP thinks so.
	eventually(t, "the daemon moves packets again", func() bool { return mustStatus(t, n).Stack.Packets >= 1000 })
	r.more(t, flowing)
	r.stop()
	got := r.wait(t)
	for i, now := range devicesOf(t, n) {
		if now != devices[i] {
			t.Errorf("eth0 of %s: interface %d became %d", n.Pods[i].Name(), devices[i], now)
		}
	}
	if got.stall > time.Second {
		t.Logf("%s was away for %v, but nothing arrived for %v: dropped %v", n.Name(), away, got.stall, dropsOf(t, n))
	}
	return got.stall
}

// devicesOf returns the interface numbers of eth0 in the node's pods.
func devicesOf(t *testing.T, n *lab.Node) (indexes []int) {
	t.Helper()
	for _, p := range n.Pods {
		nl, err := p.Netlink()
		if err != nil {
			t.Fatal(err)
		}
		link, err := nl.LinkByName("eth0")
		if err != nil {
			t.Fatalf("eth0 of %s: %v", p.Name(), err)
		}
		indexes = append(indexes, link.Attrs().Index)
	}
	return indexes
}

func killAndStart(t *testing.T, n *lab.Node) {
	t.Helper()
	if err := n.Daemon().Kill(); err != nil {
		t.Fatal(err)
	}
	startNode(t, n)
}

func stopAndStart(t *testing.T, n *lab.Node) {
	t.Helper()
	if err := n.Daemon().Stop(5 * time.Second); err != nil {
		t.Errorf("%v\n%s", err, n.Daemon().Tail())
	}
	startNode(t, n)
}

func startNode(t *testing.T, n *lab.Node) {
	t.Helper()
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	if err := n.WaitReady(10 * time.Second); err != nil {
		t.Fatal(err)
	}
}

// replace kills the daemon, has another program be the daemon for a moment, and kills that one for the node's own.
func replace(t *testing.T, n *lab.Node, program string) {
	t.Helper()
	if err := n.Daemon().Kill(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "node.json")
	b, err := json.Marshal(n.Config)
	if err == nil {
		err = os.WriteFile(file, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	p := lab.Exec(n.Namespace, program, file)
	p.Env = []string{"MIDDLEWAY_LAB_ROLE=node"}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the copy answers", func() bool {
		st, err := n.Status()
		return err == nil && st.PID == p.PID()
	})
	if st := mustStatus(t, n); st.Stack.RestoredFlows == 0 {
		t.Error("the copy restored no flow")
	}
	if path, err := os.Readlink("/proc/self/exe"); err != nil || path == program {
		t.Errorf("%v: the copy is this program itself", err)
	}
	eventually(t, "the copy moves packets", func() bool {
		st, err := n.Status()
		return err == nil && st.Stack.Packets >= 1000
	})
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	p.Wait()
	startNode(t, n)
}

func copyOfTest(t *testing.T) string {
	t.Helper()
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	path := filepath.Join(t.TempDir(), "other-daemon")
	to, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(to, from); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// A pod that ended while no daemon ran does not keep the others from their network, and a pod whose address was changed has
// only the new one.
func TestRestartWithOtherPods(t *testing.T) {
	cl := newCluster(t, lab.ClusterConfig{Pods: []int{3}})
	n := cl.Nodes[0]
	a, b := n.Pods[0], n.Pods[1]
	netns := filepath.Join(t.TempDir(), "netns")
	for _, step := range []func() error{
		n.Daemon().Kill, func() error { return os.Symlink(n.Pods[2].Path(), netns) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	n.Config.Pods[2].Netns = netns
	startNode(t, n)
	for _, step := range []func() error{
		n.Daemon().Kill, func() error { return os.Remove(netns) }, // its namespace is gone
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	moved := host(lab.PodCIDR4(1), 77)
	n.Config.Pods[1].Addresses[0] = moved
	startNode(t, n)
	if got := mustStatus(t, n).Stack.Attachments; got != 2 {
		t.Errorf("%d pods attached, want 2", got)
	}
	mustPing(t, a.Namespace, moved, 56)
	mustPing(t, b.Namespace, a.Addr4, 56) // from the new address, or the source check would drop it
	nl, err := b.Netlink()
	if err != nil {
		t.Fatal(err)
	}
	dev, err := nl.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := nl.AddrList(dev, netlink.FAMILY_V4)
	if err != nil || len(addrs) != 1 || addrs[0].IP.String() != moved.String() {
		t.Errorf("addresses of the moved pod: %v, %v; want only %v", addrs, err, moved)
	}
}
