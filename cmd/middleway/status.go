package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/middleway-net/middleway/node"
)

func statusCommand() *cobra.Command {
	var runDir, output string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what a running node daemon counts",
		Example: `  middleway status
  middleway status --run-dir /run/middleway -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "text" && output != "json" {
				return fmt.Errorf("status: -o %q: want text or json", output)
			}
			st, err := node.ReadStatus(cmd.Context(), runDir)
			if err != nil {
				return err
			}
			if output == "json" {
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				return e.Encode(st)
			}
			printStatus(cmd.OutOrStdout(), st)
			return nil
		},
	}
	cmd.Flags().StringVar(&runDir, "run-dir", node.DefaultRunDir(), "run directory of the daemon")
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return cmd
}

func printStatus(w io.Writer, st node.Status) {
	fmt.Fprintf(w, "node      %s, pid %d, up %v\n", st.Name, st.PID, time.Since(st.Started).Round(time.Second))
	fmt.Fprintf(w, "address   %v, on %s of %d bytes: %s\n", st.Address, st.Underlay.Interface, st.Underlay.MTU, st.Underlay.How)
	if st.Underlay.Sockets != "" {
		fmt.Fprintf(w, "sockets   handed in at %s\n", st.Underlay.Sockets)
	}
	fmt.Fprintf(w, "podCIDRs  %v\nmtu       %d bytes\nworkers   %d\n", st.PodCIDRs, st.MTU, st.Workers)
	fmt.Fprintf(w, "pods      %d\n", st.Stack.Attachments)
	if h := st.Host; h.Device == "" {
		fmt.Fprintf(w, "host      not attached\n")
	} else {
		fmt.Fprintf(w, "host      %s with %v, routes %v, takes plain packets of peers (DirectRouting): %s\n",
			h.Device, h.Addresses, h.Routes, yes(h.DirectRouting))
	}
	fmt.Fprintf(w, "flows     %d directions, %d of them found at the start\n", st.Stack.Flows, st.Stack.RestoredFlows)
	fmt.Fprintf(w, "forwarded %d packets, %d bytes\n", st.Stack.Packets, st.Stack.Bytes)
	if st.Underlay.Changed != "" {
		fmt.Fprintf(w, "changed   %s\n", st.Underlay.Changed)
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
