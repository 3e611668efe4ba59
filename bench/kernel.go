package bench

import "github.com/middleway-net/middleway/lab"

// Kernel is what everybody is compared with: veth and bridge on one node, veth, bridge and flannel's VXLAN between nodes,
// with the offloads that the kernel turns on by itself.
type Kernel struct{}

// Name is the contestant's name.
func (Kernel) Name() string { return "kernel" }

// Join joins two pods by the kernel.
func (Kernel) Join(place Place) (*Pair, error) {
	return build(func(p *Pair) error {
		if place == SameNode {
			return p.bridge()
		}
		return p.kernelVXLAN()
	})
}

func (p *Pair) bridge() error {
	node, err := p.namespace("node-1")
	if err != nil {
		return err
	}
	b, err := lab.NewKernelBridge(node, podMTU, lab.PodCIDR4(1))
	if err != nil {
		return err
	}
	p.OnClose(b.Close)
	return p.kernelPods(b, b)
}

func (p *Pair) kernelVXLAN() error {
	nodes, err := p.nodes()
	if err != nil {
		return err
	}
	var bridges [2]*lab.KernelBridge
	for i, node := range nodes {
		own, peer := lab.PlanVTEPs(i + 1)[:1], lab.PlanVTEPs(2 - i)[:1]
		v, err := lab.NewKernelVXLAN(node, lab.KernelVXLANConfig{Own: own})
		if err != nil {
			return err
		}
		p.OnClose(v.Close)
		if err := v.AddPeer(peer...); err != nil {
			return err
		}
		bridges[i] = v.KernelBridge
	}
	return p.kernelPods(bridges[0], bridges[1])
}

func (p *Pair) kernelPods(from, to *lab.KernelBridge) error {
	a, err := from.AddPod()
	if err != nil {
		return err
	}
	b, err := to.AddPod()
	if err != nil {
		return err
	}
	p.From, p.To, p.Addr = a.Namespace, b.Namespace, b.Addrs[0]
	return nil
}
