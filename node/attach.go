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
	former, err := n.recordedPods()
	if err != nil {
		return err
	}
	for _, p := range n.config.Pods {
		err := n.attach(p)
		if errors.Is(err, fs.ErrNotExist) && former[p.Name] == p.Netns { // else its path is a mistake
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
	dev, err := openDevice(n.linkConfig(p.Netns, p.Addresses), n.config.PortableDevices)
	if err != nil {
		return err
	}
	if _, err := n.hand(p.Name, p.Addresses, dev); err != nil {
		return err
	}
	n.devices = append(n.devices, dev)
	return nil
}

// linkConfig describes the device of a pod with these addresses; its name is the caller's.
func (n *Node) linkConfig(netns string, addrs []netip.Addr) link.Config {
	return link.Config{
		Netns: netns, Addrs: addrs, Gateways: n.gatewaysOf(addrs), MTU: n.mtu,
		Queues: stack.Workers(n.config.Workers), MaxSegments: maxSegments(n.mtu), Without: n.config.Offloads.device(),
	}
}

// hand gives a device to the stack, and closes it if the stack does not take it.
func (n *Node) hand(name string, addrs []netip.Addr, dev device) (id uint32, err error) {
	id, err = n.stack.Attach(stack.Attachment{Name: name, Addrs: addrs, Queues: dev.queues(), Device: dev})
	if err != nil {
		return 0, errors.Join(err, dev.Close())
	}
	return id, nil
}

// device is a pod's or the host's device of either kind.
type device interface {
	SetPersist(on bool) error
	Close() error
	queues() []stack.Queue
}

// fast is a device with one queue a worker, single one with a single queue.
type (
	fast   struct{ *tun.Device }
	single struct{ *tun.Portable }
)

func (d fast) queues() (queues []stack.Queue) {
	for _, q := range d.Queues() {
		queues = append(queues, q)
	}
	return queues
}

func (d single) queues() []stack.Queue { return []stack.Queue{d.Portable} }

func openDevice(c link.Config, portable bool) (device, error) {
	if portable {
		dev, err := link.OpenPortable(c)
		return single{dev}, err
	}
	dev, err := link.Open(c)
	return fast{dev}, err
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
