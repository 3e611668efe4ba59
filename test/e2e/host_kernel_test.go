package e2e

import (
	"testing"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
)

// TestHostKernelVXLAN: hosts of flannel's kind and ours reach each other's pods, and pods the other's host.
func TestHostKernelVXLAN(t *testing.T) {
	k := newKernelPeers(t, lab.ClusterConfig{})
	n, far, theirs := k.node, k.far[0], k.vxlan[0].Node()
	sizes := []int{1, 2, 3, 512, 1000}
	for _, pl := range plans {
		t.Run(pl.name, func(t *testing.T) {
			pod, farPod := pl.pod(k.pod), pl.host(2).Next().Next()
			// Their host from its flannel.1, and back.
			t.Log(transfer{from: theirs, to: k.pod.Namespace, addr: pod, seen: pl.host(2), size: hostSize}.run(t))
			t.Log(transfer{from: k.pod.Namespace, to: theirs, addr: pl.host(2), seen: pod, size: hostSize}.run(t))
			echoUDP(t, theirs, k.pod.Namespace, pod, append(sizes, pl.most))
			echoUDP(t, k.pod.Namespace, theirs, pl.host(2), append(sizes, pl.most))
			// Our pod to their node's own address.
			t.Log(transfer{from: k.pod.Namespace, to: theirs, addr: pl.node(2), seen: pod, size: hostSize}.run(t))
			echoUDP(t, k.pod.Namespace, theirs, pl.node(2), append(sizes, pl.most))
			// Our host from mw0, also where a program insists on another address, and back.
			t.Log(transfer{from: n.Namespace, to: far.Namespace, addr: farPod, seen: pl.host(1), size: hostSize}.run(t))
			t.Log(transfer{from: n.Namespace, local: pl.node(1), to: far.Namespace, addr: farPod, seen: pl.host(1), size: hostSize}.run(t))
			t.Log(transfer{from: far.Namespace, to: n.Namespace, addr: pl.host(1), seen: farPod, size: hostSize}.run(t))
			echoUDP(t, n.Namespace, far.Namespace, farPod, append(sizes, pl.most))
			echoUDP(t, fromAddr(n, pl.node(1)), far.Namespace, farPod, append(sizes, pl.most))
			for _, size := range []int{1, 700, pl.most} {
				segmentsUDP(t, fromAddr(n, pl.node(1)), far.Namespace, farPod, size)
				segmentsUDP(t, far, n.Namespace, pl.host(1), size)
			}
			// Host to host, by the addresses that are behind the tunnel.
			t.Log(transfer{from: theirs, to: n.Namespace, addr: pl.host(1), seen: pl.host(2), size: hostSize}.run(t))
			t.Log(transfer{from: n.Namespace, to: theirs, addr: pl.host(2), seen: pl.host(1), size: hostSize}.run(t))
			for _, size := range append(sizes, 0, pl.most) {
				mustPing(t, theirs, pod, size)
				mustPing(t, n.Namespace, farPod, size)
				mustPing(t, k.pod.Namespace, pl.node(2), size)
			}
		})
	}
	if d := dropsOf(t, n); d.sum() != d["scope"] {
		t.Errorf("drops: %v", d)
	}
}

// TestHostDirectRouting: a peer has a route to our pods by this node's address, as flannel makes it with DirectRouting, and
// sends plain packets; the answers go through the tunnel.
func TestHostDirectRouting(t *testing.T) {
	k := newKernelPeers(t, lab.ClusterConfig{})
	n, far, peer := k.node, k.far[0], k.vxlan[0]
	if mustStatus(t, n).Host.DirectRouting {
		t.Error("a host that does not forward says that it takes plain packets")
	}
	for _, name := range []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"} {
		if err := n.Sysctl(name, "1"); err != nil {
			t.Fatal(err)
		}
	}
	if !mustStatus(t, n).Host.DirectRouting {
		t.Error("a host that forwards says that it does not take plain packets")
	}
	// Without neighbour and forwarding entry nothing can leave through flannel.1.
	mac := node.DefaultMAC(n.Config.Address)
	for i, v := range vteps(1, false, mac[:]) {
		if err := peer.RemovePeer(v); err != nil && i == 0 { // the second one's forwarding entry was the first one's too
			t.Fatal(err)
		}
	}
	for _, pl := range plans {
		t.Run(pl.name, func(t *testing.T) {
			range1 := n.Config.PodCIDRs[0]
			if pl.name == "IPv6" {
				range1 = n.Config.PodCIDRs[1]
			}
			if err := peer.Node().AddRoute(range1, pl.node(1), "eth0"); err != nil {
				t.Fatal(err)
			}
			pod, farPod := pl.pod(k.pod), pl.host(2).Next().Next()
			for _, size := range []int{0, 56, pl.most} {
				mustPing(t, far.Namespace, pod, size)
				mustPing(t, k.pod.Namespace, farPod, size)
			}
			t.Log(transfer{from: far.Namespace, to: k.pod.Namespace, addr: pod, seen: farPod, size: hostSize}.run(t))
			t.Log(transfer{from: k.pod.Namespace, to: far.Namespace, addr: farPod, seen: pod, size: hostSize}.run(t))
			echoUDP(t, far, k.pod.Namespace, pod, []int{1, 512, pl.most})
			// Their host sends from its address on the underlay, and is answered there.
			t.Log(transfer{from: peer.Node(), to: k.pod.Namespace, addr: pod, seen: pl.node(2), size: hostSize}.run(t))
		})
	}
	t.Run("strict reverse path", func(t *testing.T) {
		if err := n.Sysctl("net.ipv4.conf.eth0.rp_filter", "1"); err != nil {
			t.Fatal(err)
		}
		if mustStatus(t, n).Host.DirectRouting {
			t.Error("a host whose eth0 is strict says that it takes plain packets")
		}
	})
	if d := dropsOf(t, n); d.sum() != d["scope"] {
		t.Errorf("drops: %v", d)
	}
}
