package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/middleway-net/middleway/k8s"
	"github.com/middleway-net/middleway/k8s/informers"
	"github.com/middleway-net/middleway/k8s/nodes"
	"github.com/middleway-net/middleway/k8s/object"
	"github.com/middleway-net/middleway/node/parent"
	"github.com/middleway-net/middleway/tunnel/vxlan"
)

// cluster is a node's part in a Kubernetes cluster. The zero cluster is none.
type cluster struct {
	source  k8s.Source        // nil: there is no cluster
	api     *informers.Client // nil: the source is no API server
	outside *parent.Client    // makes sockets to the API server; nil: they are this process's own
	self    *object.Node      // this node's, as it was at the start
	ranges  []netip.Prefix    // of its pods, where they were taken from self

	pipeline *k8s.Pipeline
	inForce  atomic.Pointer[time.Time] // since when something is
	unsaid   chan map[string]string    // holds this node's annotations while the API server has to hear of it
	outdated chan error                // holds why this node has to start anew

	mistakes mistakes

	mu   sync.Mutex        // guards left
	left map[string]string // by node: what was logged of it last
}

// keptName is the name, in the run directory, of the file with the last known objects.
const keptName = "cluster.db"

// openPipeline makes what turns the cluster's objects into tables.
func (n *Node) openPipeline() error {
	if n.cluster.source == nil {
		return nil
	}
	c := k8s.Config{
		Source: n.cluster.source, Kept: filepath.Join(n.config.RunDir, keptName), Node: n.config.Name, Ranges: n.config.Services.CIDRs,
		ClusterIPsOnly: !n.config.withNodePorts(), SetNodes: n.setNodes, SetServices: n.setServices, RecallServices: n.recallServices, SetHealthChecks: n.setHealthChecks, Log: n.log,
	}
	if n.dns.server != nil {
		c.Zone, c.SetZone = n.dns.zone, n.dns.server.SetZone
	}
	n.cluster.pipeline = k8s.New(c)
	return nil
}

// setNodes makes the tunnel and the routes those to the cluster's nodes. One goroutine calls it.
func (n *Node) setNodes(all []*object.Node) {
	if now := time.Now(); n.cluster.inForce.Load() == nil {
		n.cluster.inForce.Store(&now)
	}
	n.balancers.stays.Store(slices.ContainsFunc(all, func(o *object.Node) bool { return o.Name == n.config.Name && !o.Leaving }))
	n.ownNode(all)
	defer n.routesKnown()
	if len(n.config.Peers) > 0 {
		return // they were given
	}
	found, left := nodes.Compile(n.tunnelEnd(), all)
	n.tellLeft(left)
	peers := make([]Peer, len(found))
	for i, p := range found {
		peers[i] = Peer{Name: p.Name, Address: p.Address, PodCIDRs: p.PodCIDRs, NodeAddresses: p.Addresses, MAC: p.MAC.String(), Kernel: !p.Middleway}
	}
	if reflect.DeepEqual(peers, n.peers()) {
		return // new routes would have every flow judged again
	}
	n.tellPeers(peers)
	if err := n.setPeers(peers); err != nil {
		n.log.Error("the peers stay as they were", "err", err)
	}
}

// routesKnown lets pods reach the outside: what is another node's pod's has a route from now on.
func (n *Node) routesKnown() {
	if err := n.stack.RoutesKnown(); err != nil {
		n.log.Error("nothing leaves the cluster", "err", err)
	}
}

// tunnelEnd is what the other nodes are compared with.
func (n *Node) tunnelEnd() nodes.Self {
	mac, _ := vxlan.ParseMAC(n.config.VXLAN.MAC) // it was checked
	return nodes.Self{
		Name: n.config.Name, Address: n.config.public(), VNI: cmp.Or(n.config.VXLAN.VNI, vxlan.DefaultVNI), MAC: mac,
		PodCIDRs: n.config.PodCIDRs, Addresses: n.config.NodeAddresses, ServiceCIDRs: n.config.Services.CIDRs,
	}
}

// tellLeft logs what is left out of the nodes, once for each state of each.
func (n *Node) tellLeft(left []nodes.Left) {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	now := map[string]string{}
	of := map[string][]nodes.Left{}
	for _, l := range left {
		of[l.Node] = append(of[l.Node], l)
	}
	for _, node := range slices.Sorted(maps.Keys(of)) {
		whole := of[node][0]
		for _, more := range of[node][1:] {
			whole.Why += "; " + more.Why
			whole.Waits = whole.Waits && more.Waits
		}
		now[node] = whole.Why
		if n.cluster.left[node] == whole.Why {
			continue
		}
		if whole.Waits {
			n.troubles.end("peer "+node, "nothing is wrong with node "+node+" any more")
			n.log.Info("a node is no peer yet", "peer", node, "why", whole.Why)
			continue
		}
		n.troubles.begin("peer "+node, reasonPeer, "node "+node+", or an address of it, is left out: "+whole.Why)
	}
	for peer := range n.cluster.left {
		if now[peer] == "" {
			n.troubles.end("peer "+peer, "node "+peer+" is not left out any more")
		}
	}
	n.cluster.left = now
}

// tellPeers logs which peers come and go.
func (n *Node) tellPeers(peers []Peer) {
	was := map[string]bool{}
	for _, p := range n.peers() {
		was[p.Name] = true
	}
	for _, p := range peers {
		if !was[p.Name] {
			n.log.Info("a node has become a peer", "peer", p.Name, "addr", p.Address, "podCIDRs", p.PodCIDRs, "kernel", p.Kernel)
		}
		delete(was, p.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(was)) {
		n.log.Info("a node is no peer any more", "peer", name)
	}
}

// ownNode looks whether this node's object still is what the node lives by, and whether it says what the others need.
func (n *Node) ownNode(all []*object.Node) {
	at := slices.IndexFunc(all, func(o *object.Node) bool { return o.Name == n.config.Name })
	if at < 0 {
		return // kubelet has not made it, or somebody has deleted it: pods live on
	}
	self := all[at]
	if n.cluster.ranges != nil && len(self.PodCIDRs) > 0 && !slices.Equal(self.PodCIDRs, n.cluster.ranges) {
		n.outdate(self)
		return
	}
	n.checkName(self)
	for key, value := range n.announcement(self.Annotations) {
		if self.Annotations[key] != value {
			n.cluster.say(self.Annotations)
			return
		}
	}
}

// outdate ends the daemon, so that its next start takes what the node's object says now.
func (n *Node) outdate(self *object.Node) {
	err := fmt.Errorf("spec.podCIDRs of node %s is %v now, and was %v when this daemon started; the next start takes the new ranges",
		self.Name, self.PodCIDRs, n.cluster.ranges)
	select {
	case n.cluster.outdated <- errors.Join(err, n.writeSelf(self)):
	default:
	}
}

// say has the API server told of this node, whose object has the annotations has.
func (c *cluster) say(has map[string]string) {
	if c.api == nil {
		return
	}
	select {
	case <-c.unsaid: // these are newer
	default:
	}
	select {
	case c.unsaid <- has:
	default: // so are those
	}
}

// announcement returns the annotations by which peers know this node.
func (n *Node) announcement(has map[string]string) map[string]string {
	self := n.tunnelEnd()
	return nodes.Announcement{Address: self.Address, VNI: self.VNI, MAC: self.MAC}.Annotations(has)
}

// announce tells the API server of this node at the start, and whenever its object does not say it, until ctx ends.
func (n *Node) announce(ctx context.Context) error {
	n.cluster.say(n.cluster.self.Annotations)
	var p pace
	for {
		select {
		case <-ctx.Done():
			return nil
		case has := <-n.cluster.unsaid:
			n.announceOnce(ctx, &p, n.announcement(has))
		}
	}
}

// announceOnce tries until the API server has taken the annotations, or ctx ends.
func (n *Node) announceOnce(ctx context.Context, p *pace, annotations map[string]string) {
	begin := time.Now()
	for told := false; ; told = true {
		select {
		case <-ctx.Done():
			return
		case <-time.After(p.left(time.Now())):
		}
		p.tried(time.Now())
		err := n.cluster.api.Announce(ctx, annotations)
		if err == nil {
			n.troubles.end("announce", "the API server takes this node's annotations")
			n.log.Info("the API server has been told of this node", "address", n.config.Address, "mac", n.config.VXLAN.MAC)
			return
		}
		if reason, message, is := refused(err); is {
			if time.Since(begin) >= informers.RefusalLasts {
				n.troubles.begin("announce", reason, message)
			}
			continue
		}
		if !told && ctx.Err() == nil {
			n.log.Warn("the API server could not be told of this node; it is tried again", "err", err)
		}
	}
}

// watchCluster ends with an error when this node has to start anew.
func (n *Node) watchCluster(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-n.cluster.outdated:
		return err
	}
}

// runCluster follows the cluster until ctx ends.
func (n *Node) runCluster(ctx context.Context, g *errgroup.Group) {
	if n.cluster.source == nil {
		return
	}
	g.Go(func() error { return n.cluster.pipeline.Run(ctx) })
	g.Go(func() error { return n.watchCluster(ctx) })
	if n.cluster.api != nil {
		g.Go(func() error { return n.announce(ctx) })
	}
}
