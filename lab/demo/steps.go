package demo

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/middleway-net/middleway/lab/playground"
)

// step is a part of the demo: a few checks under one heading.
type step struct {
	name, about string
	run         func(*run, context.Context)
}

// early are the steps before there is a cluster, which late ones need.
var early = []step{
	{"machine", "what this kernel has and lacks, found out by trying", (*run).machine},
	{"cluster", "each node a daemon in a network namespace, each pod a TUN device", (*run).build},
}

var late = []step{
	{"ping", "ICMP from pod to pod and to the node's own gateway address, median of 10", (*run).ping},
	{"http", "a request from pod to pod; the server tells the source address it saw", (*run).http},
	{"service", "one name for the four pods, and every decision on the way to one", (*run).service},
	{"packet", "one of these requests, captured between the nodes", (*run).packet},
	{"restart", "kill -9 of a node's daemon under a download, and a new one at once", (*run).restart},
	{"throughput", "one TCP stream, in turn with the kernel's own bridge and VXLAN", (*run).throughput},
}

// place is two pods between which something is shown.
type place struct {
	name           string
	client, server *playground.Pod
}

// places returns two pods of one node, and of two.
func (r *run) places() []place { return placesOf(r.cluster) }

func placesOf(c *playground.Cluster) []place {
	pods := c.Pods()
	return []place{{"same node", pods[0], pods[1]}, {"other node", pods[0], pods[2]}}
}

// family names the kind of an address. A pod has one of each, IPv4 first; of IPv4 alone where the kernel has no IPv6.
func family(a netip.Addr) string {
	if a.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

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
	fmt.Fprintf(&b, "joined by %s; MTU of the pods %d bytes", f.Underlay, f.Nodes[0].MTU)
	for _, n := range f.Nodes {
		fmt.Fprintf(&b, "\n%s  %v  pid %d", n.Name, n.Address, n.PID)
		for _, p := range n.Pods {
			fmt.Fprintf(&b, "\n  %s", p.Name)
			for _, a := range p.Addresses {
				fmt.Fprintf(&b, "  %v", a)
			}
		}
	}
	return b.String()
}

func (r *run) build(ctx context.Context) {
	r.check(ctx, "2 nodes, 4 pods", func(ctx context.Context) (fact, error) {
		cluster, err := playground.New(ctx, playground.Config{Underlay: r.config.Underlay, Change: r.config.Change})
		if err != nil {
			return nil, err
		}
		r.cluster = cluster
		if err := awaitServers(ctx, cluster); err != nil {
			return nil, err
		}
		return describe(cluster)
	})
}

// serverWait bounds the start of a pod's server.
const serverWait = 10 * time.Second

func awaitServers(ctx context.Context, c *playground.Cluster) error {
	for _, p := range c.Pods() {
		if err := awaitServer(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// awaitServer waits until a pod's server listens, seen from inside the pod.
func awaitServer(ctx context.Context, p *playground.Pod) error {
	ctx, cancel := context.WithTimeout(ctx, serverWait)
	defer cancel()
	for {
		conn, err := p.Namespace().Dial(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", playground.DefaultPort))
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			s := p.Status()
			return fmt.Errorf("the server of %s does not listen within %v: %s", p.Name(), serverWait, s.Reason())
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func describe(cluster *playground.Cluster) (*clusterFact, error) {
	f := &clusterFact{Underlay: cluster.Underlay()}
	for _, n := range cluster.Nodes() {
		st := n.Status()
		if !st.Ready {
			return nil, fmt.Errorf("%s: %s", st.Name, st.Message)
		}
		nf := nodeFact{Name: st.Name, Address: st.Addresses[0], PID: st.PID, MTU: st.MTU}
		for _, p := range cluster.Pods() {
			if p.Node() == n {
				nf.Pods = append(nf.Pods, podFact{p.Name(), p.Addrs()})
			}
		}
		f.Nodes = append(f.Nodes, nf)
	}
	return f, nil
}
