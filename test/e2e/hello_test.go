package e2e

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
)

// peerStatus returns what a node knows of another one.
func peerStatus(t testing.TB, n *lab.Node, number int) node.PeerStatus {
	t.Helper()
	addr := lab.NodeAddr4(number).Addr()
	if n.Config.Address.Is6() {
		addr = lab.NodeAddr6(number).Addr()
	}
	for _, p := range mustStatus(t, n).Peers {
		if p.Address == addr {
			return p
		}
	}
	t.Fatalf("%s knows no peer at %v", n.Name(), addr)
	return node.PeerStatus{}
}

// awaitPeer waits until what a node knows of another is as wanted: rounds of checks are up to 12 s apart.
func awaitPeer(t testing.TB, n *lab.Node, number int, what string, ok func(node.PeerStatus) bool) node.PeerStatus {
	t.Helper()
	var p node.PeerStatus
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if p = peerStatus(t, n, number); ok(p) {
			return p
		}
	}
	t.Fatalf("%s: %s does not come true: %+v", n.Name(), what, p)
	return p
}

func isUp(p node.PeerStatus) bool { return p.State == "up" && p.RTT > 0 }

// awaitLog waits until a node has logged a line with all the words.
func awaitLog(t testing.TB, n *lab.Node, words ...string) {
	t.Helper()
	found := func() bool {
		for line := range strings.Lines(n.Daemon().Tail()) {
			missing := false
			for _, w := range words {
				missing = missing || !strings.Contains(line, w)
			}
			if !missing {
				return true
			}
		}
		return false
	}
	for end := time.Now().Add(10 * time.Second); !found(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s has no log line with %q:\n%s", n.Name(), words, n.Daemon().Tail())
		}
	}
}

// TestHello: two nodes find each other, over IPv4 and IPv6, and lose sight of each other when the way is cut.
func TestHello(t *testing.T) {
	t.Parallel() // most of it is waiting
	for _, v6 := range []bool{false, true} {
		t.Run(map[bool]string{false: "IPv4", true: "IPv6"}[v6], func(t *testing.T) {
			cl := newCluster(t, lab.ClusterConfig{Pods: []int{1, 1}, IPv6Underlay: v6, Underlay: lab.UnderlayConfig{Userspace: true}})
			for i, n := range cl.Nodes {
				p := awaitPeer(t, n, 2-i, "the peer answers", isUp)
				if st := mustStatus(t, n); p.MTU != st.MTU || st.Tunnel.VNI != 1 || st.Tunnel.Port != 8472 || st.Tunnel.Overhead != map[bool]int{false: 50, true: 70}[v6] || !p.Trains || !p.RemoteChecksum || p.Why != "" || p.Name == "" {
					t.Errorf("%+v", p)
				}
			}
			one := cl.Nodes[0]
			cl.Underlay.Link().Partition(0)
			awaitPeer(t, one, 2, "the peer is down", func(p node.PeerStatus) bool { return p.State == "down" })
			awaitLog(t, one, "peer node-2 at ", "does not answer any more")
			cl.Underlay.Link().Heal()
			awaitPeer(t, one, 2, "the peer is up again", isUp)
			for _, n := range cl.Nodes {
				if d := dropsOf(t, n); d.sum() != d["scope"] {
					t.Errorf("drops of %s: %v", n.Name(), d)
				}
			}
		})
	}
}

// TestPeerRestart: a peer that starts anew is found again, and says what it can do now.
func TestPeerRestart(t *testing.T) {
	t.Parallel() // most of it is waiting
	cl := newCluster(t, lab.ClusterConfig{Pods: []int{1, 1}})
	one, two := cl.Nodes[0], cl.Nodes[1]
	awaitPeer(t, one, 2, "the peer answers", isUp)
	if err := two.Daemon().Stop(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	two.Config.Offloads.RemoteChecksum = node.Off
	two.Config.MTU = 1300
	if err := two.Start(); err != nil {
		t.Fatal(err)
	}
	if err := two.WaitReady(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	p := awaitPeer(t, one, 2, "the peer has another MTU", func(p node.PeerStatus) bool { return p.MTU == 1300 && p.State == "up" })
	if p.RemoteChecksum || !strings.Contains(p.Why, "its MTU is 1300, this node's 1450") {
		t.Errorf("%+v", p)
	}
	awaitLog(t, one, "peer node-2 at 192.168.254.12 has another MTU", "peerMTU=1300")
	awaitPeer(t, two, 1, "the node with the smaller MTU keeps its own", func(p node.PeerStatus) bool { return p.MTU == 1300 && p.State == "up" })
	transfer{from: cl.Nodes[0].Pods[0].Namespace, to: cl.Nodes[1].Pods[0].Namespace, addr: cl.Nodes[1].Pods[0].Addr4, size: 1 << 20}.run(t)
}

// TestPathMTU: the middle of the way takes less than its ends. The nodes find out how much, say what to do, and find out when it
// is over.
func TestPathMTU(t *testing.T) {
	t.Parallel() // most of it is waiting
	cl := newCluster(t, lab.ClusterConfig{Pods: []int{1, 1}, Underlay: lab.UnderlayConfig{Faults: lab.Faults{MTU: 1400}}})
	one := cl.Nodes[0]
	const want = 1400 - 50
	p := awaitPeer(t, one, 2, "the MTU of the way is found", func(p node.PeerStatus) bool { return p.MTU == want })
	if p.State != "up" || !strings.Contains(p.Why, "packets of 1450 bytes do not arrive; lower mtu to 1350 or raise the underlay's MTU on the way") {
		t.Errorf("%+v", p)
	}
	awaitLog(t, one, "peer node-2 at 192.168.254.12: packets of 1450 bytes do not arrive; lower mtu to 1350 or raise the underlay's MTU on the way to 1500")
	a, b := one.Pods[0], cl.Nodes[1].Pods[0]
	for _, to := range []netip.Addr{b.Addr4, b.Addr6} { // pods are told, and get through
		transfer{from: a.Namespace, to: b.Namespace, addr: to, size: 1 << 20, timeout: time.Minute}.run(t)
		mustLearnMTU(t, a.Namespace, to, 1390, want)
	}
	cl.Underlay.Link().SetFaults(lab.Faults{MTU: 1300})
	awaitPeer(t, one, 2, "the way is too small for IPv6", func(p node.PeerStatus) bool {
		return p.MTU == 1250 && strings.Contains(p.Why, "IPv6 pods do not reach it (IPv6 needs 1280): raise the underlay's MTU on the way to 1500")
	})
	cl.Underlay.Link().SetFaults(lab.Faults{})
	awaitPeer(t, one, 2, "the way takes all again", func(p node.PeerStatus) bool { return p.MTU == 1450 && p.Why == "" })
	awaitLog(t, one, "packets of 1450 bytes arrive again")
}

// TestNoTrains: something on the way spoils trains. The nodes go back to datagrams one by one, and to trains when it is over.
func TestNoTrains(t *testing.T) {
	t.Parallel() // most of it is waiting
	cl := newCluster(t, lab.ClusterConfig{Pods: []int{1, 1}, Underlay: lab.UnderlayConfig{Faults: lab.Faults{NoTrains: true}}})
	one, a, b := cl.Nodes[0], cl.Nodes[0].Pods[0], cl.Nodes[1].Pods[0]
	awaitPeer(t, one, 2, "trains do not arrive", func(p node.PeerStatus) bool {
		return p.State == "up" && !p.Trains && strings.Contains(p.Why, "trains of datagrams do not arrive")
	})
	awaitLog(t, one, "peer node-2 at 192.168.254.12: trains of datagrams do not arrive, it gets them one by one", "offloads.udpSegment: off")
	awaitPeer(t, cl.Nodes[1], 1, "trains do not arrive the other way either", func(p node.PeerStatus) bool { return p.State == "up" && !p.Trains })
	for _, to := range []netip.Addr{b.Addr4, b.Addr6} {
		transfer{from: a.Namespace, to: b.Namespace, addr: to, size: 8 << 20, timeout: time.Minute}.run(t)
	}
	lost := cl.Underlay.Link().Counters(0, 1).OfTrains
	if lost == 0 {
		t.Error("the link has lost no train")
	}
	cl.Underlay.Link().SetFaults(lab.Faults{})
	awaitPeer(t, one, 2, "trains arrive again", func(p node.PeerStatus) bool { return p.Trains && p.Why == "" })
	awaitLog(t, one, "trains of datagrams arrive again")
}
