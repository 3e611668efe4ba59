package main

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"github.com/middleway-net/middleway/lab/tool"
)

const pingHelp = `Sends ICMP echo requests and shows the replies, their round-trip times, and the ICMP errors with who sent them. Ctrl-C ends it and
prints the summary. It uses raw sockets where it may (root, a pod), else the datagram sockets of net.ipv4.ping_group_range.

With --trace it shows the routers on the way: -c requests (3) with each TTL up to -t (30).

Exit codes: 0 a reply came (--trace: from the host itself), 1 none came, 2 it could not be asked.`

// pingFlags are the options of ping(8) that are of use in a pod.
type pingFlags struct {
	tool.PingConfig
	family         familyFlags
	interval, wait secondsFlag
	source         string
	discovery      string
	trace          bool
	output         outputFlag
}

func toolPingCommand() *cobra.Command {
	f := pingFlags{interval: secondsFlag(time.Second), wait: secondsFlag(time.Second)}
	cmd := &cobra.Command{
		Use:   "ping [flags] HOST",
		Short: "Send ICMP echo requests, or find the routers on the way",
		Long:  pingHelp,
		Example: `  middleway tool ping -c 3 10.244.2.2
  middleway tool ping -M do -s 1422 10.244.2.2     # 1450 bytes, not to be cut
  middleway tool ping --trace fd00:10:244:2::2
  middleway tool ping -c 100 -i 0.01 -o json 10.244.2.2 | jq .lossPercent`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return wrong("tool ping: want one host, as in `%s 10.244.2.2`", cmd.CommandPath())
			}
			return f.run(cmd, args[0])
		},
	}
	flags := cmd.Flags()
	flags.IntVarP(&f.Count, "count", "c", 0, "number of requests; default without end, with --trace 3")
	flags.VarP(&f.interval, "interval", "i", "time between requests, like 0.2 or 200ms")
	flags.VarP(&f.wait, "wait", "W", "how long the last replies, with --trace each, are waited for")
	flags.IntVarP(&f.Size, "size", "s", 56, "payload in bytes; headers add 28, with IPv6 48")
	flags.IntVarP(&f.TTL, "ttl", "t", 0, "TTL of the requests (default the kernel's), with --trace the largest (default 30)")
	flags.StringVarP(&f.discovery, "pmtudisc", "M", "", "do: never to be cut; want: cut by this machine alone; dont: by routers too; probe: never, and whatever is known of the path")
	flags.StringVarP(&f.source, "source", "I", "", "address or interface to ask from")
	flags.BoolVar(&f.trace, "trace", false, "show the routers on the way")
	f.family.register(cmd)
	f.output.register(cmd)
	return cmd
}

func (f *pingFlags) run(cmd *cobra.Command, host string) error {
	if f.Count < 0 {
		return wrong("tool ping: -c %d: want a number of requests", f.Count)
	}
	f.Interval, f.Wait, f.Discovery = time.Duration(f.interval), time.Duration(f.wait), tool.PathMTU(f.discovery)
	f.Source, f.Device = netip.Addr{}, ""
	if a, err := netip.ParseAddr(f.source); err == nil {
		f.Source = a
	} else {
		f.Device = f.source
	}
	addr, err := f.family.resolve(cmd.Context(), host)
	if err != nil {
		return wrong("tool ping: %w", err)
	}
	p, err := tool.NewPinger(addr, f.PingConfig)
	if err != nil {
		return wrong("tool ping: %w", err)
	}
	defer p.Close()
	if f.trace {
		return f.runTrace(cmd, p, addr)
	}
	return f.runPing(cmd, p, addr)
}

func (f *pingFlags) runPing(cmd *cobra.Command, p *tool.Pinger, addr netip.Addr) error {
	w := cmd.OutOrStdout()
	answers := []tool.Answer{}
	tell := func(a tool.Answer) { answers = append(answers, a) }
	if !f.output.json() {
		fmt.Fprintf(w, "PING %v: %d data bytes\n", addr, f.Size)
		tell = func(a tool.Answer) { fmt.Fprintln(w, a) }
	}
	summary, err := p.Run(cmd.Context(), tell)
	if f.output.json() {
		fmt.Fprintln(w, toJSON(struct {
			tool.PingSummary
			Loss    float64       `json:"lossPercent"`
			Answers []tool.Answer `json:"answers"`
		}{summary, summary.Loss(), answers}))
	} else {
		fmt.Fprintf(w, "\n--- %v ping statistics ---\n%v\n", addr, summary)
	}
	switch {
	case err != nil:
		return wrong("tool ping: %w", err)
	case summary.Received == 0:
		return &exitError{code: toolNo}
	}
	return nil
}

func (f *pingFlags) runTrace(cmd *cobra.Command, p *tool.Pinger, addr netip.Addr) error {
	w := cmd.OutOrStdout()
	c := tool.TraceConfig{Hops: f.TTL, Probes: f.Count, Wait: f.Wait}
	hops := []tool.Hop{}
	tell := func(h tool.Hop) { hops = append(hops, h) }
	if !f.output.json() {
		fmt.Fprintf(w, "way to %v, %d data bytes\n", addr, f.Size)
		tell = func(h tool.Hop) { fmt.Fprintln(w, h) }
	}
	reached, err := p.Trace(cmd.Context(), c, tell)
	if f.output.json() {
		fmt.Fprintln(w, toJSON(struct {
			Address netip.Addr `json:"address"`
			Reached bool       `json:"reached"`
			Hops    []tool.Hop `json:"hops"`
		}{addr, reached, hops}))
	}
	switch {
	case err != nil:
		return wrong("tool ping: %w", err)
	case !reached:
		return &exitError{code: toolNo}
	}
	return nil
}
