package services

import (
	"net/netip"

	"github.com/middleway-net/middleway/k8s/object"
)

// HealthCheck is what a load balancer outside of the cluster is told that asks a node about a Service, to learn whether to send it
// clients.
type HealthCheck struct {
	// At is where it asks: 0.0.0.0 or ::, for all of the node's addresses of a family at which NodePorts are, and healthCheckNodePort.
	At      netip.AddrPort
	Service object.Key
	// Local is how many ready endpoints of that family are on the node. Some that serve while they end are none: they have to get
	// rid of clients.
	Local int
}

// HealthChecks returns a Service's, one for each family of its ClusterIPs; none where it has no healthCheckNodePort.
func HealthChecks(s *object.Service, slices []*object.EndpointSlice, on Node) (all []HealthCheck) {
	if s == nil || s.NotProxied || s.HealthPort == 0 {
		return nil
	}
	for _, ip := range s.ClusterIPs {
		all = append(all, HealthCheck{netip.AddrPortFrom(everyAddr(ip), s.HealthPort), s.Key, countLocal(s, slices, ip, on)})
	}
	return all
}

// countLocal counts the pods, not the ports at which they are endpoints.
func countLocal(s *object.Service, slices []*object.EndpointSlice, family netip.Addr, on Node) int {
	local := map[netip.Addr]bool{}
	for i := range s.Ports {
		for _, e := range gather(slices, &s.Ports[i], family, on) {
			if e.Ready && e.at.Local {
				local[e.Addr] = true
			}
		}
	}
	return len(local)
}

// everyAddr returns the address that stands for all of a node's of a family.
func everyAddr(family netip.Addr) netip.Addr {
	if family.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}
