package e2e

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
	"github.com/middleway-net/middleway/stack/tun"
)

// addDummy gives the node an interface that is not ours.
func (m *machine) addDummy(name string) {
	m.t.Helper()
	nl, err := m.node.Netlink()
	m.must(err)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	mustHave(m.t, nl.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
	m.must(m.node.SetUp(name))
}

// The host's device or a range of its routes belongs to somebody else: one sentence, nothing is changed, nothing left.
func TestStartHostTaken(t *testing.T) {
	other := netip.MustParsePrefix("10.244.0.0/16")
	for _, tt := range []struct {
		name    string
		prepare func(*machine)
		want    []string
	}{
		{"the name", func(m *machine) { m.addDummy("mw0") }, []string{"mw0 exists that is not ours", "bridge", "ip link del mw0", "hostDevice"}},
		{"the name, by a tun device", func(m *machine) {
			m.must(m.node.Do(func() error {
				d, err := tun.Open(tun.Config{Name: "mw0", MTU: 1500, Persist: true})
				if err != nil {
					return err
				}
				return d.Close()
			}))
		}, []string{"mw0 exists that is not ours", "ip link del mw0"}},
		{"our own pods' range", func(m *machine) {
			m.addDummy("cni0")
			m.must(m.node.AddAddr("cni0", netip.PrefixFrom(host(lab.PodCIDR4(1), 1), 24)))
		}, []string{"10.244.1.0/24", "mw0", "cni0", "ip route del 10.244.1.0/24", "hostDevice to none"}},
		{"a part of a peer's range", func(m *machine) {
			m.addDummy("br0")
			m.must(m.node.AddRoute(netip.MustParsePrefix("10.244.2.64/26"), netip.Addr{}, "br0"))
		}, []string{"10.244.2.0/24", "10.244.2.64/26", "br0"}},
		{"a peer's range over IPv6", func(m *machine) {
			m.addDummy("br0")
			m.must(m.node.AddRoute(lab.PodCIDR6(2), netip.Addr{}, "br0"))
		}, []string{"fd00:10:244:2::/64", "br0"}},
		{"a cluster's range", func(m *machine) {
			m.config.ClusterCIDRs = []netip.Prefix{other}
			m.addDummy("br0")
			m.must(m.node.AddRoute(other, netip.Addr{}, "br0"))
		}, []string{"10.244.0.0/16", "br0"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t)
			tt.prepare(m)
			before := routesOf(t, m.node)
			had := m.left()
			m.mustFail(tt.want...)
			if left := m.left(); !slices.Equal(left, had) {
				t.Errorf("left behind: %v, there was %v", left, had)
			}
			if diff := cmp.Diff(before, routesOf(t, m.node)); diff != "" {
				t.Errorf("routes (-before +after):\n%s", diff)
			}
		})
	}
}

// routesOf returns the routes of the main table as "range device protocol".
func routesOf(t *testing.T, n *lab.Namespace) (lines []string) {
	t.Helper()
	nl, err := n.Netlink()
	if err != nil {
		t.Fatal(err)
	}
	routes, err := nl.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		name := "-"
		if l, err := nl.LinkByIndex(r.LinkIndex); err == nil {
			name = l.Attrs().Name
		}
		lines = append(lines, strings.Join([]string{r.Dst.String(), name, r.Protocol.String()}, " "))
	}
	slices.Sort(lines)
	return lines
}

// throughMW0 returns the ranges that the node routes through mw0 by our routes.
func throughMW0(t *testing.T, n *lab.Namespace) (ranges []string) {
	t.Helper()
	for _, r := range routesOf(t, n) {
		if dst, ok := strings.CutSuffix(r, " mw0 109"); ok {
			ranges = append(ranges, dst)
		}
	}
	return ranges
}

// A restarted daemon makes addresses and routes those of its configuration; what others routed through the device stays.
func TestHostRoutesFollow(t *testing.T) {
	cl := newCluster(t, lab.ClusterConfig{Pods: []int{1, 0}})
	n := cl.Nodes[0]
	foreign := netip.MustParsePrefix("172.16.9.0/24")
	if err := n.AddRoute(foreign, netip.Addr{}, "mw0"); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		change func(*node.Config)
		want   []string
	}{
		{"as it was", func(*node.Config) {}, []string{"10.244.1.0/24", "10.244.2.0/24", "fd00:10:244:1::/64", "fd00:10:244:2::/64"}},
		{"a cluster's range more", func(c *node.Config) { c.ClusterCIDRs = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")} },
			[]string{"10.244.1.0/24", "10.244.2.0/24", "10.96.0.0/16", "fd00:10:244:1::/64", "fd00:10:244:2::/64"}},
		{"no peer, one family", func(c *node.Config) {
			c.Peers, c.ClusterCIDRs, c.PodCIDRs = nil, nil, c.PodCIDRs[:1]
			c.Pods[0].Addresses = c.Pods[0].Addresses[:1]
		}, []string{"10.244.1.0/24"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.change(&n.Config)
			killAndStart(t, n)
			if diff := cmp.Diff(tt.want, throughMW0(t, n.Namespace)); diff != "" {
				t.Errorf("routes (-want +got):\n%s", diff)
			}
			st := mustStatus(t, n).Host
			if st.Device != "mw0" || len(st.Routes) != len(tt.want) || len(st.Addresses) != len(n.Config.PodCIDRs) {
				t.Errorf("status: %+v", st)
			}
			if !slices.Contains(routesOf(t, n.Namespace), foreign.String()+" mw0 boot") {
				t.Errorf("somebody else's route is gone: %v", routesOf(t, n.Namespace))
			}
			mustPing(t, n.Namespace, n.Pods[0].Addr4, 56)
		})
	}
}

// A device of one queue, driven through golang.zx2c4.com/wireguard/tun, does what the other one does.
func TestHostPortable(t *testing.T) {
	cl := newCluster(t, lab.ClusterConfig{Pods: []int{1, 1}, Change: func(number int, c *node.Config) { c.PortableDevices = number == 1 }})
	n, near, far := cl.Nodes[0], cl.Nodes[0].Pods[0], cl.Nodes[1].Pods[0]
	for _, pl := range plans {
		t.Run(pl.name, func(t *testing.T) {
			local := pl.node(1)
			for _, p := range []*lab.Pod{near, far} {
				mustPing(t, n.Namespace, pl.pod(p), 1000)
				echoUDP(t, fromAddr(n, local), p.Namespace, pl.pod(p), []int{1, 512, pl.most, 8000})
				t.Log(transfer{from: n.Namespace, local: local, to: p.Namespace, addr: pl.pod(p), size: hostSize}.run(t))
				t.Log(transfer{from: p.Namespace, to: n.Namespace, addr: local, seen: pl.pod(p), size: hostSize}.run(t))
			}
		})
	}
	restartDuring(t, transfer{from: n.Namespace, local: lab.NodeAddr4(1).Addr(), to: far.Namespace, addr: far.Addr4}, n, killAndStart)
}

// Without a host attachment nothing is made, pods reach other pods, and the host is not to be had.
func TestHostNone(t *testing.T) {
	cl := newCluster(t, lab.ClusterConfig{Pods: []int{2, 1}, Change: func(_ int, c *node.Config) { c.HostDevice = "none" }})
	n := cl.Nodes[0]
	if got := mustStatus(t, n).Host; got.Device != "" || got.Missing != "" || got.DirectRouting {
		t.Errorf("status: %+v", got)
	}
	b, err := json.Marshal(mustStatus(t, n).Host)
	if err != nil || !strings.Contains(string(b), `"addresses":[]`) || !strings.Contains(string(b), `"routes":[]`) {
		t.Errorf("status: %s (%v), want empty lists", b, err)
	}
	if got := throughMW0(t, n.Namespace); got != nil {
		t.Errorf("routes: %v", got)
	}
	mustPing(t, n.Pods[0].Namespace, n.Pods[1].Addr4, 56)
	mustPing(t, n.Pods[0].Namespace, cl.Nodes[1].Pods[0].Addr6, 56)
	c, err := n.Pods[0].Dial(t.Context(), "udp", net.JoinHostPort(lab.NodeAddr4(1).Addr().String(), "9"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	before := dropsOf(t, n).sum()
	eventually(t, "a packet to the node is dropped", func() bool {
		_, _ = c.Write([]byte("anybody?"))
		return dropsOf(t, n).sum() > before
	})
}

// A host that turns IPv6 off on new interfaces gets IPv4 alone, and says so; its pods have both.
func TestHostWithoutIPv6(t *testing.T) {
	cl := newCluster(t, lab.ClusterConfig{Pods: []int{1, 1}})
	n, far := cl.Nodes[0], cl.Nodes[1].Pods[0]
	err := n.Sysctl("net.ipv6.conf.default.disable_ipv6", "1")
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip(err) // then the kernel has none
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Daemon().Kill(); err != nil {
		t.Fatal(err)
	}
	nl, err := n.Netlink()
	if err != nil {
		t.Fatal(err)
	}
	former, err := nl.LinkByName("mw0")
	if err == nil {
		err = nl.LinkDel(former)
	}
	if err != nil {
		t.Fatal(err)
	}
	startNode(t, n)
	got := mustStatus(t, n).Host
	if want := []netip.Addr{host(lab.PodCIDR4(1), 0)}; !slices.Equal(got.Addresses, want) {
		t.Errorf("addresses: got %v, want %v", got.Addresses, want)
	}
	if want := []netip.Prefix{lab.PodCIDR4(1), lab.PodCIDR4(2)}; !slices.Equal(got.Routes, want) {
		t.Errorf("routes: got %v, want %v", got.Routes, want)
	}
	if notes := mustStatus(t, n).Notes; len(notes) != 1 || !strings.Contains(notes[0], "disable_ipv6") {
		t.Errorf("notes: %q", notes)
	}
	mustPing(t, n.Namespace, far.Addr4, 56)
	mustPing(t, n.Pods[0].Namespace, far.Addr6, 56)
}

// What a daemon leaves for the next one is taken away by --cleanup, and not while it runs.
func TestCleanup(t *testing.T) {
	m := newMachine(t)
	daemon := m.daemon()
	m.must(daemon.Start())
	defer daemon.Kill()
	status := func() error { _, err := node.ReadStatus(t.Context(), m.config.RunDir); return err }
	eventually(t, "the daemon answers", func() bool { return status() == nil })
	m.args = []string{"node", "--config", m.write(m.json()), "--cleanup"}
	m.mustFail("another middleway node runs on "+m.config.RunDir, "end it")
	m.must(status())

	m.must(daemon.Stop(10 * time.Second))
	if left := m.left(); len(left) != 4 || len(throughMW0(t, m.node)) != 4 {
		t.Errorf("after SIGTERM there are %v and routes %v, want mw0, two eth0 and flows", left, throughMW0(t, m.node))
	}
	for range 2 { // the second time there is nothing to do
		p := m.daemon()
		m.must(p.Start())
		if err := p.Wait(); err != nil {
			t.Errorf("%v: %s", err, p.Tail())
		}
		if left := m.left(); len(left) > 0 || len(throughMW0(t, m.node)) > 0 {
			t.Errorf("left behind: %v, %v", left, throughMW0(t, m.node))
		}
		if _, err := os.Stat(m.config.RunDir); err == nil {
			t.Errorf("%s is still there", m.config.RunDir)
		}
	}
	m.args = nil
	again := m.daemon()
	m.must(again.Start())
	eventually(t, "a daemon starts afresh", func() bool { return status() == nil })
	m.must(again.Stop(10 * time.Second))
}
