package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
)

// kernelSize is what each transfer with a kernel peer moves, in bytes.
const kernelSize = 256 << 20

// kernelPeers is a middleway node, and two nodes that have only the kernel's VXLAN.
//
//	node 1: daemon ── pod          node 2: flannel.1 ── cni0 ── pod          node 3: as node 2
//	   └─────────────── veth to a bridge (so offloads cross) ───────────────────┘
type kernelPeers struct {
	node  *lab.Node
	pod   *lab.Pod
	vxlan [2]*lab.KernelVXLAN
	far   [2]*lab.KernelPod
}

func newKernelPeers(t *testing.T, c lab.ClusterConfig) *kernelPeers {
	v6 := c.IPv6Underlay
	kernels := []*lab.Namespace{newNamespace(t, "node-2"), newNamespace(t, "node-3")}
	c.Pods, c.Kernel = []int{1}, kernels
	cl := newCluster(t, c)
	k := &kernelPeers{node: cl.Nodes[0], pod: cl.Nodes[0].Pods[0]}
	for i, ns := range kernels {
		k.vxlan[i], k.far[i] = newKernelNode(t, ns, i+2, v6)
	}
	ours := node.DefaultMAC(k.node.Config.Address)
	for i, v := range k.vxlan {
		other := 3 - i
		k.addPeers(t, v, vteps(1, v6, ours[:])...)
		k.addPeers(t, v, vteps(other, v6, vtep(other, v6).MAC)...)
	}
	return k
}

// vtep is what flannel's device of the underlay's family is in node n.
func vtep(n int, v6 bool) lab.VTEP {
	if v6 {
		return lab.PlanVTEPs(n)[1]
	}
	return lab.PlanVTEPs(n)[0]
}

// vteps lets both families of pods travel over the underlay's one family. Flannel would take a second underlay for the
// other one; our daemon has one.
func vteps(n int, v6 bool, mac net.HardwareAddr) []lab.VTEP {
	own := vtep(n, v6)
	return []lab.VTEP{
		{PodCIDR: lab.PodCIDR4(n), Node: own.Node, MAC: mac},
		{PodCIDR: lab.PodCIDR6(n), Node: own.Node, MAC: mac},
	}
}

func (k *kernelPeers) addPeers(t *testing.T, v *lab.KernelVXLAN, peers ...lab.VTEP) {
	t.Helper()
	if err := v.AddPeer(peers...); err != nil {
		t.Fatal(err)
	}
}

// newKernelNode sets up the device of the underlay's family, and gives bridge and pod the other family by hand.
func newKernelNode(t *testing.T, ns *lab.Namespace, number int, v6 bool) (*lab.KernelVXLAN, *lab.KernelPod) {
	t.Helper()
	v, err := lab.NewKernelVXLAN(ns, lab.KernelVXLANConfig{Own: []lab.VTEP{vtep(number, v6)}})
	mustHave(t, err)
	t.Cleanup(func() { v.Close() })
	pod, err := v.AddPod()
	if err != nil {
		t.Fatal(err)
	}
	cidr, all := lab.PodCIDR6(number), netip.MustParsePrefix("::/0")
	device := "flannel.1"
	if v6 {
		cidr, all = lab.PodCIDR4(number), netip.MustParsePrefix("0.0.0.0/0")
		device = "flannel-v6.1"
	}
	bits := cidr.Addr().BitLen()
	for _, step := range []func() error{
		func() error { return ns.AddAddr("cni0", netip.PrefixFrom(host(cidr, 1), cidr.Bits())) },
		func() error { return ns.AddAddr(device, netip.PrefixFrom(host(cidr, 0), bits)) },
		func() error { return pod.AddAddr("eth0", netip.PrefixFrom(host(cidr, 2), cidr.Bits())) },
		func() error { return pod.AddRoute(all, host(cidr, 1), "eth0") },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	return v, pod
}

// setOffloads turns the offloads of everything on the way on or off.
func (k *kernelPeers) setOffloads(t *testing.T, v6, on bool) {
	t.Helper()
	device := "flannel.1"
	if v6 {
		device = "flannel-v6.1"
	}
	err := lab.SetOffloads(k.node.Namespace, "eth0", on)
	for _, v := range k.vxlan {
		for _, name := range []string{"eth0", device} {
			if err == nil {
				err = lab.SetOffloads(v.Node(), name, on)
			}
		}
		if err == nil {
			err = v.SetOffloads(on)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestKernelVXLAN(t *testing.T) { testKernelVXLAN(t, lab.ClusterConfig{}) }

func TestKernelVXLANOverIPv6(t *testing.T) { testKernelVXLAN(t, lab.ClusterConfig{IPv6Underlay: true}) }

// Peers that were told to take trains of datagrams.
func TestKernelVXLANTrains(t *testing.T) {
	testKernelVXLAN(t, lab.ClusterConfig{Change: func(_ int, c *node.Config) {
		for i := range c.Peers {
			c.Peers[i].Trains = true
		}
	}})
}

func testKernelVXLAN(t *testing.T, c lab.ClusterConfig) {
	v6 := c.IPv6Underlay
	k := newKernelPeers(t, c)
	for _, on := range []bool{true, false} {
		k.setOffloads(t, v6, on)
		t.Run(fmt.Sprintf("offloads=%v", on), func(t *testing.T) { k.exchange(t, kernelSize) })
	}
}

// A link without any offload, as between two machines: frames of the MTU, summed and split by the kernel.
func TestKernelVXLANOnLink(t *testing.T) {
	newKernelPeers(t, lab.ClusterConfig{Underlay: lab.UnderlayConfig{Userspace: true}}).exchange(t, 32<<20)
}

// exchange moves packets of all kinds between the node's pod and a kernel's.
func (k *kernelPeers) exchange(t *testing.T, size int64) {
	mtu := mustStatus(t, k.node).MTU
	near, far := k.pod.Namespace, k.far[0].Namespace
	for _, inner := range []struct {
		name              string
		most              int // payload of a packet
		near, here, third netip.Addr
	}{
		{"IPv4", mtu - 28, k.pod.Addr4, host(lab.PodCIDR4(2), 2), host(lab.PodCIDR4(3), 2)},
		{"IPv6", mtu - 48, k.pod.Addr6, host(lab.PodCIDR6(2), 2), host(lab.PodCIDR6(3), 2)},
	} {
		t.Run(inner.name, func(t *testing.T) {
			for _, size := range []int{0, 1, 56, inner.most} {
				mustPing(t, near, inner.here, size)
				mustPing(t, far, inner.near, size)
			}
			mustPing(t, k.vxlan[0].Node(), inner.near, 56) // from the tunnel device's own address
			var sizes []int
			for size := 1; size <= inner.most; size++ {
				sizes = append(sizes, size)
			}
			echoUDP(t, near, far, inner.here, sizes)
			echoUDP(t, far, near, inner.near, sizes)
			for _, segment := range []int{1, 700, inner.most} {
				segmentsUDP(t, near, far, inner.here, segment)
				segmentsUDP(t, far, near, inner.near, segment)
			}
			alone := transfer{from: far, to: k.far[1].Namespace, addr: inner.third, size: size}.run(t)
			out := transfer{from: near, to: far, addr: inner.here, size: size}.run(t)
			back := transfer{from: far, to: near, addr: inner.near, size: size}.run(t)
			t.Logf("kernel to kernel %.2f Gbit/s; to the kernel %.2f (%.2f of it), from the kernel %.2f (%.2f of it)",
				alone.gbits(), out.gbits(), out.gbits()/alone.gbits(), back.gbits(), back.gbits()/alone.gbits())
		})
	}
	if d := dropsOf(t, k.node); d.sum() != d["scope"] {
		t.Errorf("drops of the node: %v", d)
	}
}
