package playground

import (
	"net/netip"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
)

// outsideName is the unix socket in the state directory at which daemons get sockets of the machine's own network namespace. Where
// these join the nodes, the underlay has one of its own.
const outsideName = "outside"

// openOutside lets daemons have the machine's sockets: pods reach what the machine reaches, and its programs reach node ports and host
// ports on its loopback.
func (c *Cluster) openOutside() (err error) {
	if c.Outside() {
		return nil
	}
	c.outside, err = lab.ServeSockets(c.dir.join(outsideName))
	return err
}

// toOutside makes a node's daemon take its sockets outside from the machine. There 127.0.0.1 and ::1 are those of the first node: a port of
// an address is one socket's. Every node has its own address, by which it is joined to the others, if that is on the machine.
func (c *Cluster) toOutside(number int, n *node.Config) {
	if !c.Outside() {
		n.OutsideSockets = c.dir.join(outsideName)
	}
	n.NodePorts.OutsideAddresses = []node.FrontRange{{}}
	if number == 1 {
		for _, a := range []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()} {
			n.NodePorts.OutsideAddresses = append(n.NodePorts.OutsideAddresses, node.FrontRange{Prefix: netip.PrefixFrom(a, a.BitLen())})
		}
	}
	n.ClusterCIDRs = lab.PodCIDRs()
}
