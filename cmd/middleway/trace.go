package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/middleway-net/middleway/lab/demo"
	"github.com/middleway-net/middleway/lab/trace"
)

func traceCommand(at reach) *cobra.Command {
	var r trace.Request
	var output string
	cmd := &cobra.Command{
		Use:   "trace [flags] [NAMESPACE/]POD DESTINATION[:PORT]",
		Short: "Show every decision on a packet's way from a pod",
		Long: `Shows what would become of a packet: which address its name has, which Service and backend, as what it goes on, by which route
and how it is encapsulated, each with the reason, on the pod's node and on the node where it goes on. Nothing is sent: the daemons
run a packet of their own through the functions that forward real ones, so the answer is theirs and not a guess of this command.
A backend is chosen anew each time.

DESTINATION is an address, a Service (web, web.shop, web.shop.svc.cluster.local), a pod (web-0, pod/web-0, pod/shop/web-0), or any
other name. PORT is a number, or the name of a Service's port. Without it a Service's first port is meant, else it is a ping.

The exit code is 0 if the packet arrives, and 1 if it does not.`,
		Example: `  middleway trace shop/visitor front
  middleway trace pod-1-1 10.244.2.2:8080
  middleway trace shop/visitor catalogue:lookup --proto udp
  middleway trace shop/visitor front:81 -o json | jq -r .verdict`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return fmt.Errorf("trace: want a pod and a destination, as in `%s pod-1-1 10.244.2.2:8080`", cmd.CommandPath())
			}
			if err := at.check(cmd); err != nil {
				return saidBy(cmd, err)
			}
			if output != "text" && output != "json" {
				return fmt.Errorf("trace: -o %q: want text or json", output)
			}
			if err := namePod(cmd, args[0], &r.Namespace, &r.Pod); err != nil {
				return err
			}
			r.Destination = args[1]
			c, err := at.cluster(cmd, &r, args[0])
			if err != nil {
				return saidBy(cmd, err)
			}
			t, err := trace.Follow(cmd.Context(), c, r)
			if err != nil {
				return saidBy(cmd, err)
			}
			if err := printTrace(cmd.OutOrStdout(), t, output); err != nil {
				return err
			}
			if !t.Arrives() {
				return errSilent
			}
			return nil
		},
	}
	if at.plugin {
		cmd.Example = `  kubectl middleway trace -n shop visitor front
  kubectl middleway trace shop/visitor catalogue:lookup --proto udp
  kubectl middleway trace pod/visitor 10.96.0.10:53 -o json | jq -r .verdict`
	}
	at.register(cmd)
	cmd.ValidArgsFunction = at.completePods
	flags := cmd.Flags()
	flags.StringVarP(&r.Namespace, "namespace", "n", "default", "namespace of the pod")
	flags.StringVar(&r.Proto, "proto", "", "tcp, udp, sctp or icmp; default that of the Service's port, else tcp, without a port icmp")
	flags.Uint16Var(&r.SrcPort, "source-port", 0, "port that the packet comes from; default 49152")
	flags.BoolVarP(&r.IPv6, "ipv6", "6", false, "names stand for their IPv6 addresses")
	flags.StringVarP(&output, "output", "o", "text", "text or json")
	return cmd
}

// cluster returns where a packet of the pod that arg names is followed.
func (r *reach) cluster(cmd *cobra.Command, req *trace.Request, arg string) (trace.Cluster, error) {
	if !r.meansCluster(cmd) {
		return trace.Playground(cmd.Context(), r.dir)
	}
	c, err := r.open(cmd, nil)
	if err != nil {
		return nil, err
	}
	if !cmd.Flags().Changed("namespace") && !namesNamespace(arg) {
		req.Namespace = c.Namespace()
	}
	return trace.Kubernetes(c), nil
}

func printTrace(w io.Writer, t *trace.Trace, output string) error {
	if output == "json" {
		return printJSON(w, t)
	}
	style := trace.Style{Width: textWidth(w)}
	if wantsColor(w) {
		style.Paint = func(style, words string) string { return "\x1b[" + style + "m" + words + "\x1b[0m" }
	}
	if !utf8Locale() {
		w = demo.ASCII{W: w}
	}
	return t.Write(w, style)
}
