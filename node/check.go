package node

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/middleway-net/middleway/node/underlay"
	"github.com/middleway-net/middleway/stack/tun"
	"github.com/middleway-net/middleway/tunnel/udp"
	"github.com/middleway-net/middleway/tunnel/vxlan"
)

// Limits of the configuration.
const (
	minMTU  = 1280                             // the least that IPv6 takes (RFC 8200, section 5)
	minMTU4 = 576                              // what every IPv4 host accepts (RFC 791, section 3.2); only where the underlay leaves no more
	maxMTU  = udp.MaxTrainLen - vxlan.Overhead // what one datagram holds
	maxName = 253

	minInterval = 10 * time.Millisecond // of looking for pods that have gone
)

// check finds the first thing that cannot work, and says which field it is and what it should be.
func (c *Config) check() error {
	switch {
	case c.Name == "" || len(c.Name) > maxName:
		return errors.New("name: a name for the node is needed")
	case c.Address.IsUnspecified() || c.Address.IsMulticast() || c.Address.Is4In6() || c.Address.Zone() != "":
		return fmt.Errorf("address: %v is not an address like 192.168.254.11; without the field the node finds its own", c.Address)
	case len(c.Sockets) > maxSocketPath:
		return fmt.Errorf("sockets: %s is longer than %d bytes; choose a shorter path", c.Sockets, maxSocketPath)
	case c.MTU != 0 && (c.MTU < c.leastMTU() || c.MTU > maxMTU):
		return fmt.Errorf("mtu: %d is not between %d and %d bytes", c.MTU, c.leastMTU(), maxMTU)
	case c.Workers < 0 || c.Workers > 256:
		return fmt.Errorf("workers: %d is not between 1 and 256", c.Workers)
	case c.FlowEntries < 0 || c.FlowEntries > 1<<26:
		return fmt.Errorf("flowEntries: %d is not between 1 and %d", c.FlowEntries, 1<<26)
	case c.EchoPort < -1 || c.EchoPort > 65535:
		return fmt.Errorf("echoPort: %d is no port; -1 turns the service off", c.EchoPort)
	case time.Duration(c.CNI.Interval) < minInterval:
		return fmt.Errorf("cni.interval: %v is less than %v", time.Duration(c.CNI.Interval), minInterval)
	case c.PortableDevices && c.Offloads.device() != (tun.Offloads{}):
		return errors.New("offloads: with portableDevices checksum, tso and uso cannot be turned off; leave them out, or portableDevices")
	case c.VXLAN.VNI > vxlan.MaxVNI:
		return fmt.Errorf("vxlan.vni: %d is more than 24 bits (%d)", c.VXLAN.VNI, vxlan.MaxVNI)
	}
	if err := c.Offloads.check(); err != nil {
		return err
	}
	if c.HTTP != noHTTP {
		if _, err := net.ResolveTCPAddr("tcp", c.HTTP); err != nil {
			return fmt.Errorf("http: %q is not an address like %s or :9473; none turns the server off", c.HTTP, DefaultHTTP)
		}
	}
	if err := c.checkUnderlay(); err != nil {
		return err
	}
	if err := checkCIDRs(c.PodCIDRs); err != nil {
		return fmt.Errorf("podCIDRs: %w", err)
	}
	if err := c.checkPeers(); err != nil {
		return err
	}
	if err := c.checkHost(); err != nil {
		return err
	}
	return c.checkPods()
}

// maxDevice is the longest name of an interface, in bytes (IFNAMSIZ less the end).
const maxDevice = 15

// checkHost checks the nodes' addresses, and that the host does not reach them through its attachment: what the tunnel
// sends would come back into it.
func (c *Config) checkHost() error {
	if len(c.HostDevice) > maxDevice || strings.ContainsAny(c.HostDevice, "%/: \t\n\x00") {
		return fmt.Errorf("hostDevice: %q is not an interface name of 1 to %d bytes without %%, /, : and space; none leaves the host without one", c.HostDevice, maxDevice)
	}
	owners := map[netip.Addr]string{}
	if err := c.checkNodeAddrs("nodeAddresses", "this node", c.NodeAddresses, owners); err != nil {
		return err
	}
	for i, p := range c.Peers {
		where := fmt.Sprintf("peers[%d]", i)
		if err := c.checkNodeAddrs(where+".nodeAddresses", where, p.NodeAddresses, owners); err != nil {
			return err
		}
	}
	for _, r := range c.podRanges() {
		if a, ok := c.nodeWithin(r); ok {
			return fmt.Errorf("address: %v of a node lies within %v, the range of a node's pods; pods need a range of their own", a, r)
		}
	}
	for i, r := range c.ClusterCIDRs {
		where := fmt.Sprintf("clusterCIDRs[%d]", i)
		if !r.IsValid() || r.Addr().Is4In6() || r != r.Masked() || r.Bits() == 0 {
			return fmt.Errorf("%s: %v is not a range like 10.244.0.0/16 or fd00:10:244::/48", where, r)
		}
		if a, ok := c.nodeWithin(r); ok {
			return fmt.Errorf("%s: %v contains %v of a node, which the host must reach by the underlay; leave it out, or name smaller ranges", where, r, a)
		}
	}
	return nil
}

// checkNodeAddrs checks the addresses of one node and enters them in owners.
func (c *Config) checkNodeAddrs(field, owner string, addrs []netip.Addr, owners map[netip.Addr]string) error {
	for _, a := range addrs {
		if !reachable(a) {
			return fmt.Errorf("%s: %v is not an address by which pods can reach a node; leave it out", field, a)
		}
		if other := owners[a]; other != "" {
			return fmt.Errorf("%s: %v is named twice, %s has it; every node needs addresses of its own", field, a, other)
		}
		owners[a] = owner
	}
	return nil
}

// reachable reports whether pods can send to an address: it is neither loopback, link-local nor multicast.
func reachable(a netip.Addr) bool { return a.IsGlobalUnicast() && !a.Is4In6() && a.Zone() == "" }

// nodeWithin returns an address of a node that lies within r.
func (c *Config) nodeWithin(r netip.Prefix) (netip.Addr, bool) {
	addrs := append([]netip.Addr{c.Address}, c.NodeAddresses...)
	for _, p := range c.Peers {
		addrs = append(append(addrs, p.Address), p.NodeAddresses...)
	}
	for _, a := range addrs {
		if r.Contains(a) {
			return a, true
		}
	}
	return netip.Addr{}, false
}

func (c *Config) checkUnderlay() error {
	if c.Address.IsValid() && c.Underlay != (underlay.Config{}) {
		return fmt.Errorf("underlay: address is given as well (%v), so there is nothing to find; leave one of the two out", c.Address)
	}
	if err := c.Underlay.Check(); err != nil {
		return fmt.Errorf("underlay.%w", err)
	}
	if c.VXLAN.MAC == "" { // it follows from the address, which is not known yet
		return nil
	}
	if _, err := vxlan.ParseMAC(c.VXLAN.MAC); err != nil {
		return fmt.Errorf("vxlan.mac: %w", err)
	}
	return nil
}

// leastMTU returns what every interface of the pods' families has to take.
func (c *Config) leastMTU() int {
	if c.hasIPv6() {
		return minMTU
	}
	return minMTU4
}

// hasIPv6 reports whether there are IPv6 pods.
func (c *Config) hasIPv6() bool {
	return slices.ContainsFunc(c.PodCIDRs, func(p netip.Prefix) bool { return p.Addr().Is6() })
}

func checkCIDRs(cidrs []netip.Prefix) error {
	if len(cidrs) == 0 {
		return errors.New("at least one range is needed, for example 10.244.1.0/24")
	}
	for i, p := range cidrs {
		switch {
		case !p.IsValid() || p.Addr().Is4In6() || p != p.Masked():
			return fmt.Errorf("%v is not a range like 10.244.1.0/24 or fd00:10:244:1::/64", p)
		case p.Bits() > p.Addr().BitLen()-2:
			return fmt.Errorf("%v is too small for a gateway and a pod", p)
		case i > 1 || i == 1 && p.Addr().Is4() == cidrs[0].Addr().Is4():
			return errors.New("at most one range of each family")
		}
	}
	return nil
}

func (c *Config) checkPeers() error {
	ranges := slices.Clone(c.PodCIDRs)
	for i, p := range c.Peers {
		where := fmt.Sprintf("peers[%d]", i)
		switch {
		case !p.Address.IsValid() || c.Address.IsValid() && p.Address.Is4() != c.Address.Is4():
			return fmt.Errorf("%s.address: an address of the family of this node's (%v) is needed", where, c.Address)
		case !c.Address.IsValid() && p.Address.Is6() != c.underlayV6():
			return fmt.Errorf("%s.address: %v is not of the family between the nodes; underlay.ipv6 says which it is", where, p.Address)
		}
		if p.Address == c.Address {
			return fmt.Errorf("%s.address: %v is this node itself; leave it out", where, p.Address)
		}
		if _, err := vxlan.ParseMAC(p.MAC); err != nil {
			return fmt.Errorf("%s.mac: %w", where, err)
		}
		if err := checkCIDRs(p.PodCIDRs); err != nil {
			return fmt.Errorf("%s.podCIDRs: %w", where, err)
		}
		for _, r := range p.PodCIDRs {
			for _, other := range ranges {
				if r.Overlaps(other) {
					return fmt.Errorf("%s.podCIDRs: %v overlaps %v of another node; every node needs a range of its own", where, r, other)
				}
			}
		}
		ranges = append(ranges, p.PodCIDRs...)
	}
	return nil
}

func (c *Config) checkPods() error {
	names, owners := map[string]bool{}, map[netip.Addr]string{}
	for _, cidr := range c.PodCIDRs {
		owners[Gateway(cidr)] = "the node (gateway)"
		owners[HostAddr(cidr)] = "the host (network address)"
	}
	for i, p := range c.Pods {
		where := fmt.Sprintf("pods[%d]", i)
		switch {
		case p.Name == "" || names[p.Name]:
			return fmt.Errorf("%s.name: a name that no other pod has is needed", where)
		case p.Netns == "":
			return fmt.Errorf("%s.netns: the path of the pod's network namespace is needed", where)
		case len(p.Addresses) == 0 || len(p.Addresses) > 2 || len(p.Addresses) == 2 && p.Addresses[0].Is4() == p.Addresses[1].Is4():
			return fmt.Errorf("%s.addresses: one address of each family, or of one, is needed", where)
		}
		names[p.Name] = true
		for _, a := range p.Addresses {
			if !slices.ContainsFunc(c.PodCIDRs, func(r netip.Prefix) bool { return r.Contains(a) }) {
				return fmt.Errorf("%s.addresses: %v lies outside podCIDRs %v", where, a, c.PodCIDRs)
			}
			if other := owners[a]; other != "" {
				return fmt.Errorf("%s.addresses: %v belongs to %s", where, a, other)
			}
			owners[a] = p.Name
		}
	}
	return nil
}
