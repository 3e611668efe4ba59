package lab

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func addPod(t testing.TB, b *KernelBridge) *KernelPod {
	t.Helper()
	pod, err := b.AddPod()
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

// mustHave fails a test that got an error from the kernel, and skips it if the error is that the kernel lacks what is tested.
func mustHave(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, unix.EOPNOTSUPP) {
		t.Skip("this kernel cannot: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestKernelBridge(t *testing.T) {
	node := newNamespace(t, "node1")
	b, err := NewKernelBridge(node, 1500, PodCIDR4(1), PodCIDR6(1))
	mustHave(t, err)
	x, y := addPod(t, b), addPod(t, b)
	want := []netip.Addr{netip.MustParseAddr("10.244.1.3"), netip.MustParseAddr("fd00:10:244:1::3")}
	for i, addr := range y.Addrs {
		if addr != want[i] {
			t.Errorf("address of the second pod: got %s, want %s", addr, want[i])
		}
		mustPing(t, x.Namespace, addr, 1400)
		mustPing(t, node, addr, 56)
		mustPing(t, x.Namespace, host(b.cidrs[i], 1).Addr(), 56)
		transfer(t, x.Namespace, y.Namespace, addr, 4<<20)
	}
	if err := b.SetOffloads(false); err != nil {
		t.Error(err)
	}
	transfer(t, x.Namespace, y.Namespace, y.Addrs[0], 1<<20)
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

func newKernelVXLAN(t testing.TB, node *Namespace, number int, peers ...int) *KernelVXLAN {
	t.Helper()
	v, err := NewKernelVXLAN(node, KernelVXLANConfig{Own: PlanVTEPs(number)})
	mustHave(t, err)
	t.Cleanup(func() { v.Close() })
	for _, peer := range peers {
		if err := v.AddPeer(PlanVTEPs(peer)...); err != nil {
			t.Fatal(err)
		}
	}
	return v
}

func TestKernelVXLAN(t *testing.T) {
	for _, userspace := range []bool{false, true} {
		nodes := newNamespaces(t, 2)
		newUnderlay(t, UnderlayConfig{Userspace: userspace}, nodes...)
		a, b := newKernelVXLAN(t, nodes[0], 1, 2), newKernelVXLAN(t, nodes[1], 2, 1)
		x, y := addPod(t, a.KernelBridge), addPod(t, b.KernelBridge)
		for i, addr := range y.Addrs {
			mustPing(t, x.Namespace, addr, 1350)
			mustPing(t, nodes[0], addr, 56)                              // from the tunnel device's own address
			mustPing(t, x.Namespace, PlanVTEPs(2)[i].PodCIDR.Addr(), 56) // which the peer answers for
			transfer(t, x.Namespace, y.Namespace, addr, 4<<20)
		}
		if err := a.AddPeer(PlanVTEPs(2)...); err != nil {
			t.Errorf("add a known peer: %v", err)
		}
		if err := a.RemovePeer(PlanVTEPs(2)...); err != nil {
			t.Error(err)
		}
		mustNotPing(t, y.Namespace, x.Addrs[0])
	}
}

// The devices are flannel's: name, MTU, address, MAC, and no learning.
func TestKernelVXLANDevices(t *testing.T) {
	nodes := newNamespaces(t, 2)
	newUnderlay(t, UnderlayConfig{}, nodes...)
	newKernelVXLAN(t, nodes[0], 1, 2)
	for _, tt := range []struct {
		device, addr, mac string
		mtu               int
	}{
		{"flannel.1", "10.244.1.0/32", "02:6d:77:04:00:01", 1450},
		{"flannel-v6.1", "fd00:10:244:1::/128", "02:6d:77:06:00:01", 1430},
	} {
		nl, link, err := nodes[0].link(tt.device)
		if err != nil {
			t.Fatal(err)
		}
		if got := link.Attrs(); got.MTU != tt.mtu || got.HardwareAddr.String() != tt.mac {
			t.Errorf("%s: got mtu %d mac %s, want %d %s", tt.device, got.MTU, got.HardwareAddr, tt.mtu, tt.mac)
		}
		vxlan := link.(*netlink.Vxlan)
		if vxlan.VxlanId != 1 || vxlan.Port != 8472 || vxlan.Learning || vxlan.VtepDevIndex == 0 {
			t.Errorf("%s: got %+v", tt.device, vxlan)
		}
		family := unix.AF_INET
		if vxlan.SrcAddr.To4() == nil {
			family = unix.AF_INET6
		}
		addrs, err := nl.AddrList(link, family)
		if err != nil || len(addrs) == 0 || addrs[0].IPNet.String() != tt.addr {
			t.Errorf("%s: got addresses %v, %v, want %s", tt.device, addrs, err, tt.addr)
		}
	}
}
