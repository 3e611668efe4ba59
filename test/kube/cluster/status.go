package cluster

import (
	"context"
	"strings"

	"github.com/middleway-net/middleway/test/kube/node"
)

// A Status is what there is of a cluster.
type Status struct {
	Name    string       `json:"name"`
	Family  string       `json:"family"`
	Network string       `json:"network"`
	Server  string       `json:"server"`
	API     string       `json:"api"` // "is ready", or what is wrong with it
	Nodes   []NodeStatus `json:"nodes"`
}

// A NodeStatus is what there is of a node.
type NodeStatus struct {
	Name      string   `json:"name"`
	Addresses []string `json:"addresses"`
	node.State
}

// Status asks the nodes' first processes, and the API server.
func (c *Cluster) Status(ctx context.Context) Status {
	s := Status{Name: c.Name, Family: string(c.Family), Network: c.Network, Server: c.Server(), API: "is ready"}
	if err := c.api.get(ctx, "/readyz", nil); err != nil {
		s.API = "is not ready: " + unready(err.Error())
	}
	for _, n := range c.AllNodes() {
		state, err := n.State(ctx)
		if err != nil {
			state.Problem = err.Error()
		}
		ns := NodeStatus{Name: n.Name, State: state}
		for _, a := range c.NodeAddrs(n.Number) {
			ns.Addresses = append(ns.Addresses, a.String())
		}
		s.Nodes = append(s.Nodes, ns)
	}
	return s
}

// unready is what is wrong of an answer of /readyz, which tells of every check on a line of its own.
func unready(answer string) string {
	var wrong []string
	for line := range strings.Lines(answer) {
		if check, ok := strings.CutPrefix(strings.TrimSpace(line), "[-]"); ok {
			wrong = append(wrong, strings.TrimSuffix(check, ": reason withheld"))
		}
	}
	if len(wrong) == 0 {
		return answer
	}
	return strings.Join(wrong, ", ")
}

// Init is a node's first process, as InitCommand runs it.
func Init(specFile string) error { return node.Init(specFile) }
