package services

import (
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
// where that is nothing: there is no Service, or none with an address that a proxy serves.
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
		}
	}
	return out
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
	port.Internal, port.External = cluster, cluster
	if s.InternalLocal {
		port.Internal = local
	}
	if s.ExternalLocal {
		port.External = local
	}
	return port
}
