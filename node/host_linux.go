package node

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/middleway-net/middleway/cni/link"
	"github.com/middleway-net/middleway/stack"
)

// DefaultHostDevice is the name of the host's attachment by default.
const DefaultHostDevice = "mw0"

// noHostDevice is the value of Config.HostDevice that leaves the host without one.
const noHostDevice = "none"

// HostStatus is what a daemon tells of the host's attachment.
type HostStatus struct {
	// Device is its name; empty if it is turned off.
	Device string `json:"device"`
	// Addresses are those that the device has of its own, from which the host sends to pods.
	Addresses []netip.Addr `json:"addresses"`
	// Routes are the ranges that the host reaches through it.
	Routes []netip.Prefix `json:"routes"`
	// Missing says what of it is not there, and why it could not be put back; empty if all is.
	Missing string `json:"missing,omitempty"`
	// DirectRouting tells whether plain packets of a peer that has a route to our pods by this node's address (flannel's
	// DirectRouting) reach them: the kernel forwards packets of that address' family, and takes sources that it would
	// itself reach through the device.
	DirectRouting bool `json:"directRouting"`
}

// attachHost opens the host's device and attaches it.
func (n *Node) attachHost() error {
	if n.config.HostDevice == noHostDevice {
		return nil
	}
	c := n.hostConfig()
	n.host.device, n.host.changed = c.Name, make(chan struct{}, 1)
	dev, err := n.openHost(c)
	if err != nil {
		return err
	}
	n.devices = append(n.devices, dev)
	if len(n.host.want().Addrs) < len(c.Addrs) {
		n.note(fmt.Sprintf("IPv6 is turned off on %s (net.ipv6.conf.%s.disable_ipv6): the host reaches pods by IPv4 only", c.Name, c.Name))
	}
	return n.setHostAddrs()
}

func (n *Node) hostConfig() link.HostConfig {
	c := link.HostConfig{
		Name: n.config.HostDevice, MTU: n.mtu, Queues: stack.Workers(n.config.Workers), MaxSegments: maxSegments(n.mtu), Without: n.config.Offloads.device(),
	}
	for _, cidr := range n.config.PodCIDRs {
		c.Addrs = append(c.Addrs, HostAddr(cidr))
	}
	now := n.now()
	c.Own = now.podRanges()
	c.Routes = append(slices.Clone(c.Own), n.config.ClusterCIDRs...)
	if !n.config.Services.BesideKubeProxy {
		c.Routes = append(c.Routes, n.config.Services.CIDRs...)
	}
	if n.config.Sockets != "" {
		c.Routes = append(c.Routes, now.peerAddrs()...)
	}
	return c
}

// openHost opens the host's device and attaches it.
func (n *Node) openHost(c link.HostConfig) (device, error) {
	dev, host, err := n.openHostDevice(c)
	if err != nil {
		return nil, fmt.Errorf("attach the host (hostDevice): %w", err)
	}
	id, err := n.stack.Attach(stack.Attachment{Name: c.Name, Host: true, Addrs: host.Addrs, Queues: dev.queues(), Device: dev})
	if err != nil {
		return nil, errors.Join(err, dev.Close())
	}
	n.host.id, n.host.attached = id, true
	n.host.setWant(host)
	return dev, nil
}

func (n *Node) openHostDevice(c link.HostConfig) (device, link.Host, error) {
	if n.config.PortableDevices {
		dev, host, err := link.OpenHostPortable(c)
		return single{dev}, host, err
	}
	dev, host, err := link.OpenHost(c)
	return fast{dev}, host, err
}

// setHostAddrs tells the stack which addresses the host has now. Those within pods' ranges are left out: a former network's
// device may still have one, and it would take it from a pod.
func (n *Node) setHostAddrs() error {
	has, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list the host's addresses: %w", err)
	}
	addrs := slices.Clone(n.config.NodeAddresses)
	ranges := n.now().podRanges()
	for _, h := range has {
		a, ok := netip.AddrFromSlice(h.IP)
		a = a.Unmap()
		if ok && a.IsGlobalUnicast() && !slices.Contains(addrs, a) && !slices.ContainsFunc(ranges, func(r netip.Prefix) bool { return r.Contains(a) }) {
			addrs = append(addrs, a)
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return n.stack.SetHostAddrs(addrs)
}

func (n *Node) takesDirectRouting() bool {
	if n.config.Sockets != "" || !link.Forwards(n.config.Address) { // a parent's namespace has no way to our pods
		return false
	}
	return n.config.Address.Is6() || !link.ReversePathStrict(n.out.Interface)
}
