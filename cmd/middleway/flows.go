package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/middleway-net/middleway/lab/playground"
	"github.com/middleway-net/middleway/node"
)

// flowsFlags are what a person asks `middleway flows` for.
type flowsFlags struct {
	reach
	namespace, output  string
	from, to, services []string
	follow             bool

	pods  func(namespace, name string) ([]netip.Addr, error) // nil where none are known
	names map[string]string                                  // of nodes, by what a daemon calls them as a peer
}

func flowsCommand(r reach) *cobra.Command {
	f := flowsFlags{reach: r}
	cmd := &cobra.Command{
		Use:   "flows [flags] [NODE]",
		Short: "Show the live flows of the nodes: who speaks to whom, through which Service, and where packets go",
		Long: `Shows the flows that the nodes know, in the cluster of middleway up or, with --run-dir, at one node daemon: who opened it, what
it was opened to, for a Service its backend, where packets go, how far it has come, and how long ago it began and had its last packet.
A flow between two nodes is known to both. With --follow it goes on with those that come, change their state, and go.

A flag that is given several times takes any of its values; of different flags all have to match.`,
		Example: `  middleway flows
  middleway flows node-1 --service shop/front
  middleway flows --from shop/visitor --follow
  middleway flows --to 10.96.0.0/16 -o json | jq -r .leavesAs.dst
  middleway flows --run-dir /run/middleway`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("flows: %q: want one node", args)
			}
			if f.output != "text" && f.output != "json" {
				return fmt.Errorf("flows: -o %q: want text or json", f.output)
			}
			if err := f.check(cmd); err != nil {
				return saidBy(cmd, err)
			}
			err := f.run(cmd, slices.Concat(args, []string{""})[0])
			if cmd.Context().Err() != nil {
				return &exitError{exitInterrupted, nil}
			}
			return saidBy(cmd, err)
		},
	}
	if r.plugin {
		cmd.Long = `Shows the flows that the nodes know, or one of them: who opened it, what it was opened to, for a Service its backend, where packets
go, how far it has come, and how long ago it began and had its last packet. A flow between two nodes is known to both. With --follow
it goes on with those that come, change their state, and go.

A flag that is given several times takes any of its values; of different flags all have to match. The exit code is 1 if a daemon could
not be asked.`
		cmd.Example = `  kubectl middleway flows -n shop --service front
  kubectl middleway flows worker-1 --from shop/visitor --follow
  kubectl middleway flows --to 10.96.0.0/16 -o json | jq -r .leavesAs.dst`
	}
	f.register(cmd)
	cmd.ValidArgsFunction = f.completeNodes
	flags := cmd.Flags()
	flags.BoolVarP(&f.follow, "follow", "f", false, "go on with flows that come, change and go, until Ctrl-C")
	flags.StringArrayVar(&f.from, "from", nil, "only opened by this address, range or pod")
	flags.StringArrayVar(&f.to, "to", nil, "only opened to this address, range or pod, or led there by a Service")
	flags.StringArrayVar(&f.services, "service", nil, "only through this Service, NAME or NAMESPACE/NAME, with :PORT through this port of it")
	flags.StringVarP(&f.namespace, "namespace", "n", "default", "namespace of pods and Services that name none")
	flags.StringVarP(&f.output, "output", "o", "text", "text, or json for an object a line")
	return cmd
}

func (f *flowsFlags) run(cmd *cobra.Command, name string) error {
	if f.meansCluster(cmd) {
		return f.runRemote(cmd, name)
	}
	runDirs, err := f.targets(cmd, name)
	if err != nil {
		return err
	}
	req, err := f.request()
	if err != nil {
		return err
	}
	p := f.printer(cmd)
	g, ctx := errgroup.WithContext(cmd.Context())
	for _, dir := range runDirs {
		g.Go(func() error { return node.In(dir).Flows(ctx, req, p.see) })
	}
	return errors.Join(g.Wait(), p.end())
}

func (f *flowsFlags) printer(cmd *cobra.Command) *flowPrinter {
	return &flowPrinter{w: cmd.OutOrStdout(), json: f.output == "json", follow: f.follow, names: f.names}
}

// targets returns the run directories of the daemons that are asked.
func (f *flowsFlags) targets(cmd *cobra.Command, name string) (runDirs []string, err error) {
	if cmd.Flags().Changed("run-dir") {
		return []string{f.runDir}, nil
	}
	st, err := playground.ReadStatus(cmd.Context(), f.dir)
	if errors.Is(err, playground.ErrNotRunning) && !cmd.Flags().Changed("dir") {
		if _, asked := node.ReadStatus(cmd.Context(), f.runDir); asked == nil {
			return []string{f.runDir}, nil
		}
		return nil, f.nobody(err)
	}
	if err != nil {
		return nil, err
	}
	f.pods, f.names = podsOf(st.Pods), map[string]string{}
	var names []string
	for _, n := range st.Nodes {
		f.names["peer "+n.Underlay.String()] = "peer " + n.Name
		names = append(names, n.Name)
		if name == "" || name == n.Name {
			runDirs = append(runDirs, n.RunDir)
		}
	}
	if len(runDirs) == 0 {
		return nil, fmt.Errorf("there is no node %s; the nodes are %s", name, strings.Join(names, ", "))
	}
	return runDirs, nil
}

// errNoPod says that there is no such pod.
var errNoPod = errors.New("there is no such pod")

// podsOf finds a playground's pods.
func podsOf(pods []playground.PodStatus) func(namespace, name string) ([]netip.Addr, error) {
	return func(namespace, name string) ([]netip.Addr, error) {
		i := slices.IndexFunc(pods, func(p playground.PodStatus) bool { return p.Namespace == namespace && p.Name == name })
		if i < 0 {
			return nil, errNoPod
		}
		return pods[i].IPs, nil
	}
}

// request returns what the flags ask for.
func (f *flowsFlags) request() (req node.FlowsRequest, err error) {
	req.Follow = f.follow
	if req.From, err = f.ranges("from", f.from); err != nil {
		return req, err
	}
	if req.To, err = f.ranges("to", f.to); err != nil {
		return req, err
	}
	for _, s := range f.services {
		if !strings.Contains(s, "/") {
			s = f.namespace + "/" + s
		}
		req.Services = append(req.Services, s)
	}
	return req, nil
}

// ranges reads addresses, ranges and names of pods.
func (f *flowsFlags) ranges(flag string, words []string) (all []netip.Prefix, err error) {
	for _, word := range words {
		if addr, err := netip.ParseAddr(word); err == nil && addr.Zone() == "" {
			all = append(all, netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()))
			continue
		}
		if p, err := netip.ParsePrefix(word); err == nil && !p.Addr().Is4In6() {
			all = append(all, p.Masked())
			continue
		}
		namespace, name, found := strings.Cut(word, "/")
		if !found {
			namespace, name = f.namespace, word
		}
		want := fmt.Errorf("--%s %q: want an address like 10.244.1.2, a range like 10.244.0.0/16, or a pod of this cluster", flag, word)
		if f.pods == nil || name == "" || strings.Contains(name, "/") {
			return nil, want
		}
		addrs, err := f.pods(namespace, name)
		switch {
		case errors.Is(err, errNoPod):
			return nil, want
		case err != nil:
			return nil, err
		}
		for _, addr := range addrs {
			all = append(all, netip.PrefixFrom(addr, addr.BitLen()))
		}
	}
	return all, nil
}

// flowPrinter prints what the daemons tell: a table at the end, or lines as they come.
type flowPrinter struct {
	w            io.Writer
	json, follow bool
	names        map[string]string // in place of a flow's To

	mu   sync.Mutex
	rows []node.FlowEvent
}

func (p *flowPrinter) see(e node.FlowEvent) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if name, ok := p.names[e.To]; ok && !p.json {
		e.To = name
	}
	switch {
	case p.json:
		return json.NewEncoder(p.w).Encode(e)
	case p.follow:
		_, err := fmt.Fprintln(p.w, followLine(time.Now(), e))
		return err
	}
	p.rows = append(p.rows, e)
	return nil
}

// end prints the table, the flows that had a packet last first.
func (p *flowPrinter) end() error {
	if p.json || p.follow {
		return nil
	}
	slices.SortStableFunc(p.rows, func(a, b node.FlowEvent) int {
		return compareAll(strings.Compare(a.Node, b.Node), int(a.Idle-b.Idle), int(a.Age-b.Age), strings.Compare(a.Tuple.String(), b.Tuple.String()))
	})
	table := [][]string{{"NODE", "PROTO", "FROM", "TO", "SERVICE", "BACKEND", "GOES TO", "STATE", "AGE", "IDLE"}}
	for _, e := range p.rows {
		table = append(table, append([]string{e.Node}, flowCells(e)...))
	}
	if len(table) == 1 {
		_, err := fmt.Fprintln(p.w, "no such flow")
		return err
	}
	return printRows(p.w, table)
}

// compareAll returns the first that is not 0.
func compareAll(results ...int) int {
	for _, r := range results {
		if r != 0 {
			return r
		}
	}
	return 0
}

// flowCells are a row but for the node.
func flowCells(f node.FlowEvent) []string {
	from, backend := f.Src.String(), "-"
	if as := f.LeavesAs; as != nil {
		if as.Dst != f.Dst {
			backend = as.Dst.String()
		}
		if as.Src != f.Src {
			from += " as " + as.Src.String()
		}
	}
	service := f.Service
	if service == "" {
		service = "-"
	}
	return []string{f.Protocol, from, f.Dst.String(), service, backend, f.To, f.State, seconds(f.Age), seconds(f.Idle)}
}

func seconds(d time.Duration) string { return d.Round(time.Second).String() }

// followLine is a line of --follow.
func followLine(now time.Time, e node.FlowEvent) string {
	change := e.Change
	if change == "" {
		change = "there"
	}
	line := fmt.Sprintf("%s %s %-7s %s", now.Format("15:04:05.000"), e.Node, change, e.Tuple)
	if e.LeavesAs != nil {
		line += " as " + strings.TrimPrefix(e.LeavesAs.String(), e.LeavesAs.Protocol+" ")
	}
	if e.Service != "" {
		line += ", " + e.Service
	}
	line += ", to " + e.To + ", " + e.State
	if e.Change == node.FlowWent {
		line += ", after " + seconds(e.Age)
	}
	return line
}
