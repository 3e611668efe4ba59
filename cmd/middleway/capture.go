package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/capture"
	"github.com/middleway-net/middleway/lab/playground"
	"github.com/middleway-net/middleway/node"
)

// captureFlags are what a person asks `middleway capture` for.
type captureFlags struct {
	reach
	namespace, file, output string
	hosts, protos           []string
	ports                   []uint
	drops                   bool
	snapLen, count          int
	duration                time.Duration
}

func captureCommand(r reach) *cobra.Command {
	f := captureFlags{reach: r}
	cmd := &cobra.Command{
		Use:   "capture [flags] [POD | NODE | tunnel]",
		Short: "Show packets with what was decided about them, or write them for Wireshark",
		Long: `Shows the packets of a pod, of a node, of the tunnel between the nodes, or of everything, in the cluster of middleway up or, with
--run-dir, at one node daemon: each where the node took it, with what was decided and why, and again where it went out. With -w it
writes them as pcapng instead, with an interface for each pod, the host (mw0), the gateway and the tunnel, and the decision as each
packet's comment.

A flag that is given several times takes any of its values; of different flags all have to match. Addresses and ports are those of
the packets themselves; in the tunnel also the nodes' addresses count. Fragments but the first have no ports.

What cannot be shown fast enough is left out and counted; packets never wait. Only the daemon's owner, and root, may capture.`,
		Example: `  middleway capture                                  # everything, live
  middleway capture web-0 --port 80
  middleway capture node-1 --drops
  middleway capture tunnel -w tunnel.pcapng -c 1000
  middleway capture -w - | wireshark -k -i -
  middleway capture -w all.pcapng --duration 10s && tshark -r all.pcapng -T fields -e frame.interface_name -e frame.comment
  middleway capture --run-dir /run/middleway tunnel  # at a node daemon`,
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := f.checkAll(cmd, args)
			if err != nil {
				return wrong("capture: %w", err)
			}
			return f.run(cmd, strings.Join(args, ""), req)
		},
	}
	if r.plugin {
		cmd.Long = `Shows the packets of a pod, of a node, of the tunnel between the nodes, or of everything: each where the node took it, with what was
decided and why, and again where it went out. With -w it writes them as pcapng instead, with an interface for each pod, the host
(mw0), the gateway and the tunnel, and the decision as each packet's comment. A pod is POD, NAMESPACE/POD or pod/POD, a node NODE or
node/NODE.

A flag that is given several times takes any of its values; of different flags all have to match. Addresses and ports are those of
the packets themselves; in the tunnel also the nodes' addresses count. Fragments but the first have no ports.

What cannot be sent fast enough is left out and counted; packets never wait.`
		cmd.Example = `  kubectl middleway capture web-0 --port 80
  kubectl middleway capture -n shop front-0 -w - | wireshark -k -i -
  kubectl middleway capture node/worker-1 --drops
  kubectl middleway capture tunnel -w tunnel.pcapng -c 1000`
	}
	cmd.SetFlagErrorFunc(wrongFlag)
	f.register(cmd)
	cmd.ValidArgsFunction = f.completeCapture
	flags := cmd.Flags()
	flags.StringVarP(&f.file, "write", "w", "", "write pcapng to this file, - for standard output")
	flags.StringVarP(&f.output, "output", "o", "text", "without -w: text, or json for an object a line")
	flags.StringArrayVar(&f.hosts, "host", nil, "only from or to this address or range, like 10.244.1.2 or 10.244.0.0/16")
	flags.UintSliceVar(&f.ports, "port", nil, "only from or to this port of TCP, UDP or SCTP")
	flags.StringSliceVar(&f.protos, "proto", nil, "only of this protocol: tcp, udp, icmp, icmpv6, sctp or a number")
	flags.BoolVar(&f.drops, "drops", false, "only what is dropped")
	flags.IntVarP(&f.count, "count", "c", 0, "end after so many packets; default 0: none")
	flags.DurationVar(&f.duration, "duration", 0, "end after this time; default 0: at Ctrl-C")
	flags.IntVarP(&f.snapLen, "snaplen", "s", 0, "keep so many bytes of each packet; default 0: all")
	flags.StringVarP(&f.namespace, "namespace", "n", "default", "namespace of the pod")
	return cmd
}

// checkAll returns what is asked for, or what is wrong with the command line.
func (f *captureFlags) checkAll(cmd *cobra.Command, args []string) (req capture.Request, err error) {
	if err := f.check(cmd); err != nil {
		return req, err
	}
	switch {
	case len(args) > 1:
		return req, fmt.Errorf("%q: want one pod or node, or tunnel", args)
	case f.output != "text" && f.output != "json":
		return req, fmt.Errorf("-o %q: want text or json", f.output)
	case f.file != "" && cmd.Flags().Changed("output"):
		return req, errors.New("-o is for lines, and -w writes pcapng; give one of them")
	}
	if o, ok := cmd.OutOrStdout().(*os.File); ok && f.file == "-" && isTerminal(o) {
		return req, errors.New("-w - writes pcapng, which is nothing for a terminal; put `| wireshark -k -i -` or `> FILE` behind it")
	}
	if f.file != "-" {
		if err := canBeMade("-w", f.file); err != nil {
			return req, err
		}
	}
	return f.request()
}

func (f *captureFlags) run(cmd *cobra.Command, what string, req capture.Request) error {
	sources, missing, err := f.sources(cmd, what)
	if err != nil {
		return err
	}
	streams, err := begin(cmd.Context(), sources, req)
	if err != nil {
		return fmt.Errorf("capture: %w", err)
	}
	sink, finish, err := f.sink(cmd, what)
	if err != nil {
		for _, s := range streams {
			err = errors.Join(err, s.Close())
		}
		return err
	}
	ctx := cmd.Context()
	if f.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.duration)
		defer cancel()
	}
	fmt.Fprintln(cmd.ErrOrStderr(), f.started(streams))
	totals, err := capture.Merge(ctx, streams, sink, capture.Options{
		Count: f.count, Problem: func(err error) { fmt.Fprintln(cmd.ErrOrStderr(), "middleway:", err) },
		Ended: func(nodes []string, reason string) {
			fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s, and with it this capture\n", strings.Join(nodes, ", "), reason)
		},
	})
	err = errors.Join(err, finish())
	if err != nil {
		return fmt.Errorf("capture: %w", err)
	}
	lost := "none was lost"
	if totals.Lost > 0 {
		lost = fmt.Sprintf("%d were lost, for they came faster than they could be taken: --host, --port, --drops and --snaplen make it less", totals.Lost)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%d packets, %s\n", totals.Records, lost)
	if missing {
		return errSilent
	}
	return nil
}

// request returns what the flags ask for.
func (f *captureFlags) request() (req capture.Request, err error) {
	if f.count < 0 || f.snapLen < 0 || f.duration < 0 {
		return req, errors.New("--count, --snaplen and --duration want 0 or more")
	}
	req = capture.Request{Drops: f.drops, SnapLen: f.snapLen}
	for _, s := range f.hosts {
		p, err := parseHost(s)
		if err != nil {
			return req, err
		}
		req.Hosts = append(req.Hosts, p)
	}
	for _, p := range f.ports {
		if p < 1 || p > 65535 {
			return req, fmt.Errorf("--port %d: want 1 to 65535", p)
		}
		req.Ports = append(req.Ports, uint16(p))
	}
	for _, s := range f.protos {
		p, err := parseProto(s)
		if err != nil {
			return req, err
		}
		req.Protos = append(req.Protos, p)
	}
	return req, nil
}

// parseHost reads an address or a range.
func parseHost(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() {
		return p, fmt.Errorf("--host %q: want an address like 10.244.1.2, or a range like 10.244.0.0/16", s)
	}
	return p.Masked(), nil
}

var protoNumbers = map[string]uint8{"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "icmp6": 58, "sctp": 132}

func parseProto(s string) (uint8, error) {
	if n, ok := protoNumbers[strings.ToLower(s)]; ok {
		return n, nil
	}
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil {
		return 0, fmt.Errorf("--proto %q: want tcp, udp, icmp, icmpv6, sctp or a number up to 255", s)
	}
	return uint8(n), nil
}

// target is a node of the playground, and what is wanted of it; all for none.
type target struct {
	runDir     string
	interfaces []string
}

// targets returns where what a person named is.
func (f *captureFlags) targets(cmd *cobra.Command, what string) ([]target, error) {
	if cmd.Flags().Changed("run-dir") {
		return f.daemon(what), nil
	}
	st, err := playground.ReadStatus(cmd.Context(), f.dir)
	if errors.Is(err, playground.ErrNotRunning) && !cmd.Flags().Changed("dir") {
		if _, asked := node.ReadStatus(cmd.Context(), f.runDir); asked == nil {
			return f.daemon(what), nil
		}
		return nil, f.nobody(err)
	}
	if err != nil {
		return nil, err
	}
	return f.inCluster(st, what)
}

// daemon is one node's daemon.
func (f *captureFlags) daemon(what string) []target {
	t := target{runDir: f.runDir}
	if what != "" {
		t.interfaces = []string{what}
	}
	return []target{t}
}

const tunnel = "tunnel"

func (f *captureFlags) inCluster(st playground.Status, what string) ([]target, error) {
	var all []target
	var names []string
	for _, n := range st.Nodes {
		names = append(names, n.Name)
		switch what {
		case "":
			all = append(all, target{runDir: n.RunDir})
		case tunnel:
			all = append(all, target{n.RunDir, []string{tunnel}})
		case n.Name:
			return []target{{runDir: n.RunDir}}, nil
		}
	}
	if what == "" || what == tunnel {
		return all, nil
	}
	namespace, name, found := strings.Cut(what, "/")
	if !found {
		namespace, name = f.namespace, what
	}
	for _, p := range st.Pods {
		if p.Namespace != namespace || p.Name != name {
			continue
		}
		if p.HostNetwork {
			return nil, fmt.Errorf("capture: pod %s/%s has the network of %s and no interface of its own; `middleway capture %[3]s` shows the node's", namespace, name, p.Node)
		}
		i := slices.IndexFunc(st.Nodes, func(n playground.NodeStatus) bool { return n.Name == p.Node })
		if i < 0 {
			return nil, fmt.Errorf("capture: pod %s/%s is on no node: %s", namespace, name, p.Reason())
		}
		return []target{{st.Nodes[i].RunDir, []string{namespace + "/" + name}}}, nil
	}
	return nil, fmt.Errorf("capture: there is no node and no pod %s/%s; the nodes are %s, and `middleway status` lists the pods", namespace, name, strings.Join(names, ", "))
}

// sink returns where packets are written to, and what ends it.
func (f *captureFlags) sink(cmd *cobra.Command, what string) (capture.Sink, func() error, error) {
	stdout, nothing := cmd.OutOrStdout(), func() error { return nil }
	switch {
	case f.file == "" && f.output == "json":
		return capture.NewJSON(stdout), nothing, nil
	case f.file == "":
		return capture.NewText(stdout), nothing, nil
	}
	config := capture.FileConfig{
		Application: "middleway " + version, Comment: strings.TrimSpace("middleway capture " + what), Filter: f.filter(), SnapLen: f.snapLen,
	}
	if f.file == "-" {
		sink, err := capture.NewFile(stdout, config)
		return sink, nothing, err
	}
	// What is in packets is nobody's business but the owner's.
	file, err := os.OpenFile(f.file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("capture: %w", err)
	}
	sink, err := capture.NewFile(io.Writer(file), config)
	return sink, file.Close, err
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// filter returns the flags that choose packets, as a person would type them.
func (f *captureFlags) filter() string {
	var parts []string
	for _, h := range f.hosts {
		parts = append(parts, "--host "+h)
	}
	for _, p := range f.ports {
		parts = append(parts, fmt.Sprint("--port ", p))
	}
	for _, p := range f.protos {
		parts = append(parts, "--proto "+p)
	}
	if f.drops {
		parts = append(parts, "--drops")
	}
	return strings.Join(parts, " ")
}

// started says what is captured.
func (f *captureFlags) started(streams []*capture.Stream) string {
	interfaces := 0
	var nodes []string
	for _, s := range streams {
		interfaces += len(s.Start.Interfaces)
		nodes = append(nodes, s.Start.Node)
	}
	noun := "interfaces"
	if interfaces == 1 {
		noun = "interface"
	}
	s := fmt.Sprintf("capturing at %d %s of %s", interfaces, noun, strings.Join(nodes, ", "))
	if f.file != "" && f.file != "-" {
		s += ", to " + f.file
	}
	return s + "; Ctrl-C ends it"
}
