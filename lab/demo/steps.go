package demo

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/lab/tool"
)

// step is a part of the demo: a few checks under one heading.
type step struct {
	name, about string
	run         func(*run, context.Context)
}

// buildStep makes what all others stand on.
const buildStep = "cluster"

var steps = []step{
	{buildStep, "every node a daemon process in a network namespace, every pod a TUN device", (*run).build},
	{"ping", "ICMP from pod to pod and to the node's own gateway address, median of 10", (*run).ping},
	{"http", "a request from pod to pod; the server tells the source address it saw", (*run).http},
	{"packet", "one of these requests, captured between the nodes", (*run).packet},
	{"restart", "kill -9 of a node's daemon under a download, and a new one at once", (*run).restart},
	{"throughput", "one TCP stream; the kernel's own bridge and VXLAN in turn with middleway", (*run).throughput},
}

// httpPort is where every pod serves.
const httpPort = 8080

// place is two pods between which something is shown.
type place struct {
	name           string
	client, server *lab.Pod
}

// places returns two pods of one node, and of two.
func (r *run) places() []place {
	one, two := r.cluster.Nodes[0].Pods, r.cluster.Nodes[1].Pods
	return []place{{"same node", one[0], one[1]}, {"other node", one[0], two[0]}}
}

// families are the names of a pod's addresses.
var families = []string{"IPv4", "IPv6"}

func addresses(p *lab.Pod) []netip.Addr { return []netip.Addr{p.Addr4, p.Addr6} }

// clusterFact is what was built.
type clusterFact struct {
	Underlay string     `json:"underlay"`
	Nodes    []nodeFact `json:"nodes"`
}

type nodeFact struct {
	Name    string     `json:"name"`
	Address netip.Addr `json:"address"`
	PID     int        `json:"pid"`
	MTU     int        `json:"podMTU"`
	Pods    []podFact  `json:"pods"`
}

type podFact struct {
	Name      string       `json:"name"`
	Addresses []netip.Addr `json:"addresses"`
}

func (f *clusterFact) text() string {
	var b strings.Builder
	for _, n := range f.Nodes {
		head := fmt.Sprintf("%s  %v  pid %d", n.Name, n.Address, n.PID)
		for _, p := range n.Pods {
			fmt.Fprintf(&b, "%-36s  %s  %v  %v\n", head, p.Name, p.Addresses[0], p.Addresses[1])
			head = ""
		}
	}
	fmt.Fprintf(&b, "joined by %s; MTU of the pods %d bytes", f.Underlay, f.Nodes[0].MTU)
	return b.String()
}

func (r *run) build(ctx context.Context) {
	r.check(ctx, "2 nodes, 4 pods", func(context.Context) (fact, error) {
		cluster, err := lab.NewCluster(lab.ClusterConfig{
			Underlay: lab.UnderlayConfig{Userspace: r.config.Userspace}, Change: r.config.Change,
		})
		if err != nil {
			return nil, err
		}
		r.cluster = cluster
		if err := r.serve(); err != nil {
			return nil, err
		}
		return describe(cluster)
	})
}

// serve starts an HTTP server in every pod.
func (r *run) serve() error {
	for _, n := range r.cluster.Nodes {
		for _, p := range n.Pods {
			l, err := p.Listen("tcp", fmt.Sprintf(":%d", httpPort))
			if err != nil {
				return err
			}
			r.servers = append(r.servers, tool.Serve(l))
		}
	}
	return nil
}

func describe(cluster *lab.Cluster) (*clusterFact, error) {
	f := &clusterFact{Underlay: "the kernel's veth"}
	if cluster.Underlay.Link() != nil {
		f.Underlay = "a switch in userspace"
	}
	for _, n := range cluster.Nodes {
		st, err := n.Status()
		if err != nil {
			return nil, err
		}
		nf := nodeFact{Name: n.Name(), Address: n.Config.Address, PID: n.Daemon().PID(), MTU: st.MTU}
		for _, p := range n.Pods {
			nf.Pods = append(nf.Pods, podFact{p.Name(), addresses(p)})
		}
		f.Nodes = append(f.Nodes, nf)
	}
	return f, nil
}
