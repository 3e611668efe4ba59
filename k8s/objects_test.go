package k8s

import (
	"net/netip"

	"github.com/middleway-net/middleway/k8s/object"
)

func key(name string) object.Key { return object.Key{Namespace: "default", Name: name} }

func serviceOf(name string) *object.Service {
	return &object.Service{
		Key: key(name), ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.20")},
		Ports: []object.ServicePort{{Name: "http", Protocol: object.TCP, Port: 80}},
	}
}

func sliceOf(name, service string, addrs ...string) *object.EndpointSlice {
	s := &object.EndpointSlice{Key: key(name), Service: service, Ports: []object.EndpointPort{{Name: "http", Protocol: object.TCP, Port: 8080}}}
	for _, a := range addrs {
		s.Endpoints = append(s.Endpoints, object.Endpoint{Addr: netip.MustParseAddr(a), Node: "n1", Ready: true, Serving: true})
	}
	return s
}
