package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"

	"golang.org/x/sys/unix"
)

// podBridge is the bridge's name where flannel and the bridge plugin put theirs.
const podBridge = "cni0"

// KernelBridge is a node whose pods the kernel joins, the way the CNI bridge plugin does it: what middleway is compared
// with on one node, and the inner half of a KernelVXLAN.
//
//	pod eth0 ──veth── veth2 ┐
//	pod eth0 ──veth── veth3 ┴ cni0 (.1) ── the node's own routes
type KernelBridge struct {
	node  *Namespace
	cidrs []netip.Prefix
	mtu   int
	pods  []*KernelPod
}

// KernelPod is a pod of a KernelBridge: a namespace with a device eth0 and a default route to the bridge.
type KernelPod struct {
	*Namespace
	Addrs []netip.Addr // one for each range of the bridge, in the same order
}

// NewKernelBridge makes a bridge in the node's namespace and turns forwarding on. cidrs are the node's pod ranges, one
// per family; the bridge gets the first address of each, pods the following ones. mtu is in bytes, IP header included.
func NewKernelBridge(node *Namespace, mtu int, cidrs ...netip.Prefix) (*KernelBridge, error) {
	b := &KernelBridge{node: node, cidrs: cidrs, mtu: mtu}
	for _, name := range []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"} {
		if err := node.Sysctl(name, "1"); err != nil && !errors.Is(err, fs.ErrNotExist) { // a kernel without IPv6 has but the first
			return nil, err
		}
	}
	if err := addBridge(node, podBridge, mtu); err != nil {
		return nil, err
	}
	for _, cidr := range cidrs {
		if err := node.AddAddr(podBridge, host(cidr, 1)); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// Node returns the node's namespace.
func (b *KernelBridge) Node() *Namespace { return b.node }

// AddPod makes a pod, which belongs to the bridge, and joins it. Not to be called by two goroutines at once.
func (b *KernelBridge) AddPod() (*KernelPod, error) {
	number := 2 + len(b.pods)
	ns, err := NewNamespace(fmt.Sprintf("%s-pod%d", b.node.name, number))
	if err != nil {
		return nil, err
	}
	pod := &KernelPod{Namespace: ns}
	if err := b.joinPod(pod, number); err != nil {
		ns.Close()
		return nil, err
	}
	b.pods = append(b.pods, pod)
	return pod, nil
}

func (b *KernelBridge) joinPod(pod *KernelPod, number int) error {
	end := VethEnd{Namespace: pod.Namespace, Device: "eth0"}
	if err := joinBridge(b.node, podBridge, fmt.Sprintf("veth%d", number), end, b.mtu); err != nil {
		return err
	}
	for _, cidr := range b.cidrs {
		addr := host(cidr, number)
		if err := pod.AddAddr("eth0", addr); err != nil {
			return err
		}
		all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if addr.Addr().Is6() {
			all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		if err := pod.AddRoute(all, host(cidr, 1).Addr(), "eth0"); err != nil {
			return err
		}
		pod.Addrs = append(pod.Addrs, addr.Addr())
	}
	return nil
}

// SetOffloads turns the offloads of all ends of all pods' devices on or off; see SetOffloads.
func (b *KernelBridge) SetOffloads(on bool) error {
	for i, pod := range b.pods {
		if err := SetOffloads(pod.Namespace, "eth0", on); err != nil {
			return err
		}
		if err := SetOffloads(b.node, fmt.Sprintf("veth%d", 2+i), on); err != nil {
			return err
		}
	}
	return nil
}

// Close removes the pods and the bridge. The node's namespace stays open.
func (b *KernelBridge) Close() error {
	var errs []error
	for _, pod := range b.pods {
		errs = append(errs, pod.Close())
	}
	return errors.Join(append(errs, deleteLink(b.node, podBridge))...)
}

// deleteLink removes a device; it may be gone with its namespace's end already.
func deleteLink(n *Namespace, device string) error {
	nl, link, err := n.link(device)
	if err != nil {
		return err
	}
	if err := nl.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("namespace %s: delete %s: %w", n.name, device, err)
	}
	return nil
}
