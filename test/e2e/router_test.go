package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
)

// Traceroute shows each node that forwards a packet once, by the gateway address of its pods.
func TestTraceroute(t *testing.T) {
	cl := newCluster(t, lab.ClusterConfig{})
	near, far := cl.Nodes[0], cl.Nodes[1]
	gateway := func(n int, v6 bool) netip.Addr {
		if v6 {
			return host(lab.PodCIDR6(n), 1)
		}
		return host(lab.PodCIDR4(n), 1)
	}
	hostOf := func(n int, v6 bool) netip.Addr {
		if v6 {
			return lab.NodeAddr6(n).Addr()
		}
		return lab.NodeAddr4(n).Addr()
	}
	for _, network := range []string{"udp", "icmp"} {
		for _, v6 := range []bool{false, true} {
			addr := func(p *lab.Pod) netip.Addr {
				if v6 {
					return p.Addr6
				}
				return p.Addr4
			}
			g1, g2 := gateway(1, v6), gateway(2, v6)
			for _, tt := range []struct {
				name string
				from *lab.Namespace
				want []netip.Addr
			}{
				{"same node", near.Pods[0].Namespace, []netip.Addr{g1, addr(near.Pods[1])}},
				{"other node", near.Pods[0].Namespace, []netip.Addr{g1, g2, addr(far.Pods[0])}},
				{"back", far.Pods[0].Namespace, []netip.Addr{g2, g1, addr(near.Pods[0])}},
				{"from the host", near.Namespace, []netip.Addr{g2, addr(far.Pods[0])}},
				{"to the gateway", near.Pods[0].Namespace, []netip.Addr{g1}},
				{"to the other gateway", near.Pods[0].Namespace, []netip.Addr{g1, g2}},
				{"to the host", near.Pods[0].Namespace, []netip.Addr{hostOf(1, v6)}},
				{"to the other host", near.Pods[0].Namespace, []netip.Addr{g1, hostOf(2, v6)}},
			} {
				t.Run(fmt.Sprintf("%s, IPv6 %v, %s", network, v6, tt.name), func(t *testing.T) {
					ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
					defer cancel()
					got, err := tt.from.Trace(ctx, network, tt.want[len(tt.want)-1])
					if diff := cmp.Diff(tt.want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); err != nil || diff != "" {
						t.Errorf("%v, hops (-want +got):\n%s", err, diff)
					}
				})
			}
		}
	}
}

// Nobody has an address: its sender hears so at once, wherever it is.
func TestUnreachable(t *testing.T) {
	cl := newCluster(t, lab.ClusterConfig{Pods: []int{1, 1}})
	pod := cl.Nodes[0].Pods[0]
	for _, dst := range []netip.Addr{
		host(lab.PodCIDR4(1), 99), host(lab.PodCIDR6(1), 99), host(lab.PodCIDR4(2), 99), host(lab.PodCIDR6(2), 99),
		netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("2001:db8::1"),
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		_, err := pod.Ping(ctx, dst, 56)
		cancel()
		if err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("ping %v: %v, want an error of a router", dst, err)
		} else {
			t.Log(err)
		}
	}
	if n := mustStatus(t, cl.Nodes[0]).Stack.ICMPErrors; n == 0 {
		t.Error("the status knows of no ICMP error")
	}
}

// setMTU changes the MTU of a pod's device behind the node's back, as a pod may.
func setMTU(t *testing.T, n *lab.Namespace, mtu int) {
	t.Helper()
	nl, err := n.Netlink()
	if err != nil {
		t.Fatal(err)
	}
	link, err := nl.LinkByName("eth0")
	if err == nil {
		err = nl.LinkSetMTU(link, mtu)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// mustLearnMTU sends datagrams that may not be fragmented until the sender's kernel knows the path's MTU, which has to be want.
func mustLearnMTU(t *testing.T, from *lab.Namespace, dst netip.Addr, size, want int) {
	t.Helper()
	mustLearnMTUFrom(t, from, netip.Addr{}, dst, size, want)
}

// dialFrom returns a UDP socket of a namespace from one of its addresses, if that is valid, to port 9 of another.
func dialFrom(t *testing.T, n *lab.Namespace, src, dst netip.Addr) *net.UDPConn {
	t.Helper()
	d := net.Dialer{}
	if src.IsValid() {
		d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(src, 0))
	}
	var c net.Conn
	err := n.Do(func() (err error) {
		c, err = d.Dial("udp", netip.AddrPortFrom(dst, 9).String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.UDPConn)
}

func mustLearnMTUFrom(t *testing.T, from *lab.Namespace, src, dst netip.Addr, size, want int) {
	t.Helper()
	c := dialFrom(t, from, src, dst)
	level, discover, do, mtu := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO, unix.IP_MTU
	if dst.Is6() {
		level, discover, do, mtu = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO, unix.IPV6_MTU
	}
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, discover, do) })
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, fmt.Sprintf("a datagram of %d bytes to %v is refused as too big", size, dst), func() bool {
		_, err := c.Write(make([]byte, size))
		return errors.Is(err, unix.EMSGSIZE)
	})
	got := 0
	raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), level, mtu) })
	if err != nil || got != want {
		t.Errorf("path MTU to %v: got %d (%v), want %d", dst, got, err, want)
	}
}

// Pods that believe in a larger MTU than there is learn the true one, and TCP between them gets through.
func TestPodsLearnMTU(t *testing.T) {
	cl := newCluster(t, lab.ClusterConfig{})
	near, beside, far := cl.Nodes[0].Pods[0], cl.Nodes[0].Pods[1], cl.Nodes[1].Pods[0]
	mtu := mustStatus(t, cl.Nodes[0]).MTU
	for _, p := range []*lab.Pod{near, beside, far} {
		setMTU(t, p.Namespace, 9000)
	}
	for _, to := range []*lab.Pod{beside, far} {
		for _, dst := range []netip.Addr{to.Addr4, to.Addr6} {
			transfer{from: near.Namespace, to: to.Namespace, addr: dst, size: 8 << 20}.run(t)
			mustLearnMTU(t, near.Namespace, dst, 5000, mtu)
			eventually(t, "a ping of 5,000 bytes comes back", func() bool { // the first replies tell the other pod
				ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
				defer cancel()
				_, err := near.Ping(ctx, dst, 5000)
				return err == nil
			})
		}
	}
}

// A node whose pods have a smaller MTU than its peers' tells them.
func TestPathMTUOfAnotherNode(t *testing.T) {
	const small = 1300
	cl := newCluster(t, lab.ClusterConfig{Change: func(number int, c *node.Config) {
		if number == 2 {
			c.MTU = small
		}
	}})
	near, far := cl.Nodes[0].Pods[0], cl.Nodes[1].Pods[0]
	setMTU(t, far.Namespace, 1450) // it announces segments that do not get through
	for _, dst := range []netip.Addr{far.Addr4, far.Addr6} {
		transfer{from: near.Namespace, to: far.Namespace, addr: dst, size: 8 << 20}.run(t)
		mustLearnMTU(t, near.Namespace, dst, 1390, small)
	}
	for _, src := range []netip.Addr{near.Addr4, near.Addr6} {
		transfer{from: far.Namespace, to: near.Namespace, addr: src, size: 8 << 20}.run(t)
		mustLearnMTU(t, far.Namespace, src, 1390, small)
	}
}

// The host learns of a smaller MTU too, also where its packets leave as others: the error then quotes a packet that it did not
// send.
func TestPathMTUOfHost(t *testing.T) {
	const small = 1300
	cl := newCluster(t, lab.ClusterConfig{Pods: []int{1, 1}, Change: func(number int, c *node.Config) {
		if number == 2 {
			c.MTU = small
		}
	}})
	near, far := cl.Nodes[0], cl.Nodes[1].Pods[0]
	for _, dst := range []netip.Addr{far.Addr4, far.Addr6} {
		own := lab.NodeAddr4(1).Addr()
		if dst.Is6() {
			own = lab.NodeAddr6(1).Addr()
		}
		mustLearnMTUFrom(t, near.Namespace, own, dst, 1390, small)
		mustLearnMTU(t, near.Namespace, dst, 1390, small)
	}
}

// Large datagrams of the host to another node's pod and back, from an address that is translated: every fragment is.
func TestFragmentsTranslated(t *testing.T) {
	cl := newCluster(t, lab.ClusterConfig{Pods: []int{1, 1}})
	near, far := cl.Nodes[0], cl.Nodes[1].Pods[0]
	for _, dst := range []netip.Addr{far.Addr4, far.Addr6} {
		own := lab.NodeAddr4(1).Addr()
		if dst.Is6() {
			own = lab.NodeAddr6(1).Addr()
		}
		server, err := far.ListenPacket("udp", netip.AddrPortFrom(dst, 9).String())
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		c := dialFrom(t, near.Namespace, own, dst)
		for _, size := range []int{100, 8000, 60000} {
			want, got := make([]byte, size), make([]byte, 1<<16)
			for i := range want {
				want[i] = byte(i>>4) ^ byte(size)
			}
			if _, err := c.Write(want); err != nil {
				t.Fatal(err)
			}
			server.SetReadDeadline(time.Now().Add(10 * time.Second))
			n, from, err := server.ReadFrom(got)
			if err != nil || string(got[:n]) != string(want) {
				t.Fatalf("%d bytes to %v: %d came, %v", size, dst, n, err)
			}
			if netip.MustParseAddrPort(from.String()).Addr() == own {
				t.Errorf("%v was not translated", own)
			}
			if _, err := server.WriteTo(got[:n], from); err != nil {
				t.Fatal(err)
			}
			c.SetReadDeadline(time.Now().Add(10 * time.Second))
			if n, err = c.Read(got); err != nil || string(got[:n]) != string(want) {
				t.Fatalf("%d bytes from %v: %d came, %v", size, dst, n, err)
			}
		}
	}
	for _, n := range cl.Nodes {
		if d := dropsOf(t, n); d.sum() != d["scope"] {
			t.Errorf("%s dropped %v", n.Name(), d)
		}
	}
}

// The way between the nodes takes less than its ends: a pod learns what the tunnel has found out, and so does the node's own
// TCP.
func TestPathMTUOnTheWay(t *testing.T) {
	cl := newCluster(t, lab.ClusterConfig{Pods: []int{1, 1}, Underlay: lab.UnderlayConfig{Faults: lab.Faults{MTU: 1400}}})
	near, far := cl.Nodes[0].Pods[0], cl.Nodes[1].Pods[0]
	for i, n := range cl.Nodes {
		awaitPeer(t, n, 2-i, "the MTU of the way is found", func(p node.PeerStatus) bool { return p.MTU == 1350 })
	}
	for _, dst := range []netip.Addr{far.Addr4, far.Addr6} {
		mustLearnMTU(t, near.Namespace, dst, 1390, 1350)
		transfer{from: near.Namespace, to: far.Namespace, addr: dst, size: 1 << 20}.run(t)
	}
	for _, gateway := range []netip.Addr{host(lab.PodCIDR4(1), 1), host(lab.PodCIDR6(1), 1)} {
		exchange(t, dial(t, far.Namespace, "tcp", netip.AddrPortFrom(gateway, 7).String()), 1<<20)
	}
}

// What may be fragmented on its way is, by the node where it no longer fits.
func TestFragmentedOnTheWay(t *testing.T) {
	cl := newCluster(t, lab.ClusterConfig{Pods: []int{1, 1}, Change: func(number int, c *node.Config) {
		if number == 2 {
			c.MTU = 1300
		}
	}})
	near, far := cl.Nodes[0].Pods[0], cl.Nodes[1].Pods[0]
	server, err := far.ListenPacket("udp", netip.AddrPortFrom(far.Addr4, 9).String())
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	c, err := near.Dial(t.Context(), "udp", server.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT)
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{1200, 1273, 1400, 1422, 1423, 8000, 60000} {
		want, got := make([]byte, size), make([]byte, 1<<16)
		for i := range want {
			want[i] = byte(i >> 3)
		}
		if _, err := c.Write(want); err != nil {
			t.Fatal(err)
		}
		server.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, _, err := server.ReadFrom(got)
		if err != nil || string(got[:n]) != string(want) {
			t.Fatalf("%d bytes: %d came, %v", size, n, err)
		}
	}
	for _, n := range cl.Nodes {
		if d := dropsOf(t, n); d.sum() != d["scope"] {
			t.Errorf("%s dropped %v", n.Name(), d)
		}
	}
}

// onlyIPv4 takes IPv6 away from a node and its pods.
func onlyIPv4(c *node.Config) {
	c.PodCIDRs = c.PodCIDRs[:1]
	for i := range c.Pods {
		c.Pods[i].Addresses = c.Pods[i].Addresses[:1]
	}
	for i := range c.Peers {
		c.Peers[i].PodCIDRs = c.Peers[i].PodCIDRs[:1]
	}
}

// TestUnderlayMTU: underlays of all usual sizes. One of 1280 bytes leaves less than IPv6 needs.
func TestUnderlayMTU(t *testing.T) {
	for _, underlay := range []int{1280, 1330, 1500, 9000} {
		t.Run(fmt.Sprint(underlay), func(t *testing.T) {
			c := lab.ClusterConfig{Pods: []int{2, 1}, Underlay: lab.UnderlayConfig{MTU: underlay}}
			if underlay == 1280 {
				c.Change = func(_ int, c *node.Config) { onlyIPv4(c) }
			}
			cl := newCluster(t, c)
			near := cl.Nodes[0].Pods[0]
			mtu := mustStatus(t, cl.Nodes[0]).MTU
			if mtu != underlay-50 {
				t.Errorf("got an MTU of %d, want %d", mtu, underlay-50)
			}
			for _, to := range []*lab.Pod{cl.Nodes[0].Pods[1], cl.Nodes[1].Pods[0]} {
				for _, dst := range []netip.Addr{to.Addr4, to.Addr6} {
					if dst.Is6() && underlay == 1280 {
						continue
					}
					head := map[bool]int{true: 28, false: 48}[dst.Is4()]
					echoUDP(t, near.Namespace, to.Namespace, dst, []int{1, mtu - head - 1, mtu - head, mtu - head + 1, 8000, 60000})
					mustPing(t, near.Namespace, dst, mtu-head)
					mustPing(t, near.Namespace, dst, 8000)
					transfer{from: near.Namespace, to: to.Namespace, addr: dst, size: 16 << 20}.run(t)
				}
			}
			for _, n := range cl.Nodes {
				if d := dropsOf(t, n); d.sum() != d["scope"] {
					t.Errorf("%s dropped %v", n.Name(), d)
				}
			}
		})
	}
}

// A kernel's pods learn of our smaller MTU as well.
func TestPathMTUKernelVXLAN(t *testing.T) {
	const small = 1300
	for _, tt := range []struct {
		name     string
		underlay lab.UnderlayConfig
	}{{"link", lab.UnderlayConfig{Userspace: true}}, {"veth", lab.UnderlayConfig{}}} {
		t.Run(tt.name, func(t *testing.T) {
			k := newKernelPeers(t, lab.ClusterConfig{Underlay: tt.underlay, Change: func(_ int, c *node.Config) { c.MTU = small }})
			setMTU(t, k.pod.Namespace, 1450)
			for _, dst := range []netip.Addr{k.pod.Addr4, k.pod.Addr6} {
				transfer{from: k.far[0].Namespace, to: k.pod.Namespace, addr: dst, size: 4 << 20}.run(t)
				mustLearnMTU(t, k.far[0].Namespace, dst, 1390, small)
			}
			for _, dst := range []netip.Addr{host(lab.PodCIDR4(2), 2), host(lab.PodCIDR6(2), 2)} {
				mustLearnMTU(t, k.pod.Namespace, dst, 1390, small)
			}
		})
	}
}
