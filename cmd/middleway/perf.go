package main

import (
	"errors"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/middleway-net/middleway/cluster/perf"
)

const clusterPerfHelp = `Measures the network of a cluster between two nodes: TCP throughput, UDP packets per second, connections per second and round trips,
from pod to pod, through a Service, and between the nodes' own addresses, with which it is compared. All ways are measured one after another in
each round, so that the ratios hold although machines are busy. It makes a namespace with pods of the image of the cluster's daemons, and removes
it, after Ctrl-C as well. While it runs it fills the way between these nodes: see to it that this disturbs nobody.

middleway tool perf measures between any two places by hand. docs/check.md is the manual.

Exit codes: 0 all was measured, 1 something was not, 2 nothing could be, 130 interrupted.`

type clusterPerfFlags struct {
	reach  reach
	config perf.Config
	output outputFlag
}

func perfCommand(r reach) *cobra.Command {
	f := clusterPerfFlags{reach: r}
	cmd := &cobra.Command{
		Use:   "perf",
		Short: "Measure the network of a cluster between nodes, pod to pod and node to node in turn",
		Long:  clusterPerfHelp,
		Example: `  middleway perf
  middleway perf --from node-1 --to node-4 --time 5s
  middleway perf --pairs 6 --rounds 1
  middleway perf -o json | jq '.pairs[].ways[] | {name, tcp: .measures[0].ratio}'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return ofCluster(cmd, f.run(cmd)) },
	}
	flags := cmd.Flags()
	f.reach.registerCluster(cmd)
	flags.StringVar(&f.config.Image, "image", "", "image with middleway for the pods; default that of the cluster's daemons")
	flags.StringVar(&f.config.From, "from", "", "node that sends")
	flags.StringVar(&f.config.To, "to", "", "node that receives")
	flags.IntVar(&f.config.Pairs, "pairs", 1, "how many pairs of nodes are measured")
	flags.IntVar(&f.config.Rounds, "rounds", 3, "how often each is measured")
	flags.DurationVar(&f.config.Time, "time", time.Second, "how long each measurement takes")
	flags.Uint16Var(&f.config.FirstPort, "first-port", 0, "the first of two ports of the nodes that it takes (default at random, from 20000 on)")
	flags.DurationVar(&f.config.Patience, "start-timeout", 90*time.Second, "how long the pods have to start")
	f.output.register(cmd)
	return cmd
}

func (f *clusterPerfFlags) run(cmd *cobra.Command) (err error) {
	if f.config.API, err = clusterOf(f.reach.config); err != nil {
		return err
	}
	show := progressOf(cmd.ErrOrStderr())
	f.config.Progress = show.say
	report, err := perf.Run(cmd.Context(), f.config)
	show.end()
	if err != nil && len(report.Pairs) == 0 {
		return err
	}
	if errPrint := f.print(cmd.OutOrStdout(), report); errPrint != nil || err != nil {
		return errors.Join(err, errPrint)
	}
	if report.Failed() {
		return &exitError{code: clusterNo}
	}
	return nil
}

func (f *clusterPerfFlags) print(w io.Writer, r *perf.Report) error {
	if f.output.json() {
		return printJSON(w, r)
	}
	return r.Print(w)
}
