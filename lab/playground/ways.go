package playground

import (
	"io"
	"net/netip"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
)

// outsideName is the unix socket, in the state directory, by which the nodes get sockets of the machine's own network.
const outsideName = "outside"

// machineFronts is where NodePorts are on the machine: on its loopback, as if it were a node.
var machineFronts = []node.FrontRange{
	{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 32)},
	{Prefix: netip.PrefixFrom(netip.IPv6Loopback(), 128)},
}

// serveOutside makes the process outside of the cluster's namespaces hand in the sockets by which pods reach what the machine reaches,
// and the machine's programs NodePorts: nothing else leads out of the nodes' namespaces.
func (c *Cluster) serveOutside() (err error) {
	c.outside, err = lab.ServeSockets(c.dir.join(outsideName))
	return err
}

func closeIf(c io.Closer) error {
	if c == nil {
		return nil
	}
	return c.Close()
}

// leadOutside configures a node's ways in and out. The first node alone has the machine's loopback, since a port there is one program's.
func (c *Cluster) leadOutside(number int, n *node.Config) {
	n.OutsideSockets = c.dir.join(outsideName)
	n.NodePorts.OutsideAddresses = []node.FrontRange{{}} // the node's own, which the machine has if it joins the nodes
	if number == 1 {
		n.NodePorts.OutsideAddresses = append(n.NodePorts.OutsideAddresses, machineFronts...)
	}
}
