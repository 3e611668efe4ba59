// Package hostport makes of the host ports in this node's leases what the packets' way knows: frontends that lead to the pods.
// To it a pod with host ports is a Service with one backend, which no object of Kubernetes describes.
//
//	ADD of the CNI plugin ─► lease ─► Services ─► service.Table (External), and a listener for each frontend
//
// It is a pure function, so that a restarted daemon, which has the leases, has the host ports too.
package hostport

import (
	"net/netip"
	"slices"
	"strconv"

	"github.com/middleway-net/middleway/cni/ipam"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/service"
)

// prefix begins the names of the Services. Those of Kubernetes have no second slash in theirs.
const prefix = "hostport/"

// why is how the backend was found, for traces.
const why = "the pod's hostPort"

var protocols = map[ipam.Protocol]packet.Proto{ipam.TCP: packet.TCP, ipam.UDP: packet.UDP}

// Services returns what attached leases put into a service.Table, by the names under which they are there:
// "hostport/NAMESPACE/POD". Frontends are External alone. One without an address of its own has 0.0.0.0 or ::, which stands for
// every address of the node at which the outside reaches it. Of two sandboxes of one pod the later one has their frontends.
func Services(leases []ipam.Lease) map[string]*service.Service {
	all := map[string]*service.Service{}
	for _, l := range slices.SortedStableFunc(slices.Values(leases), func(a, b ipam.Lease) int { return a.Since.Compare(b.Since) }) {
		if l.State != ipam.Attached || len(l.PortMappings) == 0 {
			continue
		}
		name := prefix + l.Name()
		s := all[name]
		if s == nil { // another sandbox or interface of the pod may have made it
			s = &service.Service{External: map[service.Frontend]*service.Port{}}
			all[name] = s
		}
		for _, m := range l.PortMappings {
			for _, addr := range l.Addrs {
				if at, ok := frontend(m, addr); ok {
					s.External[at] = port(name, m, at, addr)
				}
			}
		}
	}
	return all
}

// frontend returns where clients of addr's family reach a mapping, false where they do not.
func frontend(m ipam.PortMapping, addr netip.Addr) (service.Frontend, bool) {
	at := service.Frontend{Addr: m.HostIP, Proto: protocols[m.Protocol], Port: m.HostPort}
	switch {
	case m.HostIP.IsValid():
	case addr.Is4():
		at.Addr = netip.IPv4Unspecified()
	default:
		at.Addr = netip.IPv6Unspecified()
	}
	return at, at.Addr.Is4() == addr.Is4()
}

// port returns the port of the Service of the given name behind a frontend, which leads to addr.
func port(name string, m ipam.PortMapping, at service.Frontend, addr netip.Addr) *service.Port {
	backends := []service.Backend{{Addr: packet.KeyOf(addr), Port: m.ContainerPort, Local: true}}
	choice := service.Choice{Backends: backends, Why: why}
	return &service.Port{
		Name: name + ":" + strconv.Itoa(int(m.HostPort)),
		// A Service of Kubernetes always has a namespace, so that this is none of theirs.
		ID:       service.PortID("", name, at.Addr.String()+" "+strconv.Itoa(int(m.HostPort)), at.Proto),
		External: choice, Inside: choice, Serving: backends,
	}
}
