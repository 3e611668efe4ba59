package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

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
	// Device is its name; empty if there is none.
	Device string `json:"device"`
	// Addresses are the device's own, from which the host sends to pods.
	Addresses []netip.Addr `json:"addresses"`
	// Routes are the ranges that the host reaches through it.
	Routes []netip.Prefix `json:"routes"`
	// DirectRouting tells whether plain packets of a peer that has a route to our pods by this node's address (flannel's
	// DirectRouting) reach them: the kernel forwards packets of that address' family, and takes sources that it would
	// itself reach through the device.
	DirectRouting bool `json:"directRouting"`
}

// host is the host's attachment.
type host struct {
	device string // empty if there is none
	link.Host
}

// attachHost opens the host's device and attaches it.
func (n *Node) attachHost() error {
	if n.config.HostDevice == noHostDevice {
		return nil
	}
	c := link.HostConfig{
		Name: n.config.HostDevice, MTU: n.mtu, Queues: stack.Workers(n.config.Workers), MaxSegments: maxSegments(n.mtu), Without: n.config.Offloads.device(),
	}
	for _, cidr := range n.config.PodCIDRs {
		c.Addrs = append(c.Addrs, HostAddr(cidr))
	}
	c.Own = n.config.podRanges()
	c.Routes = append(slices.Clone(c.Own), n.config.ClusterCIDRs...)
	if n.config.Sockets != "" {
		c.Routes = append(c.Routes, n.config.peerAddrs()...)
	}
	dev, host, err := n.openHostDevice(c)
	if err != nil {
		return fmt.Errorf("attach the host (hostDevice): %w", err)
	}
	if _, err := n.stack.Attach(stack.Attachment{Name: c.Name, Host: true, Addrs: host.Addrs, Queues: dev.queues(), Device: dev}); err != nil {
		return errors.Join(err, dev.Close())
	}
	n.devices = append(n.devices, dev)
	n.host.device, n.host.Host = c.Name, host
	if len(host.Addrs) < len(c.Addrs) {
		n.note(fmt.Sprintf("IPv6 is turned off on %s (net.ipv6.conf.%s.disable_ipv6): the host reaches pods by IPv4 only", c.Name, c.Name))
	}
	return n.setHostAddrs()
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
	ranges := n.config.podRanges()
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

// watchRetry is how long to wait before the kernel is asked again to tell of changes, after it stopped.
const watchRetry = time.Second

// watchHost keeps the stack's knowledge of the host's addresses true until ctx ends.
func (n *Node) watchHost(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := n.watchAddrs(ctx); err != nil {
			n.log.Warn("the host's addresses are not watched for a moment", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(watchRetry):
		}
	}
	return nil
}

// watchAddrs sets the host's addresses at every change until ctx ends or the kernel stops telling.
func (n *Node) watchAddrs(ctx context.Context) error {
	changes := make(chan netlink.AddrUpdate)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var lost error
	err := netlink.AddrSubscribeWithOptions(changes, ctx.Done(), netlink.AddrSubscribeOptions{ErrorCallback: func(err error) { lost = err }})
	if err != nil {
		return err
	}
	defer func() {
		stop()
		for range changes { // closed when the goroutine that receives has ended
		}
	}()
	for {
		if err := n.setHostAddrs(); err != nil { // the first time for what changed before the subscription
			return err
		}
		if _, more := <-changes; more {
			continue
		}
		if ctx.Err() != nil {
			return nil
		}
		return lost
	}
}

// hostStatus returns the state of the host's attachment.
func (n *Node) hostStatus() HostStatus {
	st := HostStatus{Device: n.host.device, Addresses: n.host.Addrs, Routes: n.host.Routes}
	if n.host.device != "" {
		st.DirectRouting = n.takesDirectRouting()
	}
	return st
}

func (n *Node) takesDirectRouting() bool {
	if n.config.Sockets != "" || !link.Forwards(n.config.Address) { // a parent's namespace has no way to our pods
		return false
	}
	return n.config.Address.Is6() || !link.ReversePathStrict(n.out.Interface)
}
