package node

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"

	"github.com/middleway-net/middleway/cni/link"
	"github.com/middleway-net/middleway/stack"
	"github.com/middleway-net/middleway/stack/tun"
	"github.com/middleway-net/middleway/tunnel/udp"
	"github.com/middleway-net/middleway/tunnel/vxlan"
)

func (n *Node) attachPods() error {
	for _, p := range n.config.Pods {
		err := n.attach(p)
		if errors.Is(err, fs.ErrNotExist) && n.flows.Reopened() {
			n.log.Warn("pod has ended while no daemon ran; it is left out", "pod", p.Name, "err", err)
			continue
		}
		if err != nil {
			return fmt.Errorf("attach pod %s: %w", p.Name, err)
		}
	}
	return nil
}

func (n *Node) attach(p Pod) error {
	dev, queues, err := n.openDevice(link.Config{
		Netns: p.Netns, Addrs: p.Addresses, Gateways: n.gatewaysOf(p.Addresses), MTU: n.mtu,
		Queues: stack.Workers(n.config.Workers), MaxSegments: maxSegments(n.mtu),
	})
	if err != nil {
		return err
	}
	if _, err := n.stack.Attach(stack.Attachment{Name: p.Name, Addrs: p.Addresses, Queues: queues, Device: dev}); err != nil {
		return errors.Join(err, dev.Close())
	}
	n.devices = append(n.devices, dev)
	return nil
}

// device is a pod's or the host's device of either kind.
type device interface {
	SetPersist(on bool) error
	Close() error
}

func (n *Node) openDevice(c link.Config) (device, []stack.Queue, error) {
	if n.config.PortableDevices {
		dev, err := link.OpenPortable(c)
		return dev, []stack.Queue{dev}, err
	}
	dev, err := link.Open(c)
	if err != nil {
		return nil, nil, err
	}
	return dev, queuesOf(dev), nil
}

func queuesOf(dev *tun.Device) (queues []stack.Queue) {
	for _, q := range dev.Queues() {
		queues = append(queues, q)
	}
	return queues
}

// gatewaysOf returns the gateways of the families that a pod has.
func (n *Node) gatewaysOf(addrs []netip.Addr) (gateways []netip.Addr) {
	for _, g := range n.gateways() {
		for _, a := range addrs {
			if a.Is4() == g.Is4() {
				gateways = append(gateways, g)
			}
		}
	}
	return gateways
}

// maxSegments is how many segments of a super-packet fit one train.
func maxSegments(mtu int) int { return max(1, min(udp.MaxTrain, udp.MaxTrainLen/(mtu+vxlan.Overhead))) }

// keepDevices makes the devices outlive the daemon. It is the last step of New: a start that failed before leaves no
// device behind that was not there.
func (n *Node) keepDevices() error {
	for _, dev := range n.devices {
		if err := dev.SetPersist(true); err != nil {
			return err
		}
	}
	return nil
}
