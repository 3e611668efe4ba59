package object

import (
	"fmt"
	"math"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// FromEndpointSlice strips an EndpointSlice. The error is that of From. A slice of names (addressType FQDN) has no endpoints.
func FromEndpointSlice(in *discoveryv1.EndpointSlice) (*EndpointSlice, error) {
	p := problems{about: "endpointslice " + in.Namespace + "/" + in.Name}
	s := &EndpointSlice{
		Key:        Key{shared(in.Namespace), in.Name},
		Service:    in.Labels[discoveryv1.LabelServiceName],
		NotProxied: notProxied(in.Labels),
	}
	for i := range in.Ports {
		p.endpointPort(s, fmt.Sprintf("ports[%d]", i), &in.Ports[i])
	}
	switch in.AddressType {
	case discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6:
		p.endpoints(s, in)
	case discoveryv1.AddressTypeFQDN: // deprecated; no proxy and no DNS server ever read it
	default:
		p.add("addressType", "%q is none of IPv4, IPv6 and FQDN; all endpoints are left out", in.AddressType)
	}
	return s, p.err()
}

// endpointPort takes over a port. One without name or number means all ports, and is not for Services (kube-proxy skips it).
func (p *problems) endpointPort(s *EndpointSlice, field string, in *discoveryv1.EndpointPort) {
	if in.Name == nil || in.Port == nil || *in.Port == 0 {
		return
	}
	var name corev1.Protocol
	if in.Protocol != nil {
		name = *in.Protocol
	}
	proto, known := protocol(name)
	switch {
	case !known:
		p.add(field+".protocol", "%q is none of TCP, UDP and SCTP; the port is left out", name)
	case *in.Port < 1 || *in.Port > math.MaxUint16:
		p.add(field+".port", "%d is not within 1 and 65535; the port is left out", *in.Port)
	default:
		s.Ports = append(s.Ports, EndpointPort{shared(*in.Name), proto, uint16(*in.Port)})
	}
}

func (p *problems) endpoints(s *EndpointSlice, in *discoveryv1.EndpointSlice) {
	if len(in.Endpoints) > 0 {
		s.Endpoints = make([]Endpoint, 0, len(in.Endpoints))
	}
	for i := range in.Endpoints {
		e := &in.Endpoints[i]
		if addr, ok := p.endpointAddr(fmt.Sprintf("endpoints[%d].addresses", i), e.Addresses, in.AddressType); ok {
			s.Endpoints = append(s.Endpoints, endpoint(addr, e))
		}
	}
	if len(s.Endpoints) == 0 {
		s.Endpoints = nil
	}
}

// endpointAddr returns the first address, the only one that counts: they are fungible (discovery/v1, Endpoint.addresses).
func (p *problems) endpointAddr(field string, all []string, family discoveryv1.AddressType) (netip.Addr, bool) {
	if len(all) == 0 {
		p.add(field, "there is none; the endpoint is left out")
		return netip.Addr{}, false
	}
	ip, ok := p.parseAddr(field+"[0]", all[0])
	if ok && ip.Is4() != (family == discoveryv1.AddressTypeIPv4) {
		p.add(field+"[0]", "%v is no %s address, as addressType promises, and is left out", ip, family)
		return netip.Addr{}, false
	}
	return ip, ok
}

func endpoint(addr netip.Addr, in *discoveryv1.Endpoint) Endpoint {
	e := Endpoint{
		Addr:        addr,
		Hostname:    valueOr(in.Hostname, ""),
		Node:        shared(valueOr(in.NodeName, "")),
		Ready:       valueOr(in.Conditions.Ready, true),
		Serving:     valueOr(in.Conditions.Serving, true),
		Terminating: valueOr(in.Conditions.Terminating, false),
	}
	if in.Hints != nil && len(in.Hints.ForZones)+len(in.Hints.ForNodes) > 0 {
		e.Hints = &Hints{}
		for _, z := range in.Hints.ForZones {
			e.Hints.Zones = append(e.Hints.Zones, shared(z.Name))
		}
		for _, n := range in.Hints.ForNodes {
			e.Hints.Nodes = append(e.Hints.Nodes, shared(n.Name))
		}
	}
	return e
}

func valueOr[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}
