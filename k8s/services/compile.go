package services

import (
	"net/netip"

	"github.com/middleway-net/middleway/k8s/object"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/service"
)

// Node is the node for which is compiled.
type Node struct {
	Name string
	Zone string // its label topology.kubernetes.io/zone; "" if it has none
}

// Compile returns what a Service puts into the tables of a node, from the slices that belong to it. It is nil
// where that is nothing: there is no Service, or none with an address that a proxy serves. Its families are those of its
// ClusterIPs: an address of spec.externalIPs of another one is nobody's.
func Compile(s *object.Service, slices []*object.EndpointSlice, on Node) *service.Service {
	if s == nil || s.NotProxied || len(s.ClusterIPs) == 0 {
		return nil
	}
	out := &service.Service{Frontends: make(map[service.Frontend]*service.Port, len(s.Ports)*len(s.ClusterIPs))}
	for i := range s.Ports {
		p := &s.Ports[i]
		for _, ip := range s.ClusterIPs {
			f := service.Frontend{Addr: ip, Proto: packet.Proto(p.Protocol), Port: p.Port}
			out.Frontends[f] = compilePort(s, p, gather(slices, p, ip, on), on)
			for _, e := range external(s, p, ip) {
				if out.External == nil {
					out.External = map[service.Frontend]*service.Port{}
				}
				out.External[e] = out.Frontends[f]
			}
		}
	}
	return out
}

// external returns where clients from outside reach a Service's port, in the family of an address: at its node port of every
// address of the node that serves them, and at its externalIPs.
func external(s *object.Service, p *object.ServicePort, family netip.Addr) (all []service.Frontend) {
	proto := packet.Proto(p.Protocol)
	if p.NodePort != 0 {
		all = append(all, service.Frontend{Addr: everyAddr(family), Proto: proto, Port: p.NodePort})
	}
	for _, ip := range s.ExternalIPs {
		if ip.Is4() == family.Is4() {
			all = append(all, service.Frontend{Addr: ip, Proto: proto, Port: p.Port})
		}
	}
	return all
}

func compilePort(s *object.Service, p *object.ServicePort, all []endpoint, on Node) *service.Port {
	scheduler, _ := service.ParseScheduler(s.Scheduler) // another word is random; package object tells of it
	port := &service.Port{
		Name:      s.Key.String(),
		ID:        service.PortID(s.Namespace, s.Name, p.Name, packet.Proto(p.Protocol)),
		Affinity:  s.Affinity,
		Scheduler: scheduler,
		Serving:   pick(all, nil, func(e *endpoint) bool { return e.Serving }),
	}
	if p.Name != "" {
		port.Name += ":" + p.Name
	}
	cluster := forCluster(all, port.Serving, on)
	local := cluster
	if s.InternalLocal || s.ExternalLocal {
		local = forLocal(all, port.Serving, len(cluster.Backends) > 0)
	}
	port.Internal, port.External, port.Inside = cluster, cluster, cluster
	if s.InternalLocal {
		port.Internal = local
	}
	if s.ExternalLocal {
		port.External = local
		port.External.KeepClient, port.Inside.KeepClient = true, true
	}
	return port
}
