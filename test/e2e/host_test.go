package e2e

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/middleway-net/middleway/lab"
)

// hostSize is what each transfer with a host moves, in bytes.
const hostSize = 64 << 20

// plan is the addresses of one family.
type plan struct {
	name string
	node func(n int) netip.Addr
	host func(n int) netip.Addr // of node n's mw0
	pod  func(p *lab.Pod) netip.Addr
	most int // payload of a UDP packet at an MTU of 1450 bytes

	unreachable string // the ICMP error about an address that no pod has
}

var plans = []plan{
	{
		"IPv4", func(n int) netip.Addr { return lab.NodeAddr4(n).Addr() }, func(n int) netip.Addr { return host(lab.PodCIDR4(n), 0) },
		func(p *lab.Pod) netip.Addr { return p.Addr4 }, 1450 - 28, "host unreachable",
	},
	{
		"IPv6", func(n int) netip.Addr { return lab.NodeAddr6(n).Addr() }, func(n int) netip.Addr { return host(lab.PodCIDR6(n), 0) },
		func(p *lab.Pod) netip.Addr { return p.Addr6 }, 1450 - 48, "address unreachable",
	},
}

func fromAddr(n *lab.Node, a netip.Addr) lab.Sockets {
	return lab.Sockets{Namespace: n.Namespace, Local: netip.AddrPortFrom(a, 0)}
}

// TestHost: the host reaches every pod of every node from its .0, and pods reach every node, with their own address.
func TestHost(t *testing.T) {
	cl := newCluster(t, lab.ClusterConfig{Pods: []int{2, 1}})
	sizes := []int{1, 2, 3, 99, 512, 1000}
	for _, pl := range plans {
		for from, n := range cl.Nodes {
			for _, m := range cl.Nodes {
				for _, p := range m.Pods {
					t.Run(pl.name+"/"+n.Name()+" to "+p.Name(), func(t *testing.T) {
						addr, own := pl.pod(p), pl.host(from+1)
						for _, size := range append(sizes, 0, pl.most, 8000) { // the last one in fragments
							mustPing(t, n.Namespace, addr, size)
							mustPing(t, p.Namespace, own, size)
							mustPing(t, p.Namespace, pl.node(from+1), size)
						}
						t.Log(transfer{from: n.Namespace, to: p.Namespace, addr: addr, seen: own, size: hostSize}.run(t))
						t.Log(transfer{from: p.Namespace, to: n.Namespace, addr: own, seen: addr, size: hostSize}.run(t))
						t.Log(transfer{from: p.Namespace, to: n.Namespace, addr: pl.node(from + 1), seen: addr, size: hostSize}.run(t))
						echoUDP(t, n.Namespace, p.Namespace, addr, append(sizes, pl.most, 8000))
						echoUDP(t, p.Namespace, n.Namespace, own, append(sizes, pl.most, 8000))
						echoUDP(t, p.Namespace, n.Namespace, pl.node(from+1), append(sizes, pl.most, 8000))
						askNode(t, p.Namespace, addr, n.Namespace, pl.node(from+1))
						for _, size := range []int{1, 700, pl.most} {
							segmentsUDP(t, n.Namespace, p.Namespace, addr, size)
							segmentsUDP(t, p.Namespace, n.Namespace, pl.node(from+1), size)
						}
					})
				}
			}
		}
	}
	for _, n := range cl.Nodes {
		mustPing(t, n.Namespace, host(n.Config.PodCIDRs[0], 1), 56) // the gateway is the netstack's
		if d := dropsOf(t, n); d.sum() != d["scope"] {
			t.Errorf("drops of %s: %v", n.Name(), d)
		}
	}
}

// askNode has a pod ask a node's own address by TCP and UDP, with sockets that take an answer from anybody: the node sees the pod as
// it is, and its answer comes from the address that was asked.
func askNode(t *testing.T, pod *lab.Namespace, podAddr netip.Addr, n *lab.Namespace, nodeAddr netip.Addr) {
	t.Helper()
	server, err := n.ListenPacket("udp", netip.AddrPortFrom(nodeAddr, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	client, err := pod.ListenPacket("udp", netip.AddrPortFrom(podAddr, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	b := make([]byte, 100)
	for _, step := range []struct {
		what     string
		from, to net.PacketConn
	}{{"the pod asks", client, server}, {"the node answers", server, client}} {
		step.to.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := step.from.WriteTo([]byte(step.what), step.to.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		size, from, err := step.to.ReadFrom(b)
		if err != nil || string(b[:size]) != step.what || from.String() != step.from.LocalAddr().String() {
			t.Errorf("%s: got %q from %v (%v), want it from %v", step.what, b[:size], from, err, step.from.LocalAddr())
		}
	}
	l, err := n.Listen("tcp", netip.AddrPortFrom(nodeAddr, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := pod.Dial(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	if seen := accepted.RemoteAddr().String(); seen != c.LocalAddr().String() || addrOf(c.LocalAddr()) != podAddr {
		t.Errorf("a connection from %v is seen as one from %s, want %v", c.LocalAddr(), seen, podAddr)
	}
}

// TestHostOtherSource: a program of the host that insists on another address of the node is translated toward other nodes,
// and is seen as it is by pods of its own.
func TestHostOtherSource(t *testing.T) {
	cl := newCluster(t, lab.ClusterConfig{Pods: []int{1, 1}})
	n, near, far := cl.Nodes[0], cl.Nodes[0].Pods[0], cl.Nodes[1].Pods[0]
	for _, pl := range plans {
		t.Run(pl.name, func(t *testing.T) {
			local := pl.node(1)
			t.Log(transfer{from: n.Namespace, local: local, to: near.Namespace, addr: pl.pod(near), seen: local, size: hostSize}.run(t))
			t.Log(transfer{from: n.Namespace, local: local, to: far.Namespace, addr: pl.pod(far), seen: pl.host(1), size: 4 * hostSize}.run(t))
			for _, p := range []*lab.Pod{near, far} {
				echoUDP(t, fromAddr(n, local), p.Namespace, pl.pod(p), []int{1, 2, 3, 512, 1000, pl.most, 8000, 60000})
				for _, size := range []int{1, 700, pl.most} {
					segmentsUDP(t, fromAddr(n, local), p.Namespace, pl.pod(p), size)
				}
			}
		})
	}
	if d := dropsOf(t, n); d.sum() != d["scope"] {
		t.Errorf("drops: %v", d)
	}
}

// TestHostPortsCollide: sockets of three addresses of the host with one port talk to one port of a far pod at the same time.
func TestHostPortsCollide(t *testing.T) {
	cl := newCluster(t, lab.ClusterConfig{Pods: []int{1, 1}})
	n, far := cl.Nodes[0], cl.Nodes[1].Pods[0]
	third := netip.MustParseAddr("203.0.113.77") // the host gets it while the daemon runs
	if err := n.AddAddr("lo", netip.PrefixFrom(third, 32)); err != nil {
		t.Fatal(err)
	}
	const port = 7000
	eventually(t, "the new address is known", func() bool {
		c, err := lab.Sockets{Namespace: n.Namespace, Local: netip.AddrPortFrom(third, 0)}.Dial(t.Context(), "udp", netip.AddrPortFrom(far.Addr4, 9).String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return refuses(c)
	})
	locals := []netip.Addr{host(lab.PodCIDR4(1), 0), lab.NodeAddr4(1).Addr(), third}
	for _, network := range []string{"tcp", "udp"} {
		t.Run(network, func(t *testing.T) {
			server := startEcho(t, network, far.Namespace, netip.AddrPortFrom(far.Addr4, 80))
			var conns []net.Conn
			var seen []netip.AddrPort
			for _, local := range locals {
				c, err := lab.Sockets{Namespace: n.Namespace, Local: netip.AddrPortFrom(local, port)}.Dial(t.Context(), network, server.addr)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				conns = append(conns, c)
				seen = append(seen, server.ask(t, c))
			}
			for i, c := range conns {
				if again := server.ask(t, c); again != seen[i] {
					t.Errorf("%v: seen as %v, then as %v", c.LocalAddr(), seen[i], again)
				}
				if seen[i].Addr() != locals[0] {
					t.Errorf("%v: seen as %v, want %v", c.LocalAddr(), seen[i], locals[0])
				}
			}
			if seen[0] == seen[1] || seen[1] == seen[2] || seen[0] == seen[2] || seen[0].Port() != port {
				t.Errorf("seen as %v: want different ports, the first one %d", seen, port)
			}
		})
	}
}

// refuses reports whether the other end of a UDP socket says that nobody listens.
func refuses(c net.Conn) bool {
	c.SetDeadline(time.Now().Add(500 * time.Millisecond))
	_, _ = c.Write([]byte("anybody?"))
	_, err := c.Read(make([]byte, 100))
	return errors.Is(err, syscall.ECONNREFUSED)
}

// TestHostErrors: ICMP errors find the program of the host whose packets left translated, and the far pod that a host's
// program no longer answers.
func TestHostErrors(t *testing.T) {
	cl := newCluster(t, lab.ClusterConfig{Pods: []int{1, 1}})
	n, near, far := cl.Nodes[0], cl.Nodes[0].Pods[0], cl.Nodes[1].Pods[0]
	for _, pl := range plans {
		for _, p := range []*lab.Pod{near, far} {
			for _, local := range []netip.Addr{pl.host(1), pl.node(1)} {
				t.Run(pl.name+"/"+p.Name()+" from "+local.String(), func(t *testing.T) {
					c, err := fromAddr(n, local).Dial(t.Context(), "udp", netip.AddrPortFrom(pl.pod(p), 9).String())
					if err != nil {
						t.Fatal(err)
					}
					defer c.Close()
					eventually(t, "the pod's refusal reaches the host", func() bool { return refuses(c) })
				})
				t.Run(pl.name+"/"+local.String()+" from "+p.Name(), func(t *testing.T) {
					c, err := p.Dial(t.Context(), "udp", netip.AddrPortFrom(local, 9).String())
					if err != nil {
						t.Fatal(err)
					}
					defer c.Close()
					eventually(t, "the host's refusal reaches the pod", func() bool { return refuses(c) })
				})
			}
		}
	}
}

// TestHostErrorAboutReply: a program of the host whose packets left translated is gone when the answer comes. The pod learns
// it about the address that it answered.
func TestHostErrorAboutReply(t *testing.T) {
	cl := newCluster(t, lab.ClusterConfig{Pods: []int{1, 1}})
	n, far := cl.Nodes[0], cl.Nodes[1].Pods[0]
	for _, pl := range plans {
		t.Run(pl.name, func(t *testing.T) {
			server, err := far.ListenPacket("udp", netip.AddrPortFrom(pl.pod(far), 5353).String())
			if err != nil {
				t.Fatal(err)
			}
			c, err := fromAddr(n, pl.node(1)).Dial(t.Context(), "udp", server.LocalAddr().String())
			if err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 100)
			server.SetDeadline(time.Now().Add(10 * time.Second))
			if _, err := c.Write([]byte("question")); err != nil {
				t.Fatal(err)
			}
			_, from, err := server.ReadFrom(b)
			if err != nil || addrOf(from) != pl.host(1) {
				t.Fatalf("asked by %v (%v), want %v", from, err, pl.host(1))
			}
			c.Close()
			server.Close()
			again := lab.Sockets{Namespace: far.Namespace, Local: netip.AddrPortFrom(pl.pod(far), 5353)}
			answer, err := again.Dial(t.Context(), "udp", from.String())
			if err != nil {
				t.Fatal(err)
			}
			defer answer.Close()
			eventually(t, "the host's refusal reaches the pod as from whom it answered", func() bool { return refuses(answer) })
		})
	}
}

// TestHostRestart: a daemon is killed in the middle of transfers of the host; connections, translation and device survive.
func TestHostRestart(t *testing.T) {
	cl := newCluster(t, lab.ClusterConfig{Pods: []int{1, 1}})
	n, near, far := cl.Nodes[0], cl.Nodes[0].Pods[0], cl.Nodes[1].Pods[0]
	for _, tt := range []struct {
		name string
		transfer
	}{
		{"to a pod", transfer{from: n.Namespace, to: near.Namespace, addr: near.Addr4}},
		{"to a far pod, translated", transfer{from: n.Namespace, local: lab.NodeAddr4(1).Addr(), seen: host(lab.PodCIDR4(1), 0), to: far.Namespace, addr: far.Addr4}},
		{"from a far pod", transfer{from: far.Namespace, seen: far.Addr6, to: n.Namespace, addr: lab.NodeAddr6(1).Addr()}},
	} {
		for name, restart := range map[string]func(*testing.T, *lab.Node){"kill": killAndStart, "SIGTERM": stopAndStart} {
			t.Run(tt.name+"/"+name, func(t *testing.T) {
				before := indexOf(t, n, "mw0")
				restartDuring(t, tt.transfer, n, restart)
				if after := indexOf(t, n, "mw0"); after != before {
					t.Errorf("mw0: interface %d became %d", before, after)
				}
			})
		}
	}
}

func indexOf(t *testing.T, n *lab.Node, device string) int {
	t.Helper()
	nl, err := n.Netlink()
	if err != nil {
		t.Fatal(err)
	}
	l, err := nl.LinkByName(device)
	if err != nil {
		t.Fatalf("%s of %s: %v", device, n.Name(), err)
	}
	return l.Attrs().Index
}

// TestHostStrictReversePath: a host that drops packets from where it would not answer them to, as some distributions set it.
func TestHostStrictReversePath(t *testing.T) {
	cl := newCluster(t, lab.ClusterConfig{Pods: []int{1, 1}})
	n, near, far := cl.Nodes[0], cl.Nodes[0].Pods[0], cl.Nodes[1].Pods[0]
	if err := n.Sysctl("net.ipv4.conf.all.rp_filter", "1"); err != nil {
		t.Fatal(err)
	}
	killAndStart(t, n)
	for _, p := range []*lab.Pod{near, far} {
		mustPing(t, p.Namespace, lab.NodeAddr4(1).Addr(), 56)
		mustPing(t, n.Namespace, p.Addr4, 56)
	}
	// The other host from its own address, to this one's .0.
	mustPing(t, cl.Nodes[1].Namespace, host(lab.PodCIDR4(1), 0), 56)
	echoUDP(t, fromAddr(cl.Nodes[1], lab.NodeAddr4(2).Addr()), n.Namespace, host(lab.PodCIDR4(1), 0), []int{1, 1000})
}
