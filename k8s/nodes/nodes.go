// Package nodes makes the peers of a node from the Node objects of its cluster.
//
// Nodes know each other by flannel's annotations, so that those with a VXLAN device of their kernel and those with middleway live in one
// cluster; one annotation of our own says that a node is a middleway node, with which more is possible:
//
//	Node objects ─► Compile ─► peers ─► tunnel, routes of stack and host
//	this node    ─► Announcement.Annotations ─► its Node object ─► the others' Compile
package nodes

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/middleway-net/middleway/k8s/object"
	"github.com/middleway-net/middleway/tunnel/vxlan"
)

// Self is what a node knows of itself when it looks for its peers.
type Self struct {
	Name string
	// Address is its own on the underlay.
	Address netip.Addr
	// VNI and MAC are those of its VTEP.
	VNI vxlan.VNI
	MAC vxlan.MAC
	// PodCIDRs are the ranges of its pods. Of other families nothing of a peer is of use.
	PodCIDRs []netip.Prefix
	// Addresses are its own as pods know them.
	Addresses []netip.Addr
	// ServiceCIDRs are the ranges of Services.
	ServiceCIDRs []netip.Prefix
}

// Peer is another node to which a tunnel leads.
type Peer struct {
	Name string
	// Address is its address on the underlay.
	Address netip.Addr
	// MAC is its VTEP's.
	MAC vxlan.MAC
	// PodCIDRs are the ranges of its pods, at most one of each family.
	PodCIDRs []netip.Prefix
	// Addresses are its own as pods know them; Address where the object names none.
	Addresses []netip.Addr
	// Middleway: it announced itself as a middleway node. Else its kernel has a VXLAN device.
	Middleway bool
}

// Left is a node that is no peer, or of which something is left out.
type Left struct {
	Node string
	// Why is a sentence about it.
	Why string
	// Waits: nothing is wrong, it has not come up yet.
	Waits bool
}

// Compile returns the peers among the nodes of a cluster, by name, and what is left out. A node is a peer with all that it needs, or not at
// all; of two that claim the same, the first by name has it. It does not keep nodes.
func Compile(self Self, all []*object.Node) (peers []Peer, left []Left) {
	c := compiler{self: self, owners: map[netip.Addr]string{self.Address: "this node"}}
	for _, a := range self.Addresses {
		c.owners[a] = "this node"
	}
	c.claim("this node", self.PodCIDRs)
	c.claim("the Services", self.ServiceCIDRs)
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b *object.Node) int { return strings.Compare(a.Name, b.Name) })
	for _, n := range all {
		if n.Name == self.Name {
			continue
		}
		p, err := c.peer(n)
		if err != nil {
			_, waits := err.(waiting)
			c.left = append(c.left, Left{n.Name, err.Error(), waits})
			continue
		}
		peers = append(peers, p)
	}
	return peers, c.left
}

// compiler remembers who has what.
type compiler struct {
	self   Self
	owners map[netip.Addr]string // of addresses of nodes
	ranges []claim
	left   []Left
}

// claim is a range and who has it.
type claim struct {
	netip.Prefix
	owner string
}

// waiting is an error that ends by itself.
type waiting string

func (w waiting) Error() string { return string(w) }

func (c *compiler) claim(owner string, ranges []netip.Prefix) {
	for _, r := range ranges {
		c.ranges = append(c.ranges, claim{r, owner})
	}
}

// peer makes a peer of a node, and notes what it has.
func (c *compiler) peer(n *object.Node) (Peer, error) {
	announced, err := parse(n.Annotations, c.self.Address.Is6())
	if err != nil {
		return Peer{}, err
	}
	p := Peer{Name: n.Name, Address: announced.address, MAC: announced.mac, Middleway: announced.middleway}
	if err := c.checkVTEP(announced); err != nil {
		return Peer{}, err
	}
	if p.PodCIDRs, err = c.podCIDRs(n, p.Middleway); err != nil {
		return Peer{}, err
	}
	c.owners[p.Address] = "node " + n.Name
	c.claim("node "+n.Name, p.PodCIDRs)
	p.Addresses = c.addresses(n, p.Address)
	return p, nil
}

// checkVTEP checks where the tunnel leads.
func (c *compiler) checkVTEP(a announced) error {
	if a.vni != c.self.VNI {
		return fmt.Errorf("it announces VNI %d, this node has %d; give all nodes the same vxlan.vni", a.vni, c.self.VNI)
	}
	if a.mac == c.self.MAC {
		return fmt.Errorf("its VTEP has the address of this node's, %v; every node needs one of its own: remove the annotation %s from one of them and restart its daemon", a.mac, keyData)
	}
	if owner := c.owners[a.address]; owner != "" {
		return fmt.Errorf("%v, its address, is that of %s; delete the Node object that is out of date", a.address, owner)
	}
	if r, ok := c.within(a.address); ok {
		return fmt.Errorf("%v, its address, lies within %v of %s", a.address, r.Prefix, r.owner)
	}
	return nil
}

// podCIDRs returns the ranges of a node's pods that this node can reach: of the families that its own pods have, and of a kernel's VXLAN
// device of that which the underlay has, since flannel carries the other one in a tunnel of that family.
func (c *compiler) podCIDRs(n *object.Node, middleway bool) (ranges []netip.Prefix, err error) {
	if len(n.PodCIDRs) == 0 {
		return nil, waiting("it has no range for its pods yet (spec.podCIDRs)")
	}
	for _, r := range n.PodCIDRs {
		if !r.IsValid() || r != r.Masked() || r.Bits() == 0 || r.Addr().Is4In6() {
			return nil, fmt.Errorf("%v in spec.podCIDRs is not a range like 10.244.1.0/24", r)
		}
		if !c.hasFamily(r.Addr()) || !middleway && r.Addr().Is4() != c.self.Address.Is4() {
			continue
		}
		for _, other := range c.ranges {
			if other.Overlaps(r) {
				return nil, fmt.Errorf("%v of its pods overlaps %v of %s; every node needs a range of its own", r, other.Prefix, other.owner)
			}
		}
		if a, ok := c.nodeWithin(r); ok {
			return nil, fmt.Errorf("%v of its pods contains %v, an address of %s", r, a, c.owners[a])
		}
		ranges = append(ranges, r)
	}
	if len(ranges) == 0 {
		return nil, fmt.Errorf("none of the ranges of its pods, %v, is of a family that this node reaches", n.PodCIDRs)
	}
	return ranges, nil
}

// addresses returns a node's own addresses, and claims them. Those that cannot be its are left out.
func (c *compiler) addresses(n *object.Node, underlay netip.Addr) (addrs []netip.Addr) {
	for _, a := range append([]netip.Addr{underlay}, n.Addresses...) {
		owner, taken := c.owners[a]
		switch r, within := c.within(a); {
		case !a.IsGlobalUnicast() || a.Is4In6() || a.Zone() != "" || !c.hasFamily(a) || slices.Contains(addrs, a):
			continue
		case taken && owner != "node "+n.Name:
			c.left = append(c.left, Left{Node: n.Name, Why: fmt.Sprintf("%v, one of its addresses, is that of %s, and leads there", a, owner)})
			continue
		case within:
			c.left = append(c.left, Left{Node: n.Name, Why: fmt.Sprintf("%v, one of its addresses, lies within %v of %s, and leads there", a, r.Prefix, r.owner)})
			continue
		}
		c.owners[a] = "node " + n.Name
		addrs = append(addrs, a)
	}
	return addrs
}

// nodeWithin returns the least address of a node within r.
func (c *compiler) nodeWithin(r netip.Prefix) (least netip.Addr, ok bool) {
	for a := range c.owners {
		if r.Contains(a) && (!ok || a.Less(least)) {
			least, ok = a, true
		}
	}
	return least, ok
}

func (c *compiler) hasFamily(a netip.Addr) bool {
	return slices.ContainsFunc(c.self.PodCIDRs, func(r netip.Prefix) bool { return r.Addr().Is4() == a.Is4() })
}

func (c *compiler) within(a netip.Addr) (claim, bool) {
	i := slices.IndexFunc(c.ranges, func(r claim) bool { return r.Contains(a) })
	if i < 0 {
		return claim{}, false
	}
	return c.ranges[i], true
}
