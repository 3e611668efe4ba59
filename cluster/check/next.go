package check

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/middleway-net/middleway/cluster"
	"github.com/middleway-net/middleway/cluster/stage"
)

// conclude says about what failed what to look at next, from what else failed or did not.
func (r *run) conclude(ctx context.Context) {
	r.report.judge()
	for _, c := range r.report.Checks {
		if c.State == Failed && len(c.Next) == 0 {
			c.Next = r.next(ctx, c)
		}
	}
}

// failed reports whether a check whose name begins so failed, in a family or in any.
func (r *run) failed(name, family string) bool {
	return slices.ContainsFunc(r.report.Checks, func(c *Check) bool {
		return c.State == Failed && strings.HasPrefix(c.Name, name) && (family == "" || c.Family == family)
	})
}

func (r *run) next(ctx context.Context, c *Check) []string {
	on := func(node string) string {
		if p, ok := r.daemons[node]; ok {
			return fmt.Sprintf("`kubectl -n %s exec %s -c %s -- middleway status`", p.Namespace, p.Name, stage.DaemonContainer)
		}
		return "`middleway status` on " + node
	}
	f := c.Failures[0]
	const others = "pod → pod on another node"
	if silent := r.silentDaemon(c); silent != "" && c.Group != groupNodes {
		return []string{"the daemon of " + silent + " does not answer, see above: begin with that"}
	}
	switch {
	case slices.Contains([]string{groupPodNode, groupServices, groupPorts, groupBeyond}, c.Group) && c.Name != betweenNodes && r.failed(others, c.Family):
		return []string{"pods do not reach pods on another node, see above: begin with that"}
	case c.Name == others+", largest packets" && r.failed(others+", UDP", c.Family), c.Name == others+", 64 KiB over TCP" && r.failed(others+", TCP", c.Family):
		return []string{"smaller ones do not pass either, see above: begin with that"}
	case strings.HasPrefix(c.Name, "pod → pod on another node, largest") && !r.failed("pod → pod on another node, UDP", c.Family):
		return []string{"small packets pass and large ones do not: the network between the nodes takes smaller ones than its interfaces say; " + on(f.From) + " tells what each peer takes (MTU), and `mtu` in the node's configuration sets it"}
	case strings.HasPrefix(c.Name, "pod → pod on another node"):
		return r.nextBetweenNodes(ctx, c)
	case c.Group == groupPods:
		return []string{on(f.From) + " counts why packets are dropped; the log of this daemon may say more"}
	case c.Name == daemonAnswers:
		return []string{"`kubectl -n " + r.API.Namespace + " describe pods` and the daemons' logs say why; `middleway report` collects both"}
	case c.Name == betweenNodes:
		return []string{"this is the nodes' own network, below middleway: a route, or a firewall between them"}
	case c.Group == groupPodNode:
		return []string{"a firewall of the node that was asked? " + on(f.From) + " says whether the host is attached (host), and why packets are dropped"}
	case c.Group == groupServices:
		return []string{"`middleway check --keep`, then `middleway trace NAMESPACE/POD web` tells the decisions on this way; " + on(f.From) + " whether the daemon knows the cluster (cluster)"}
	case c.Group == groupNames && r.failed("pod → ClusterIP, UDP", ""):
		return []string{"Services do not answer over UDP either, and names are asked at one: begin with that"}
	case c.Group == groupNames:
		return []string{on(f.From) + " says whether this node answers names, and at which addresses (dns): they have to be kubelet's clusterDNS; with dns.off in the configuration look at CoreDNS"}
	case c.Group == groupPorts:
		return []string{"is another program on the port, or a firewall before the node? " + on(cmp.Or(f.To, f.From)) + " lists the ways in that are open"}
	case strings.Contains(c.Name, "API server") && r.failed("pod asks for a Service by its full name", ""):
		return []string{"names are not answered, see above: begin with that"}
	case strings.Contains(c.Name, "API server"):
		return []string{"it is the way from pods to the API server's own address: `kubectl get endpointslices -n default`"}
	case strings.HasPrefix(c.Name, "pod → "):
		return []string{"do the nodes reach it (see there)? Then egress.off in the configuration, or " + on(f.From) + " says why"}
	}
	return nil
}

// silentDaemon returns a node of which a failure is whose daemon does not answer, if there is one.
func (r *run) silentDaemon(c *Check) string {
	for _, d := range r.report.Checks {
		if d.Name != daemonAnswers {
			continue
		}
		for _, silent := range d.Failures {
			if slices.ContainsFunc(c.Failures, func(f Failure) bool { return f.From == silent.From || f.To == silent.From }) {
				return silent.From
			}
		}
	}
	return ""
}

// nextBetweenNodes tells a network that is down from a tunnel that is, and asks the daemons what they think of each other.
func (r *run) nextBetweenNodes(ctx context.Context, c *Check) (next []string) {
	if r.tunnel != nil {
		return r.tunnel
	}
	defer func() { r.tunnel = next }()
	var down []string
	for _, f := range c.Failures {
		if !r.failedPair(betweenNodes, c.Family, f.From, f.To) && r.ready(f.From) && r.ready(f.To) {
			down = append(down, f.From+" ↔ "+f.To)
		}
	}
	if len(down) == 0 {
		return []string{"these nodes do not reach each other without the pod network either: begin with that (" + betweenNodes + ")"}
	}
	const most = 3
	asked, blocked := map[string]bool{}, uint16(0)
	for _, f := range c.Failures {
		if asked[f.From] || len(asked) == most {
			continue
		}
		asked[f.From] = true
		st, err := r.daemonStatus(ctx, f.From)
		if err != nil {
			continue
		}
		for _, p := range st.Peers {
			if p.Name != f.To || p.State == "up" && p.Why == "" {
				continue
			}
			words := fmt.Sprintf("the daemon of %s says of %s: %s for %v", f.From, f.To, p.State, time.Since(p.Since).Round(time.Second))
			if p.Why != "" {
				words += ": " + p.Why
			}
			next = append(next, words)
			if p.State == "down" {
				blocked = st.Tunnel.Port
			}
		}
	}
	switch {
	case blocked != 0:
		next = append(next, fmt.Sprintf("the nodes reach each other by TCP, and the tunnel does not: is UDP port %d open between them, in both directions?", blocked))
	case len(next) == 0:
		next = []string{"the nodes reach each other by TCP: is the tunnel's UDP port (8472, vxlan.port) open between them, in both directions? `middleway status` says what a daemon thinks of its peers"}
	}
	return next
}

// failedPair reports whether a check of this name failed between two nodes, in either direction.
func (r *run) failedPair(name, family, a, b string) bool {
	return slices.ContainsFunc(r.report.Checks, func(c *Check) bool {
		return c.Name == name && c.Family == family && slices.ContainsFunc(c.Failures, func(f Failure) bool {
			return f.From == a && f.To == b || f.From == b && f.To == a
		})
	})
}

func (r *run) ready(name string) bool {
	return slices.ContainsFunc(r.nodes, func(n *node) bool { return n.name == name && n.host.ready })
}

// daemonStatus is what of a daemon's status is told here.
type daemonStatus struct {
	Tunnel struct {
		Port uint16 `json:"port"`
	} `json:"tunnel"`
	Peers []struct {
		Name  string    `json:"name"`
		State string    `json:"state"`
		Since time.Time `json:"since"`
		Why   string    `json:"why"`
	} `json:"peers"`
}

// askDaemons asks the daemon of each node, and counts those that answer.
func (r *run) askDaemons(ctx context.Context, c *Check) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(podsAtOnce)
	for _, n := range r.nodes {
		if n.flannel {
			continue
		}
		g.Go(func() error {
			start := time.Now()
			_, err := r.daemonStatus(ctx, n.name)
			r.mu.Lock()
			defer r.mu.Unlock()
			if err != nil && ctx.Err() == nil {
				c.fail(n.name, "", err.Error())
			} else {
				c.pass(n.name, "", time.Since(start))
			}
			return ctx.Err()
		})
	}
	return g.Wait()
}

// How long a daemon has to tell its status, and how much that may be, in bytes.
const (
	daemonPatience = 10 * time.Second
	maxStatus      = 16 << 20
)

func (r *run) daemonStatus(ctx context.Context, node string) (st daemonStatus, err error) {
	p, ok := r.daemons[node]
	if !ok {
		return st, errors.New("there is no pod of the DaemonSet")
	}
	if !stage.Ready(p) {
		return st, fmt.Errorf("pod %s is not ready", p.Name)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, daemonPatience, fmt.Errorf("pod %s did not answer within %v", p.Name, daemonPatience))
	defer cancel()
	where := cluster.Container{Namespace: p.Namespace, Pod: p.Name, Name: stage.DaemonContainer}
	text, err := r.API.Output(ctx, where, stage.Argv("status", "-o", "json"), maxStatus)
	switch {
	case ctx.Err() != nil:
		return st, context.Cause(ctx)
	case err != nil:
		return st, err
	}
	return st, json.Unmarshal(text, &st)
}
