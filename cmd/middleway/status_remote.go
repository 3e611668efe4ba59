package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/middleway-net/middleway/k8s/remote"
	"github.com/middleway-net/middleway/node"
)

// remoteStatus is what `status -o json` prints of a real cluster.
type remoteStatus struct {
	Server string       `json:"server"`
	Nodes  []remoteNode `json:"nodes"`
}

// remoteNode is a node of a real cluster.
type remoteNode struct {
	Node     string `json:"node"`
	Pod      string `json:"pod,omitempty"` // middleway's; none on a node of another network
	Ready    bool   `json:"ready"`
	Restarts int    `json:"restarts"`
	// Problem says why there is no Status.
	Problem string       `json:"problem,omitempty"`
	Status  *node.Status `json:"status,omitempty"`
}

// showRemote asks the daemons of a real cluster, or one.
func showRemote(cmd *cobra.Command, r *reach, name, output string) error {
	c, err := r.open(cmd, nil)
	if err != nil {
		return err
	}
	if name != "" {
		d, err := c.Daemon(cmd.Context(), name)
		if err != nil {
			return err
		}
		return showNode(cmd, daemonOf(c, d).client, output)
	}
	st, err := askStatus(cmd.Context(), c)
	if err != nil {
		return err
	}
	if output == "json" {
		err = printJSON(cmd.OutOrStdout(), st)
	} else {
		err = printRemote(cmd.OutOrStdout(), st)
	}
	if err == nil && slices.ContainsFunc(st.Nodes, func(n remoteNode) bool { return n.Pod != "" && n.Status == nil }) {
		err = errSilent
	}
	return err
}

// askStatus asks all daemons.
func askStatus(ctx context.Context, c *remote.Cluster) (remoteStatus, error) {
	st := remoteStatus{Server: c.Server()}
	daemons, err := c.Daemons(ctx)
	if err != nil {
		return st, err
	}
	var all []daemon
	for _, d := range daemons {
		st.Nodes = append(st.Nodes, remoteNode{Node: d.Node, Pod: d.Pod, Ready: d.Ready, Restarts: d.Restarts, Problem: d.Problem})
		all = append(all, daemonOf(c, d))
	}
	askEach(ctx, all, atOnce, io.Discard, func(i int, d daemon) error {
		n := &st.Nodes[i]
		if n.Problem != "" {
			return nil
		}
		s, err := d.client.Status(ctx)
		if err != nil {
			n.Problem = err.Error()
			return nil
		}
		n.Status = &s
		return nil
	})
	if ctx.Err() != nil {
		return st, context.Cause(ctx)
	}
	names, err := c.Nodes(ctx)
	if err != nil {
		names = nil // who may not list nodes sees those that have a daemon
	}
	for _, name := range names {
		if !slices.ContainsFunc(st.Nodes, func(n remoteNode) bool { return n.Node == name }) {
			st.Nodes = append(st.Nodes, remoteNode{Node: name, Problem: "no pod of middleway is on it"})
		}
	}
	slices.SortFunc(st.Nodes, func(a, b remoteNode) int { return strings.Compare(a.Node, b.Node) })
	return st, nil
}

// printRemote prints a row for each node.
func printRemote(w io.Writer, st remoteStatus) error {
	rows := [][]string{{"NODE", "READY", "VERSION", "ADDRESS", "POD RANGES", "MTU", "PODS", "PEERS", "FLOWS", "DROPPED", "RESTARTS", "AGE", "MESSAGE"}}
	for _, n := range st.Nodes {
		rows = append(rows, remoteCells(n))
	}
	return printRows(w, rows)
}

func remoteCells(n remoteNode) []string {
	s := n.Status
	if s == nil {
		return []string{n.Node, yes(n.Ready), "-", "-", "-", "-", "-", "-", "-", "-", fmt.Sprint(n.Restarts), "-", n.Problem}
	}
	up := 0
	for _, p := range s.Peers {
		if p.State == "up" {
			up++
		}
	}
	var dropped uint64
	for count := range maps.Values(s.Stack.Drops) {
		dropped += count
	}
	return []string{
		n.Node, yes(n.Ready), cmp.Or(s.Version, "-"), s.Address.String(), joined(s.PodCIDRs), fmt.Sprint(s.MTU), fmt.Sprint(s.Stack.Attachments), fmt.Sprintf("%d/%d", up, len(s.Peers)),
		fmt.Sprint(s.Stack.Flows), fmt.Sprint(dropped), fmt.Sprint(n.Restarts), age(s.Started), strings.Join(amiss(s), "; "),
	}
}

// amiss are the sentences about a node that whoever runs the cluster should see first.
func amiss(s *node.Status) (all []string) {
	if s.Cluster != nil && s.Cluster.Unreachable != nil {
		all = append(all, fmt.Sprintf("the API server does not answer for %s: %s", age(s.Cluster.Unreachable.Since), s.Cluster.Unreachable.Why))
	}
	if s.Host.Missing != "" {
		all = append(all, s.Host.Missing)
	}
	for _, p := range s.Peers {
		if p.State == "down" {
			all = append(all, strings.TrimSuffix(fmt.Sprintf("peer %s is down: %s", p.Name, p.Why), ": "))
		}
	}
	for _, pod := range s.Stack.Lost {
		all = append(all, "somebody has removed the interface of pod "+pod)
	}
	for _, p := range s.Problems {
		all = append(all, p.Message)
	}
	return append(all, s.Notes...)
}
