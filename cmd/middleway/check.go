package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/middleway-net/middleway/cluster"
	"github.com/middleway-net/middleway/cluster/check"
	"github.com/middleway-net/middleway/k8s/remote"
)

// Exit codes of what is asked about a whole cluster: the answer is no, or it could not be asked.
const (
	clusterNo    = toolNo
	clusterWrong = toolWrong
)

const checkHelp = `Finds out whether the network of a cluster works, from and to every node, by what pods do: it makes a namespace of its own, with two
pods on each node (one of them with hostNetwork) and some Services, has every pod ask the others, and removes it all, after Ctrl-C as well.

  Pods             on the same node and on others: TCP, UDP, the largest packets, 64 KiB, and whose address the server sees
  Pods and nodes   both ways; and the nodes among each other without the pod network, to compare
  Services         ClusterIP from pods and nodes, and a pod's own Service, which leads back to it
  Names            of Services, headless ones and their SRV records, addresses' names
  Ports of nodes   hostPort and NodePort, through every node
  Beyond           the API server, and what --outside names

In both families where pods have two. Each line is a verdict; those that failed say what to look at next. The pods are of the image of the
cluster's daemons and have no rights. docs/check.md is the manual, and lists the rights that it takes.

Exit codes: 0 everything works, 1 something does not, 2 it could not be found out, 130 interrupted.`

type checkFlags struct {
	reach   reach
	config  check.Config
	cleanup bool
	output  outputFlag
}

func checkCommand(r reach) *cobra.Command {
	f := checkFlags{reach: r}
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check the network of a cluster, from and to every node",
		Long:  checkHelp,
		Example: `  middleway check
  middleway check --context prod --outside example.com:443
  middleway check -l topology.kubernetes.io/zone=a --targets 100
  middleway check -o json | jq '.checks[] | select(.state == "failed")'
  middleway check --cleanup`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return ofCluster(cmd, f.run(cmd)) },
	}
	flags := cmd.Flags()
	f.reach.registerCluster(cmd)
	flags.StringVar(&f.config.Image, "image", "", "image with middleway for the pods; default that of the cluster's daemons")
	flags.StringToStringVarP(&f.config.Selector, "selector", "l", nil, "only nodes with these labels, like topology.kubernetes.io/zone=a")
	flags.IntVar(&f.config.Targets, "targets", 16, "how many nodes each node asks at most")
	flags.Uint16Var(&f.config.FirstPort, "first-port", 0, "the first of four ports of the nodes that it takes (default at random, from 20000 on)")
	flags.StringArrayVar(&f.config.Outside, "outside", nil, "HOST:PORT outside of the cluster to be reached by TCP; may be given several times")
	flags.DurationVar(&f.config.Timeout, "timeout", 6*time.Second, "how long each answer is waited for, over three tries")
	flags.DurationVar(&f.config.Patience, "start-timeout", 90*time.Second, "how long the pods have to start")
	flags.BoolVar(&f.config.Keep, "keep", false, "leave the namespace, to look further")
	flags.BoolVar(&f.cleanup, "cleanup", false, "remove the namespaces of former runs, and end")
	f.output.register(cmd)
	return cmd
}

func (f *checkFlags) run(cmd *cobra.Command) (err error) {
	if f.config.API, err = clusterOf(f.reach.config); err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	if f.cleanup {
		names, err := check.Cleanup(cmd.Context(), f.config.API)
		for _, name := range names {
			fmt.Fprintf(out, "namespace %s is being removed\n", name)
		}
		return err
	}
	show := progressOf(cmd.ErrOrStderr())
	f.config.Progress = show.say
	report, err := check.Run(cmd.Context(), f.config)
	show.end()
	if err != nil && len(report.Checks) == 0 {
		return err
	}
	if errPrint := f.print(out, report); errPrint != nil || err != nil {
		return errors.Join(err, errPrint)
	}
	if !report.Passed {
		return &exitError{code: clusterNo}
	}
	return nil
}

func (f *checkFlags) print(w io.Writer, r *check.Report) error {
	if f.output.json() {
		return printJSON(w, r)
	}
	return r.Print(w, check.Style{Color: wantsColor(w), Width: textWidth(w)})
}

// clusterOf is the cluster of a kubeconfig.
func clusterOf(c *remote.Config) (*cluster.API, error) {
	r, err := remote.New(*c)
	if err != nil {
		return nil, err
	}
	return &cluster.API{
		REST: r.Core(), Server: r.Server(), Namespace: c.Namespace,
		Run: func(ctx context.Context, where cluster.Container, argv []string, in io.Reader, out, errs io.Writer) error {
			return r.Exec(ctx, remote.Container(where), argv, remote.Streams{Stdin: in, Stdout: out, Stderr: errs})
		},
	}, nil
}

// ofCluster gives an error of a command about a whole cluster its exit code.
func ofCluster(cmd *cobra.Command, err error) error {
	var exit *exitError
	switch {
	case err == nil, errors.As(err, &exit):
		return err
	case cmd.Context().Err() != nil:
		return &exitError{exitInterrupted, fmt.Errorf("%s: interrupted", cmd.Name())}
	}
	return &exitError{clusterWrong, saidBy(cmd, err)}
}

// progress shows on a terminal what goes on; elsewhere nothing.
type progress struct {
	w    io.Writer
	live bool
}

func progressOf(w io.Writer) *progress { return &progress{w, movesCursor(w)} }

func (p *progress) say(words string) {
	if p.live {
		fmt.Fprint(p.w, eraseLine+words)
	}
}

func (p *progress) end() { p.say("") }
