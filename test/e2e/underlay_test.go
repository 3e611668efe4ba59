package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
	"github.com/middleway-net/middleway/node/underlay"
	"github.com/middleway-net/middleway/test/seccomp"
)

// TestFindUnderlay: nodes that are not told their address find it, each in another way.
func TestFindUnderlay(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		t.Run(map[bool]string{false: "IPv4", true: "IPv6"}[v6], func(t *testing.T) {
			addr, cidr, pods := lab.NodeAddr4, netip.MustParsePrefix("192.168.254.0/24"), 1450
			if v6 {
				addr, cidr, pods = lab.NodeAddr6, netip.MustParsePrefix("fd00:254::/64"), 1430
			}
			ways := []underlay.Config{{IPv6: v6}, {Interface: "eth0", IPv6: v6}, {CIDR: cidr}, {CanReach: addr(1).Addr()}}
			cl := newCluster(t, lab.ClusterConfig{
				Pods: []int{1, 1, 1, 1}, IPv6Underlay: v6,
				Change: func(number int, c *node.Config) { c.Address, c.Underlay = netip.Addr{}, ways[number-1] },
			})
			for i, n := range cl.Nodes {
				st := mustStatus(t, n)
				t.Logf("%+v", st.Underlay)
				if st.Address != addr(i+1).Addr() || st.Underlay.Address != st.Address || st.Underlay.Interface != "eth0" || st.Underlay.MTU != 1500 || st.MTU != pods {
					t.Errorf("node %d: address %v, MTU of pods %d, %+v", i+1, st.Address, st.MTU, st.Underlay)
				}
				mustPing(t, cl.Nodes[0].Pods[0].Namespace, n.Pods[0].Addr4, 56)
			}
		})
	}
}

// TestUnderlayChanges: a node tells of an interface that is not what it was.
func TestUnderlayChanges(t *testing.T) {
	cl := newCluster(t, lab.ClusterConfig{Pods: []int{1}})
	n := cl.Nodes[0]
	nl, err := n.Netlink()
	if err != nil {
		t.Fatal(err)
	}
	eth0, err := nl.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	changed := func(want string) {
		t.Helper()
		eventually(t, fmt.Sprintf("the status tells %q", want), func() bool {
			got := mustStatus(t, n).Underlay.Changed
			return strings.Contains(got, want) && (want != "" || got == "")
		})
	}
	for _, step := range []struct {
		do   func() error
		want string
	}{
		{func() error { return nl.LinkSetMTU(eth0, 1400) }, "1400 bytes, and had 1500"},
		{func() error { return nl.LinkSetMTU(eth0, 1500) }, ""},
		{func() error { return nl.LinkSetDown(eth0) }, "is down"},
		{func() error { return nl.LinkSetUp(eth0) }, ""},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		changed(step.want)
	}
	addrs, err := nl.AddrList(eth0, unix.AF_INET)
	if err != nil || len(addrs) == 0 {
		t.Fatal(err, addrs)
	}
	if err := nl.AddrDel(eth0, &addrs[0]); err != nil {
		t.Fatal(err)
	}
	changed("no interface of this node has 192.168.254.11")
	if log := n.Daemon().Tail(); !strings.Contains(log, "restart the daemon") {
		t.Errorf("the log does not tell:\n%s", log)
	}
}

// disableIPv6 turns IPv6 off in a namespace, also for devices to come.
func disableIPv6(t testing.TB, n *lab.Namespace) {
	t.Helper()
	err := n.Sysctl("net.ipv6.conf.all.disable_ipv6", "1")
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip(err) // this kernel has no IPv6 to turn off; then all other tests show the same
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestNoIPv6: a node whose IPv6 is turned off beside one that has it.
func TestNoIPv6(t *testing.T) {
	cl := newCluster(t, lab.ClusterConfig{Pods: []int{2, 1}})
	n, near, far := cl.Nodes[0], cl.Nodes[0].Pods, cl.Nodes[1].Pods[0]
	mustPing(t, near[0].Namespace, far.Addr6, 56)
	if err := n.Daemon().Kill(); err != nil {
		t.Fatal(err)
	}
	disableIPv6(t, n.Namespace)
	startNode(t, n)
	mustBeIPv4(t, mustStatus(t, n), n.Daemon(), "IPv6 is turned off on this node (net.ipv6.conf.all.disable_ipv6=1): pods get IPv4 only")
	mustPing(t, near[0].Namespace, near[1].Addr4, 56)
	mustPing(t, near[0].Namespace, far.Addr4, 1400)
	mustPing(t, far.Namespace, near[0].Addr4, 56)
	mustPing(t, n.Namespace, near[0].Addr4, 56)
	if got := addressesOf(t, near[0].Namespace); got != "10.244.1.2/32" {
		t.Errorf("the pod has %s", got)
	}
}

// TestNoIPv6Kernel: a daemon that the kernel gives no IPv6 sockets, by a filter of its system calls. Netlink knows IPv6 all the same:
// a kernel without it cannot be had on one that has it.
func TestNoIPv6Kernel(t *testing.T) {
	m := newMachine(t)
	m.run = []string{"no-ipv6"}
	d := m.daemon()
	m.must(d.Start())
	t.Cleanup(func() { d.Kill() })
	var st node.Status
	eventually(t, "the daemon answers", func() (ok bool) {
		var err error
		st, err = node.ReadStatus(t.Context(), m.config.RunDir)
		return err == nil
	})
	mustBeIPv4(t, st, d, "the kernel has no IPv6: pods get IPv4 only")
	mustPing(t, m.pods[0], m.config.Pods[1].Addresses[0], 56)
	if got := addressesOf(t, m.pods[0]); got != "10.244.1.2/32" {
		t.Errorf("the pod has %s", got)
	}
}

// mustBeIPv4 checks that a node knows of IPv4 alone, and said why once.
func mustBeIPv4(t *testing.T, st node.Status, daemon *lab.Process, note string) {
	t.Helper()
	if fmt.Sprint(st.Notes) != "["+note+"]" || fmt.Sprint(st.PodCIDRs) != "[10.244.1.0/24]" {
		t.Errorf("notes %q, ranges %v", st.Notes, st.PodCIDRs)
	}
	if said := strings.Count(daemon.Tail(), "pods get IPv4 only"); said != 1 {
		t.Errorf("the log says it %d times", said)
	}
}

func addressesOf(t *testing.T, pod *lab.Namespace) string {
	t.Helper()
	nl, err := pod.Netlink()
	if err != nil {
		t.Fatal(err)
	}
	eth0, err := nl.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := nl.AddrList(eth0, unix.AF_UNSPEC)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, a := range addrs {
		list = append(list, a.IPNet.String())
	}
	return strings.Join(list, " ")
}

// A pod's namespace in which IPv6 is off, as container runtimes make them, gets its IPv6 address all the same.
func TestPodWithoutIPv6(t *testing.T) {
	m := newMachine(t)
	disableIPv6(t, m.pods[0])
	d := m.daemon()
	m.must(d.Start())
	t.Cleanup(func() { d.Kill() })
	eventually(t, "the daemon answers", func() bool { _, err := node.ReadStatus(t.Context(), m.config.RunDir); return err == nil })
	mustPing(t, m.pods[0], m.config.Pods[1].Addresses[1], 56)
	mustPing(t, m.pods[1], m.config.Pods[0].Addresses[1], 56)
}

// noIPv6 replaces this process by a program to whom socket(2) says that the kernel has no IPv6.
func noIPv6(args []string) int {
	fmt.Println(seccomp.WithoutIPv6(args...))
	return 1
}
