// Package service finds who serves the address that a flow's first packet has been sent to: a Service's frontend leads to its
// port, and the port's scheduler picks a backend.
//
//	first packet of a flow ─► Table.Lookup ─► Port ─► Choose ─► Backend      (stack enters both directions of the flow)
//
// Later packets never come here: the flow table knows them. A Table is immutable; With makes the next one and shares with it
// what has not changed, so that an event costs what it changes, whatever the number of Services.
package service

import (
	"encoding/binary"
	"hash/fnv"
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

// Service is what one Kubernetes Service puts into a Table.
type Service struct {
	// Frontends lead to ports. Addresses that have a frontend answer pings, and refuse other ports.
	Frontends map[Frontend]*Port
	// External are where clients outside the cluster reach it, through sockets of the node: externalIPs and host ports of one address,
	// and NodePorts and host ports of all of the node's addresses of a family, whose Addr is 0.0.0.0 or ::. Nothing but the port is
	// the Service's.
	External map[Frontend]*Port
}

// Port is what the frontends of one port of a Service share, for one family of addresses. It is immutable once a Table has it.
type Port struct {
	// Name is for traces and logs, for example "default/web:http".
	Name string
	// ID is the same in all tables and daemons: under it clients' affinities are kept. It is PortID's.
	ID uint64
	// Affinity is how long a client's later connections go where its last one went; 0: not at all.
	Affinity time.Duration
	// Scheduler picks among backends. The zero Scheduler picks at random.
	Scheduler Scheduler
	// Internal serves clients of ClusterIPs; External those that come from outside to the External frontends, Inside those that come
	// there from this node and its pods, for which the policy is Cluster always (core/v1, externalTrafficPolicy).
	Internal, External, Inside Choice
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
	// KeepClient: backends see the client's own address as far as their answers come back through this node, as policy Local promises
	// to clients outside (core/v1, externalTrafficPolicy), and not that of the node.
	KeepClient bool
	// Why says by which rule these are the backends, for traces: for example "ready", "terminating, as none is ready".
	Why string

	state *state // what the scheduler keeps between two flows; nil where it keeps nothing
}

// Backend is an endpoint at a port.
type Backend struct {
	Addr packet.AddrKey
	Port uint16
	// Local: it is on this node.
	Local bool
}

// AddrPort returns the backend's address and port.
func (b *Backend) AddrPort() netip.AddrPort { return netip.AddrPortFrom(b.Addr.Addr(), b.Port) }

// Serves reports whether a flow that goes to the given backend may go on: it serves, or new flows go there (an endpoint whose
// Service publishes it though it is not ready).
func (p *Port) Serves(addr packet.AddrKey, port uint16) bool {
	for _, backends := range [...][]Backend{p.Serving, p.Internal.Backends, p.External.Backends, p.Inside.Backends} {
		if index(backends, addr, port) >= 0 {
			return true
		}
	}
	return false
}

// Index returns which of the backends has the address and port, -1 if none.
func (c *Choice) Index(addr packet.AddrKey, port uint16) int { return index(c.Backends, addr, port) }

func index(backends []Backend, addr packet.AddrKey, port uint16) int {
	for i := range backends {
		if b := &backends[i]; b.Port == port && b.Addr == addr {
			return i
		}
	}
	return -1
}

// PortID returns the ID of a Service's port of the given name ("" if it has none) and protocol.
func PortID(namespace, service, port string, p packet.Proto) uint64 {
	h := fnv.New64a()
	for _, s := range []string{namespace, service, port} {
		_, _ = h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(s)))) // no two triples read as one
		_, _ = h.Write([]byte(s))
	}
	_, _ = h.Write([]byte{byte(p)})
	return h.Sum64()
}
