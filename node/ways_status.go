package node

import (
	"net/netip"

	"github.com/middleway-net/middleway/proxy"
)

// WaysStatus is what a daemon tells of the ways into the cluster and out of it.
type WaysStatus struct {
	// Egress: pods reach what is outside of the cluster.
	Egress bool `json:"egress"`
	// NodePorts: this node serves NodePorts and externalIPs of Services. Host ports it serves in any case.
	NodePorts bool `json:"nodePorts"`
	// Addresses are where NodePorts and host ports are, sorted.
	Addresses []netip.Addr `json:"addresses"`
	// Sockets is the path at which a parent process hands the sockets in; empty if they are the daemon's own.
	Sockets string `json:"sockets,omitempty"`
	// Problems are the listeners that could not be opened.
	Problems []ListenerProblem `json:"problems"`
	proxy.Stats
}

func (n *Node) waysStatus() WaysStatus {
	w := &n.ways
	st := WaysStatus{
		Egress: !n.config.Egress.Off, NodePorts: n.config.withNodePorts(), Addresses: []netip.Addr{}, Sockets: n.config.OutsideSockets,
		Problems: w.problems.list(), Stats: w.proxy.Stats(),
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	st.Addresses = append(st.Addresses, w.fronts...)
	return st
}
