// Package object holds Kubernetes' objects stripped to the fields that a node needs, and converts them at the edge: a Service of
// 2 kB of JSON becomes 200 bytes, and what lies in memory on every node is only that.
//
// Every source of objects (package k8s) converts as they arrive; the Compile functions (k8s/services, k8s/nodes) read nothing
// else. An object, once made, is never changed.
package object

import (
	"net/netip"
	"time"
)

// Key names an object within its kind. Objects without a namespace leave it empty.
type Key struct{ Namespace, Name string }

// String returns "namespace/name", or the name alone.
func (k Key) String() string {
	if k.Namespace == "" {
		return k.Name
	}
	return k.Namespace + "/" + k.Name
}

// Protocol is an IP protocol number, as package stack/packet has it.
type Protocol uint8

// The protocols of Services.
const (
	TCP  Protocol = 6
	UDP  Protocol = 17
	SCTP Protocol = 132
)

// Service is a Service (core/v1).
type Service struct {
	Key
	// ClusterIPs are its virtual addresses, at most one of each family; none for headless ones and ExternalName.
	ClusterIPs []netip.Addr
	// Headless: its clusterIP is None.
	Headless bool
	// ExternalName is the name that a Service of that type stands for; "" for others.
	ExternalName string
	// ExternalIPs are addresses at which its ports are served on every node that such packets reach (deprecated by KEP-5707).
	ExternalIPs []netip.Addr
	Ports       []ServicePort
	// Affinity is how long a client stays with its backend (sessionAffinity ClientIP), 1 s to 24 h; 0: not at all.
	Affinity time.Duration
	// InternalLocal and ExternalLocal: internalTrafficPolicy and externalTrafficPolicy are Local.
	InternalLocal, ExternalLocal bool
	// HealthPort is healthCheckNodePort, where load balancers ask a node whether it has endpoints; 0 if it has none. Only a Service of
	// type LoadBalancer has one whose externalTrafficPolicy is Local.
	HealthPort uint16 `json:",omitzero"`
	// NotProxied: it has the label service.kubernetes.io/service-proxy-name or …/headless, whatever its value: another proxy
	// serves it, or none. Its names are served all the same.
	NotProxied bool
	// Scheduler is the annotation middleway.net/scheduler, which chooses among backends: random, round-robin, least-connections
	// or maglev; "" is random.
	Scheduler string
}

// ServicePort is one port of a Service.
type ServicePort struct {
	Name     string // "" if it is the only one
	Protocol Protocol
	Port     uint16
	NodePort uint16 // 0 if it has none
}

// EndpointSlice is an EndpointSlice (discovery/v1).
type EndpointSlice struct {
	Key
	// Service is the Service that it belongs to, of the same namespace: the label kubernetes.io/service-name.
	Service   string
	Ports     []EndpointPort
	Endpoints []Endpoint
	// NotProxied: it has one of the labels of Service.NotProxied.
	NotProxied bool
}

// EndpointPort is a port of all endpoints of a slice.
type EndpointPort struct {
	Name     string
	Protocol Protocol
	Port     uint16
}

// Endpoint is one member of a slice. Conditions that the object does not tell have the values of the API's comments: ready and
// serving are true, terminating is false.
type Endpoint struct {
	Addr     netip.Addr `json:",omitzero"` // the first of its addresses: all of them are fungible
	Hostname string     `json:",omitzero"` // "" if none was set
	Node     string     `json:",omitzero"` // "" if not told
	Ready    bool       `json:",omitzero"`
	Serving  bool       `json:",omitzero"`
	// Terminating: its pod has been asked to end.
	Terminating bool `json:",omitzero"`
	// Hints say for whose clients it is; nil: for all. Few endpoints have any, so that they cost the others little.
	Hints *Hints `json:",omitzero"`
}

// Hints are the zones and nodes whose clients an endpoint is for (KEP-2433, KEP-3015).
type Hints struct{ Zones, Nodes []string }

// HintedZones returns the zones of its hints.
func (e *Endpoint) HintedZones() []string {
	if e.Hints == nil {
		return nil
	}
	return e.Hints.Zones
}

// HintedNodes returns the nodes of its hints.
func (e *Endpoint) HintedNodes() []string {
	if e.Hints == nil {
		return nil
	}
	return e.Hints.Nodes
}

// Node is a Node (core/v1).
type Node struct {
	Name     string
	PodCIDRs []netip.Prefix
	// Addresses are those of type InternalIP, then those of type ExternalIP.
	Addresses []netip.Addr
	// Zone is the label topology.kubernetes.io/zone.
	Zone string
	// Leaving: load balancers are to send it no new clients, because it is being deleted, or because the cluster autoscaler has
	// tainted it before it deletes it (KEP-3836).
	Leaving bool `json:",omitzero"`
	// Annotations are those that begin with flannel.alpha.coreos.com/ or middleway.net/.
	Annotations map[string]string
}

// Pod is a Pod (core/v1).
type Pod struct {
	Key
	Addrs       []netip.Addr
	Node        string
	HostNetwork bool
	// Ended: its phase is Succeeded or Failed. Its addresses may be another pod's by now.
	Ended bool
}

// Namespace is a Namespace (core/v1).
type Namespace struct{ Name string }
