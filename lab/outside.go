package lab

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/middleway-net/middleway/node"
	"github.com/middleway-net/middleway/node/parent"
	"github.com/middleway-net/middleway/tunnel/vxlan"
)

// Outside is a cluster's underlay in the machine's own network namespace, where an ordinary user has nothing but sockets: the
// process that called Enter hands them in to the daemons, and each node has an address of the machine's loopback for the tunnel.
//
//	machine's namespace   127.a.b.1:8472 ◄──── loopback ────► 127.a.b.2:8472
//	                            │                                  │            sockets
//	nodes' namespaces     192.168.254.11 (lo, mw0)          192.168.254.12 (lo, mw0)
//
// The network identifier is random: clusters that know nothing of each other do not hear each other even where addresses meet. It is
// no secret kept from other users of the machine, who may send to the port.
type Outside struct {
	sockets   string // where they are handed in
	vni       vxlan.VNI
	served    io.Closer
	loopbacks *Loopbacks
}

// outsideMTU is the pods' MTU, as on most networks: loopback would take 65,536 bytes, but a cluster that works only there is
// no example of one.
const outsideMTU = 1450

// NewOutside makes the underlay of a cluster of n nodes in the namespace of the process that called Enter. The unix socket by which
// the daemons get their sockets lies in dir.
func NewOutside(dir string, n int) (*Outside, error) {
	o := &Outside{sockets: filepath.Join(dir, "sockets"), vni: node.RandomVNI()}
	var err error
	if o.served, err = ServeSockets(o.sockets); err != nil {
		return nil, err
	}
	client, err := parent.Dial(o.sockets)
	if err == nil {
		o.loopbacks, err = ReserveLoopbacks(client, n, vxlan.DefaultPort)
	}
	if err != nil {
		return nil, errors.Join(err, o.Close())
	}
	return o, nil
}

// Addr returns the address of node n, numbered from 1, for the tunnel.
func (o *Outside) Addr(n int) netip.Addr { return o.loopbacks.Addrs[n-1] }

// Configure makes c the configuration of node n, whose peers are all others in their order: it sets the addresses for the tunnel, the
// network identifier, and the MTU if c has none.
func (o *Outside) Configure(n int, c *node.Config) {
	c.Address, c.Sockets, c.VXLAN.VNI = o.Addr(n), o.sockets, o.vni
	if c.MTU == 0 {
		c.MTU = outsideMTU
	}
	for i := range c.Peers {
		c.Peers[i].Address = o.Addr(otherThan(n, i))
	}
}

// otherThan returns the number of the node that is entry i among the peers of node n.
func otherThan(n, i int) int {
	if number := i + 1; number < n {
		return number
	}
	return i + 2
}

// Close ends the handing over of sockets and gives the addresses up. What was handed over stays open.
func (o *Outside) Close() error {
	errs := []error{o.served.Close(), os.Remove(o.sockets)}
	if o.loopbacks != nil {
		errs = append(errs, o.loopbacks.Close())
	}
	return errors.Join(errs...)
}

// joinOutside gives the nodes their underlay outside, and their own addresses inside.
func (cl *Cluster) joinOutside(c ClusterConfig) (err error) {
	if len(c.Kernel) > 0 || c.IPv6Underlay || c.External {
		return fmt.Errorf("a cluster whose sockets are outside has no kernel nodes, no external host and no IPv6 between the nodes: the machine's loopback has one IPv6 address")
	}
	if cl.outside, err = NewOutside(c.Dir, len(cl.Nodes)); err != nil {
		return err
	}
	for i, n := range cl.Nodes {
		for _, a := range nodeAddrs(i + 1) {
			if a.Is6() && !HasIPv6() {
				continue
			}
			if err := n.AddAddr("lo", netip.PrefixFrom(a, a.BitLen())); err != nil {
				return err
			}
		}
	}
	return nil
}
