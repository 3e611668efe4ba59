package services

import (
	"net/netip"

	"github.com/middleway-net/middleway/k8s/object"
	"github.com/middleway-net/middleway/stack/dns"
)

// Records returns what a Service and its EndpointSlices put into the cluster's DNS zone, by the Kubernetes DNS specification, version 1.1.0.
// Of the endpoints those count that are ready: the controller says so of all of a Service that publishes addresses that are not, and a
// terminating pod leaves at once. Which proxy serves the Service makes no difference.
func Records(s *object.Service, slices []*object.EndpointSlice) *dns.Service {
	r := &dns.Service{Namespace: s.Namespace, Name: s.Name, ExternalName: s.ExternalName}
	if s.ExternalName != "" {
		return r
	}
	r.Headless = s.Headless
	for _, a := range s.ClusterIPs {
		r.ClusterIPs = append(r.ClusterIPs, a.Unmap())
	}
	for _, p := range s.Ports {
		r.Ports = append(r.Ports, dns.Port{Name: p.Name, Proto: protoName(p.Protocol), Number: p.Port})
	}
	for _, slice := range slices {
		if e := readyEndpoints(slice); len(e.Each) > 0 {
			r.Endpoints = append(r.Endpoints, e)
		}
	}
	return r
}

// readyEndpoints returns the ready endpoints of a slice and their ports.
func readyEndpoints(slice *object.EndpointSlice) (e dns.Endpoints) {
	for _, p := range slice.Ports {
		e.Ports = append(e.Ports, dns.Port{Name: p.Name, Proto: protoName(p.Protocol), Number: p.Port})
	}
	for _, x := range slice.Endpoints {
		if x.Ready && x.Addr != (netip.Addr{}) {
			e.Each = append(e.Each, dns.Endpoint{Addr: x.Addr.Unmap(), Hostname: x.Hostname})
		}
	}
	return e
}

// protoName returns the protocol as it stands in names of SRV records (RFC 6335).
func protoName(p object.Protocol) string {
	switch p {
	case object.UDP:
		return "udp"
	case object.SCTP:
		return "sctp"
	default:
		return "tcp"
	}
}
