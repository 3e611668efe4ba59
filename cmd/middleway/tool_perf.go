package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/middleway-net/middleway/lab/perf"
)

const perfHelp = `Measures the network between two machines or pods: on one of them runs the server, on the other the client, which sends.

Without a choice it measures TCP streams. --udp sends datagrams as fast as it can, so that what arrives is what the way can
carry. --latency asks for a byte and waits for it, again and again; --connections connects, asks once and closes. The figures
are of the time after a warm-up of 200 ms, and of payload. At a terminal there is a line each second. Time of the processor is
that of the two programs; what the kernel does for them in interrupts may be missing from it.`

func toolPerfCommand() *cobra.Command {
	f := perfFlags{time: secondsFlag(10 * time.Second)}
	cmd := &cobra.Command{
		Use:   "perf [flags] HOST[:PORT] | --serve",
		Short: "Measure throughput, packets per second, latency, connections per second",
		Long:  perfHelp,
		Example: `  middleway tool perf --serve                               # in one pod
  middleway tool perf 10.244.2.2                            # in another: TCP for 10 seconds
  middleway tool perf 10.244.2.2 --streams 8 --time 3
  middleway tool perf 10.244.2.2 --udp --size 64            # packets per second
  middleway tool perf 10.244.2.2 --latency --udp
  middleway tool perf [fd00:10:244:2::2]:5210 --connections -o json | jq .requestsPerSecond`,
		RunE: f.run,
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.serve, "serve", false, "be the server")
	flags.StringVar(&f.listen, "listen", ":"+strconv.Itoa(perf.DefaultPort), "address and port of the server; streams get ports of their own")
	flags.Uint16Var(&f.streamPort, "stream-port", 0, "port of the server at which all streams of TCP arrive, for a Service or a firewall (default one that is free)")
	flags.Lookup("stream-port").DefValue = ""
	flags.Var(&f.to, "to", "ADDRESS:PORT by which streams of TCP reach the server's --stream-port, for example a Service's (default the server's own)")
	flags.BoolVar(&f.udp, "udp", false, "datagrams in place of TCP")
	flags.BoolVar(&f.latency, "latency", false, "how long a request and its response take")
	flags.BoolVar(&f.connections, "connections", false, "how many connections a second can be made, used once and closed")
	flags.IntVar(&f.test.Size, "size", 0, "bytes of each write, datagram or request; default 131072, 1400, 1")
	flags.IntVar(&f.test.Streams, "streams", 1, fmt.Sprintf("how many at once, up to %d", perf.MaxStreams))
	flags.IntVar(&f.test.Segments, "segments", 1, "datagrams that the kernel takes as one train (UDP_SEGMENT)")
	flags.StringVar(&f.test.Congestion, "congestion", "", "congestion control of both ends, for example cubic; default the kernels'")
	flags.VarP(&f.time, "time", "t", "how long")
	flags.VarP(&f.interval, "interval", "i", "time between two lines (default 1s at a terminal, else none)")
	flags.Lookup("interval").DefValue = ""
	f.family.register(cmd)
	f.output.register(cmd)
	return cmd
}

type perfFlags struct {
	serve                     bool
	listen                    string
	streamPort                uint16
	to                        addrPortFlag
	udp, latency, connections bool
	test                      perf.Test
	time, interval            secondsFlag
	family                    familyFlags
	output                    outputFlag
}

func (f *perfFlags) run(cmd *cobra.Command, args []string) error {
	if f.serve {
		if len(args) > 0 {
			return wrong("tool perf: with --serve there is no %q to connect to", args[0])
		}
		return f.beServer(cmd.Context(), cmd.OutOrStdout())
	}
	if len(args) != 1 {
		return wrong("tool perf: want one HOST[:PORT], on which `middleway tool perf --serve` runs")
	}
	if f.connections && (f.udp || f.latency) {
		return wrong("tool perf: --connections is of TCP, and measures latency too: it goes without --udp and --latency")
	}
	if netip.AddrPort(f.to).IsValid() && f.udp {
		return wrong("tool perf: --to is for streams of TCP, and goes without --udp")
	}
	f.test.Kind, f.test.Time, f.test.Interval = f.kind(), time.Duration(f.time), time.Duration(f.interval)
	if f.test.Interval == 0 && movesCursor(cmd.OutOrStdout()) {
		f.test.Interval = time.Second
	}
	if err := f.test.Check(); err != nil {
		return wrong("tool perf: %w", err)
	}
	server, err := f.resolve(cmd.Context(), args[0])
	if err != nil {
		return wrong("tool perf: %w", err)
	}
	if err := f.measure(cmd.Context(), cmd.OutOrStdout(), server); err != nil {
		return fmt.Errorf("tool perf: %w", err)
	}
	return nil
}

func (f *perfFlags) kind() perf.Kind {
	switch {
	case f.connections:
		return perf.Connections
	case f.latency && f.udp:
		return perf.UDPLatency
	case f.latency:
		return perf.TCPLatency
	case f.udp:
		return perf.UDP
	}
	return perf.TCP
}

// resolve finds the address of HOST[:PORT].
func (f *perfFlags) resolve(ctx context.Context, target string) (netip.AddrPort, error) {
	host, port := target, strconv.Itoa(perf.DefaultPort)
	if _, err := netip.ParseAddr(target); err != nil && strings.Contains(target, ":") {
		if host, port, err = net.SplitHostPort(target); err != nil {
			return netip.AddrPort{}, fmt.Errorf("%q is no HOST[:PORT] like 10.244.2.2, [fd00:10:244:2::2]:5210 or web:5210", target)
		}
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 {
		return netip.AddrPort{}, fmt.Errorf("%q is no port from 1 to 65535", port)
	}
	addr, err := f.family.resolve(ctx, host)
	return netip.AddrPortFrom(addr, uint16(number)), err
}

// beServer runs until ctx ends.
func (f *perfFlags) beServer(ctx context.Context, out io.Writer) error {
	l, err := net.Listen("tcp"+f.family.suffix(), f.listen)
	if err != nil {
		return wrong("tool perf: %w", err)
	}
	fmt.Fprintf(out, "serving on %v\n", l.Addr())
	s := perf.Server{StreamPort: f.streamPort, Tested: func(client net.Addr, t perf.Test, err error) {
		if err != nil {
			fmt.Fprintf(out, "%v: %s: %v\n", client, t.Kind, err)
			return
		}
		fmt.Fprintf(out, "%v: %s for %v\n", client, t.Kind, t.Time)
	}}
	return s.Serve(ctx, l)
}

func (f *perfFlags) measure(ctx context.Context, out io.Writer, server netip.AddrPort) error {
	if f.output.json() {
		r, err := f.client().Run(ctx, server, f.test)
		if err == nil {
			fmt.Fprintln(out, toJSON(newPerfReport(f.test.Kind, r)))
		}
		return err
	}
	fmt.Fprintf(out, "%s to %v for %v\n", f.test.Kind, server, f.test.Time)
	var begin time.Duration
	c := f.client()
	if f.test.Interval > 0 {
		c.Interval = func(_ int, r perf.Result) {
			end := begin + r.Elapsed
			fmt.Fprintf(out, "%5.1f–%.1f s  %s\n", begin.Seconds(), end.Seconds(), perfLine(f.test.Kind, r))
			begin = end
		}
	}
	r, err := c.Run(ctx, server, f.test)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s\n", perfLine(f.test.Kind, r))
	fmt.Fprintf(out, "processor time: client %.2f s, server %.2f s, in %.2f s\n", r.ClientCPU.Seconds(), r.ServerCPU.Seconds(), r.Elapsed.Seconds())
	return nil
}

func (f *perfFlags) client() perf.Client {
	var c perf.Client
	if to := netip.AddrPort(f.to); to.IsValid() {
		c.To = []netip.AddrPort{to}
	}
	return c
}

// perfLine says what was measured.
func perfLine(kind perf.Kind, r perf.Result) string {
	times := fmt.Sprintf("p50 %s, p90 %s, p99 %s, max %s", micros(r.P50), micros(r.P90), micros(r.P99), micros(r.Max))
	switch kind {
	case perf.TCP:
		return fmt.Sprintf("%.2f Gbit/s", r.Gbits())
	case perf.UDP:
		return fmt.Sprintf("%.0f packets/s of %.0f sent, %.1f %% lost, %.2f Gbit/s", r.PacketRate(), r.SendRate(), 100*r.Loss(), r.Gbits())
	case perf.Connections:
		return fmt.Sprintf("%.0f connections/s, %s, %d failed", r.RequestRate(), times, r.Unanswered)
	}
	return fmt.Sprintf("%s, %.0f requests/s, %d unanswered", times, r.RequestRate(), r.Unanswered)
}

func micros(d time.Duration) string { return fmt.Sprintf("%.1f µs", float64(d)/1e3) }

// perfReport is what -o json prints. What the kind does not measure is left out.
type perfReport struct {
	Kind        perf.Kind `json:"kind"`
	Seconds     float64   `json:"seconds"`
	Bytes       int64     `json:"bytes,omitempty"`
	BitRate     float64   `json:"bitsPerSecond,omitempty"`
	Packets     int64     `json:"packets,omitempty"`
	PacketRate  float64   `json:"packetsPerSecond,omitempty"`
	SendRate    float64   `json:"sentPerSecond,omitempty"`
	Requests    int64     `json:"requests,omitempty"`
	RequestRate float64   `json:"requestsPerSecond,omitempty"`
	P50         float64   `json:"p50Ms,omitempty"`
	P90         float64   `json:"p90Ms,omitempty"`
	P99         float64   `json:"p99Ms,omitempty"`
	Max         float64   `json:"maxMs,omitempty"`
	LossPercent float64   `json:"lossPercent"` // of datagrams, requests or connections
	ClientCPU   float64   `json:"clientCPUSeconds"`
	ServerCPU   float64   `json:"serverCPUSeconds"`
}

func newPerfReport(kind perf.Kind, r perf.Result) perfReport {
	return perfReport{
		Kind: kind, Seconds: r.Elapsed.Seconds(), Bytes: r.Bytes, BitRate: r.Gbits() * 1e9,
		Packets: r.Packets, PacketRate: r.PacketRate(), SendRate: r.SendRate(),
		Requests: r.Requests, RequestRate: r.RequestRate(),
		P50: r.P50.Seconds() * 1e3, P90: r.P90.Seconds() * 1e3, P99: r.P99.Seconds() * 1e3, Max: r.Max.Seconds() * 1e3,
		LossPercent: 100 * r.Loss(), ClientCPU: r.ClientCPU.Seconds(), ServerCPU: r.ServerCPU.Seconds(),
	}
}
