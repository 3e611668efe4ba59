package node

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/middleway-net/middleway/k8s/object"
)

// mistakes looks for what a cluster's objects say about its configuration, beside what they are for. The goroutine that brings objects into
// force alone uses it.
type mistakes struct {
	services    time.Time // when all Services were looked at last
	written     bool      // this node's annotations have been there since somebody else's were
	overwritten time.Time // when somebody else's came into their place last
}

// servicesInterval is how often all Services are looked at, at most: there may be many thousands.
const servicesInterval = time.Minute

// checkServiceRanges looks whether Services have addresses outside of the configured ranges: the host would not reach them.
func (n *Node) checkServiceRanges() {
	ranges := n.config.Services.CIDRs
	if len(ranges) == 0 || n.config.Services.BesideKubeProxy || time.Since(n.cluster.mistakes.services) < servicesInterval {
		return
	}
	n.cluster.mistakes.services = time.Now()
	store := n.cluster.pipeline.Store()
	for _, key := range store.Names(object.Services) {
		s, _ := store.Service(key)
		if s == nil || s.NotProxied {
			continue
		}
		for _, ip := range s.ClusterIPs {
			if n.config.hasFamily(ip) && !slices.ContainsFunc(ranges, func(r netip.Prefix) bool { return r.Contains(ip) }) {
				n.troubles.begin("services", reasonServices, fmt.Sprintf(
					"Service %v has the address %v, which lies outside of services.cidrs %v, so that the host does not reach it; set services.cidrs to the API server's --service-cluster-ip-range",
					key, ip, ranges))
				return
			}
		}
	}
	n.troubles.end("services", "all Services have addresses in services.cidrs")
}

// hasFamily reports whether the node's pods have addresses of a's family.
func (c *Config) hasFamily(a netip.Addr) bool {
	return slices.ContainsFunc(c.PodCIDRs, func(r netip.Prefix) bool { return r.Addr().Is4() == a.Is4() })
}

// sameNamePatience is how soon after each other two others' annotations in the place of this node's are no accident.
const sameNamePatience = 2 * time.Minute

// checkName looks whether somebody else writes this node's annotations again and again: another daemon with the same name. What stands
// there before this daemon has written its own is of a former life.
func (n *Node) checkName(self *object.Node) {
	m := &n.cluster.mistakes
	for key, value := range n.announcement(self.Annotations) {
		other, there := self.Annotations[key]
		if other == value {
			continue
		}
		if m.written && there {
			m.written = false
			if time.Since(m.overwritten) < sameNamePatience {
				n.troubles.begin("name", reasonSameName, fmt.Sprintf(
					"another daemon writes annotations of node %s (%s: %s, where this one's is %s); give each node a name of its own (--name), that of its kubelet",
					n.config.Name, key, other, value))
			}
			m.overwritten = time.Now()
		}
		return
	}
	m.written = true
	if time.Since(m.overwritten) > sameNamePatience {
		n.troubles.end("name", "no other daemon writes annotations of this node")
	}
}
