package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/middleway-net/middleway/lab/playground"
	"github.com/middleway-net/middleway/node"
)

func statusCommand(r reach) *cobra.Command {
	var output, name string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the nodes of a cluster, or what a node daemon counts",
		Long: `Shows the nodes and pods of the cluster that middleway up has made. With --run-dir it asks one node daemon what it counts;
it does so too, with the default run directory, where there is no cluster. With --node it asks that of a node of a real cluster.`,
		Example: `  middleway status
  middleway status -o json | jq '.pods[] | select(.phase != "Running")'
  middleway status --run-dir /run/middleway -o json
  middleway status --context production
  middleway status --context production --node worker-1`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "text" && output != "json" {
				return fmt.Errorf("status: -o %q: want text or json", output)
			}
			if err := r.check(cmd, "node"); err != nil {
				return saidBy(cmd, err)
			}
			switch {
			case r.meansCluster(cmd, "node"):
				return saidBy(cmd, showRemote(cmd, &r, name, output))
			case cmd.Flags().Changed("run-dir"):
				return showNode(cmd, node.In(r.runDir), output)
			}
			return r.showHere(cmd, output)
		},
	}
	if r.plugin {
		cmd.Short = "Show the daemons of the nodes, or what one of them counts"
		cmd.Long = `Shows a line for each node: whether its daemon serves, how many pods it has, how many of its peers answer, and what it has to say.
With --node it shows all that one daemon counts. The exit code is 1 if a daemon could not be asked.`
		cmd.Example = `  kubectl middleway status
  kubectl middleway status --node worker-1
  kubectl middleway status -o json | jq '.nodes[] | select(.status.host.missing != null) | .node'`
	}
	r.register(cmd)
	cmd.Flags().StringVar(&name, "node", "", "all that the daemon of this node of a real cluster counts")
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	_ = cmd.RegisterFlagCompletionFunc("node", r.completeNodes)
	return cmd
}

// showHere shows the playground, or this machine's daemon where there is none.
func (r *reach) showHere(cmd *cobra.Command, output string) error {
	st, err := playground.ReadStatus(cmd.Context(), r.dir)
	if errors.Is(err, playground.ErrNotRunning) && !cmd.Flags().Changed("dir") {
		if showNode(cmd, node.In(r.runDir), output) == nil {
			return nil
		}
		return r.nobody(err)
	}
	if err != nil {
		return err
	}
	if output == "json" {
		return printJSON(cmd.OutOrStdout(), st)
	}
	return printCluster(cmd.OutOrStdout(), st)
}

// showNode asks a node daemon.
func showNode(cmd *cobra.Command, daemon *node.Client, output string) error {
	st, err := daemon.Status(cmd.Context())
	if err != nil {
		return err
	}
	if output == "json" {
		return printJSON(cmd.OutOrStdout(), st)
	}
	printStatus(cmd.OutOrStdout(), st)
	return nil
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// printCluster prints a table of the nodes and one of the pods.
func printCluster(w io.Writer, st playground.Status) error {
	fmt.Fprintf(w, "cluster in %s, %s, pid %d, up %v, joined by %s\n", st.Dir, st.State, st.PID, time.Since(st.Started).Round(time.Second), st.Underlay)
	nodes := [][]string{{"NODE", "READY", "ADDRESSES", "POD RANGES", "MTU", "PID", "RESTARTS", "AGE", "MESSAGE"}}
	for _, n := range st.Nodes {
		nodes = append(nodes, []string{n.Name, yes(n.Ready), joined(n.Addresses), joined(n.PodCIDRs), fmt.Sprint(n.MTU), fmt.Sprint(n.PID),
			fmt.Sprint(n.Restarts), age(n.Started), n.Message})
	}
	pods := [][]string{{"POD", "READY", "STATUS", "NODE", "IPS", "RESTARTS", "AGE", "MESSAGE"}}
	for _, p := range st.Pods {
		ready, of := p.ReadyContainers()
		pods = append(pods, []string{p.Namespace + "/" + p.Name, fmt.Sprintf("%d/%d", ready, of), p.Status, p.Node, joined(p.IPs),
			fmt.Sprint(p.Restarts()), age(p.Started), p.Reason()})
	}
	manifests := [][]string{{"MISTAKE IN A MANIFEST"}}
	for _, m := range st.Manifests {
		manifests = append(manifests, []string{m.Message})
	}
	for _, table := range [][][]string{nodes, pods, manifests} {
		if err := printTable(w, table); err != nil {
			return err
		}
	}
	return nil
}

// printTable prints rows under their header, after an empty line; nothing for a header alone.
func printTable(w io.Writer, rows [][]string) error {
	if len(rows) == 1 {
		return nil
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	return printRows(w, rows)
}

// printRows prints rows in columns.
func printRows(w io.Writer, rows [][]string) error {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	t.Flush() // a Builder takes all
	for line := range strings.Lines(b.String()) {
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

// age tells how long ago something began, in its largest unit, as kubectl does it.
func age(since time.Time) string {
	if since.IsZero() {
		return "-"
	}
	switch d := time.Since(since); {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(max(0, d).Seconds()))
	case d < 3*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}

func joined[T fmt.Stringer](values []T) string {
	var words []string
	for _, v := range values {
		words = append(words, v.String())
	}
	return strings.Join(words, ",")
}

func printStatus(w io.Writer, st node.Status) {
	fmt.Fprintf(w, "node      %s, pid %d, up %v\n", st.Name, st.PID, time.Since(st.Started).Round(time.Second))
	fmt.Fprintf(w, "address   %v, on %s of %d bytes: %s\n", st.Address, st.Underlay.Interface, st.Underlay.MTU, st.Underlay.How)
	if st.Underlay.Sockets != "" {
		fmt.Fprintf(w, "sockets   handed in at %s\n", st.Underlay.Sockets)
	}
	fmt.Fprintf(w, "podCIDRs  %v\nmtu       %d bytes\nworkers   %d\n", st.PodCIDRs, st.MTU, st.Workers)
	fmt.Fprintf(w, "pods      %d\n", st.Stack.Attachments)
	for _, pod := range st.Stack.Lost {
		fmt.Fprintf(w, "lost      %s: somebody has removed its interface\n", pod)
	}
	if h := st.Host; h.Device == "" {
		fmt.Fprintf(w, "host      not attached\n")
	} else {
		fmt.Fprintf(w, "host      %s with %v, routes %v, takes plain packets of peers (DirectRouting): %s\n",
			h.Device, h.Addresses, h.Routes, yes(h.DirectRouting))
	}
	if st.Host.Missing != "" {
		fmt.Fprintf(w, "missing   %s\n", st.Host.Missing)
	}
	if st.Cluster != nil {
		for _, line := range st.Cluster.Words() {
			fmt.Fprintf(w, "cluster   %s\n", line)
		}
	}
	printDNS(w, st.DNS)
	printWays(w, st.Outside)
	fmt.Fprintf(w, "flows     %d directions, %d of them found at the start\n", st.Stack.Flows, st.Stack.RestoredFlows)
	fmt.Fprintf(w, "forwarded %d packets, %d bytes\n", st.Stack.Packets, st.Stack.Bytes)
	if st.Underlay.Changed != "" {
		fmt.Fprintf(w, "changed   %s\n", st.Underlay.Changed)
	}
	for _, p := range st.Problems {
		fmt.Fprintf(w, "problem   %s (since %s)\n", p.Message, p.Since.Format(time.RFC3339))
	}
	for _, note := range st.Notes {
		fmt.Fprintf(w, "note      %s\n", note)
	}
	for _, reason := range slices.Sorted(maps.Keys(st.Stack.Drops)) {
		fmt.Fprintf(w, "dropped   %d %s\n", st.Stack.Drops[reason], reason)
	}
	for _, name := range slices.Sorted(maps.Keys(st.Offloads)) {
		o := st.Offloads[name]
		fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("offload   %-14s %-7s %s", name, o.State, o.Why), " "))
	}
	printPeers(w, st.Peers)
}

// printPeers prints a table of the peers, with what there is to say about each.
func printPeers(w io.Writer, peers []node.PeerStatus) {
	fmt.Fprintf(w, "peers     %d\n", len(peers))
	if len(peers) == 0 {
		return
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\nPEER\tADDRESS\tSTATE\tFOR\tRTT\tMTU\tTRAINS\tCHECKSUMS\tNOTE")
	for _, p := range peers {
		rtt := "-"
		if p.RTT > 0 {
			rtt = time.Duration(p.RTT).Round(time.Microsecond).String()
		}
		fmt.Fprintf(table, "%s\t%v\t%s\t%v\t%s\t%d\t%s\t%s\t%s\n", p.Name, p.Address, p.State,
			time.Since(p.Since).Round(time.Second), rtt, p.MTU, yes(p.Trains), map[bool]string{true: "peer", false: "here"}[p.RemoteChecksum], p.Why)
	}
	table.Flush()
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
