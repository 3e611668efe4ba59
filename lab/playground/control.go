package playground

import (
	"net/netip"

	"github.com/middleway-net/middleway/k8s/folder"
	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/lab/control"
	"github.com/middleway-net/middleway/lab/manifest"
	"github.com/middleway-net/middleway/node"
)

// controlConfig describes the cluster to its control plane.
func (c *Config) controlConfig() control.Config {
	cc := control.Config{ServiceCIDRs: withoutIPv6(lab.ServiceCIDRs()), DNS: lab.ClusterDNS()}
	for i := range c.Nodes {
		n := control.Node{Name: nodeName(i + 1), PodCIDRs: withoutIPv6([]netip.Prefix{lab.PodCIDR4(i + 1), lab.PodCIDR6(i + 1)})}
		for _, a := range withoutIPv6([]netip.Prefix{lab.NodeAddr4(i + 1), lab.NodeAddr6(i + 1)}) {
			n.Addresses = append(n.Addresses, a.Addr())
		}
		if len(c.Zones) > 0 {
			n.Zone = c.Zones[i%len(c.Zones)]
		}
		cc.Nodes = append(cc.Nodes, n)
	}
	if !lab.HasIPv6() {
		cc.DNS = cc.DNS[:1]
	}
	return cc
}

// withoutIPv6 leaves out what is IPv6 where the kernel has none.
func withoutIPv6(all []netip.Prefix) (kept []netip.Prefix) {
	for _, p := range all {
		if p.Addr().Is4() || lab.HasIPv6() {
			kept = append(kept, p)
		}
	}
	return kept
}

// startControl makes the control plane, with the objects of the manifests, and lets it write them for the daemons.
func (c *Cluster) startControl() error {
	w, err := folder.NewWriter(c.dir.join(stateDir))
	if err != nil {
		return err
	}
	cc := c.config.controlConfig()
	cc.Sink, cc.Changed, cc.Event, cc.Fits = w, c.reconciler.wake, c.tellEvent, c.config.fits
	plane := control.New(cc)
	c.mu.Lock()
	c.control = plane
	c.mu.Unlock()
	if err := c.takeUp(c.config.Pods.Objects); err != nil {
		return err
	}
	c.tasks.Go(func() { plane.Run(c.ctx) })
	return nil
}

// tellEvent tells what happened, but for what comes with the end.
func (c *Cluster) tellEvent(who, what string) {
	if c.present() != Stopping {
		c.text.event(who, what)
	}
}

// fits refuses a pod that no node can run.
func (c *Config) fits(p *manifest.Pod) error {
	_, err := schedule([]*manifest.Pod{p}, make([]load, c.Nodes))
	return err
}

// takeUp makes objects part of the cluster at its start: those of followed files stay theirs.
func (c *Cluster) takeUp(objects []manifest.Object) error {
	followed, others := c.split(objects)
	if err := c.control.Adopt(others); err != nil {
		return err
	}
	for _, err := range c.control.Follow(followed) {
		return err
	}
	return nil
}

// split parts objects into those of followed files, and those of standard input and the like, which are read once.
func (c *Cluster) split(objects []manifest.Object) (followed, others []manifest.Object) {
	for _, o := range objects {
		if c.follower != nil && !c.follower.Once(o) {
			followed = append(followed, o)
		} else {
			others = append(others, o)
		}
	}
	return followed, others
}

// serve makes a node's daemon take the cluster's Services from the control plane.
func (c *Cluster) serve(number int, n *node.Config) {
	n.Kubernetes.Folder = c.dir.join(stateDir)
	n.Services.CIDRs = lab.ServiceCIDRs()
	n.DNS.ResolvConf = "none" // its servers are out of reach
	c.toOutside(number, n)
	if c.config.Change != nil {
		c.config.Change(number, n)
	}
}
