// Package service finds who serves the address that a flow's first packet has been sent to: a Service's frontend leads to its
// port, and the port's scheduler picks a backend.
//
//	first packet of a flow ─► Table.Lookup ─► Port ─► choose ─► Backend      (stack enters both directions of the flow)
//
// Later packets never come here: the flow table knows them. A Table is immutable; With makes the next one and shares with it
// what has not changed, so that an event costs what it changes, whatever the number of Services.
package service

import (
	"net/netip"
	"time"

	"github.com/middleway-net/middleway/stack/packet"
)

// Frontend is where clients reach a Service.
type Frontend struct {
	Addr  netip.Addr
	Proto packet.Proto
	Port  uint16
}

// Port is what the frontends of one port of a Service share, for one family of addresses. It is immutable.
type Port struct {
	// Name is for traces and logs, for example "default/web:http".
	Name string
	// ID is the same in all tables and daemons: under it clients' affinities are kept. It is a hash of namespace, Service, port
	// name and protocol.
	ID uint64
	// Affinity is how long a client's later connections go where its last one went; 0: not at all.
	Affinity time.Duration
	// Scheduler picks among backends. The zero Scheduler picks at random.
	Scheduler Scheduler
	// Internal serves clients of ClusterIPs, External those that come from outside.
	Internal, External Choice
	// Serving are all backends that serve, chosen from or not: a UDP flow to any other one ends (KEP-1669; kube-proxy's
	// conntrack clean-up looks at serving alone).
	Serving []Backend
}

// Choice is what a traffic policy leaves to choose from.
type Choice struct {
	Backends []Backend
	// None is what becomes of a packet when there are no Backends: packet.DropNoBackend, which is answered with a refusal, or
	// packet.DropNoLocalBackend, which is not.
	None packet.DropReason
	// Why says by which rule these are the backends, for traces: for example "ready", "terminating, as none is ready".
	Why string
}

// Backend is an endpoint at a port.
type Backend struct {
	Addr packet.AddrKey
	Port uint16
	// Local: it is on this node.
	Local bool
}

// Scheduler is how backends are picked.
type Scheduler uint8

// Schedulers.
const (
	Random Scheduler = iota
	RoundRobin
	LeastConnections
	Maglev
)

// Service is what one Kubernetes Service puts into a Table.
type Service struct {
	// Frontends lead to ports. Addresses that have a frontend answer pings, and refuse other ports.
	Frontends map[Frontend]*Port
}
