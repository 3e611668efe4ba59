package egress

import (
	"flag"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/middleway-net/middleway/bench"
	"github.com/middleway-net/middleway/lab/perf"
)

var (
	congestion = flag.String("congestion", "cubic", "congestion control of both ends, for all")
	rounds     = flag.Int("rounds", 3, "how often both are measured, in turn")
	roundTime  = flag.Duration("round-time", 250*time.Millisecond, "how long one run counts")
)

// warmUp is the time of a run that does not count.
const warmUp = 200 * time.Millisecond

// measure says what a comparison reports; price is what is reported beside it, of each.
type measure struct {
	unit      string
	figure    func(bench.Result) float64
	priceUnit string
	price     func(bench.Result) float64
}

var (
	gbits = measure{
		"Gbit/s", func(r bench.Result) float64 { return r.Gbits() },
		"cpu-s/GB", func(r bench.Result) float64 { return r.DaemonCPU.Seconds() * 1e9 / float64(r.Bytes) },
	}
	packets = measure{
		"pkt/s", func(r bench.Result) float64 { return r.PacketRate() },
		"cpu-s/GB", func(r bench.Result) float64 { return r.DaemonCPU.Seconds() * 1e9 / float64(r.Bytes) },
	}
	latency = measure{
		"p50-ns", func(r bench.Result) float64 { return float64(r.P50) },
		"p99-ns", func(r bench.Result) float64 { return float64(r.P99) },
	}
	connections = measure{
		"conn/s", func(r bench.Result) float64 { return r.RequestRate() },
		"cpu-us/conn", func(r bench.Result) float64 { return r.DaemonCPU.Seconds() * 1e6 / float64(r.Requests) },
	}
)

// loads are the loads of all comparisons but for datagrams.
var loads = []struct {
	name    string
	measure measure
	test    perf.Test
}{
	{"upload", gbits, perf.Test{Kind: perf.TCP}},
	{"upload-8", gbits, perf.Test{Kind: perf.TCP, Streams: 8}},
	{"download", gbits, perf.Test{Kind: perf.Download}},
	{"download-8", gbits, perf.Test{Kind: perf.Download, Streams: 8}},
	{"connections", connections, perf.Test{Kind: perf.Connections, Streams: 2}},
	{"latency", latency, perf.Test{Kind: perf.TCPLatency}},
}

// BenchmarkEgress compares ways from a pod to the outside.
func BenchmarkEgress(b *testing.B) {
	for _, mtu := range mtus {
		b.Run(fmt.Sprintf("mtu=%d", mtu), func(b *testing.B) {
			for _, l := range loads {
				b.Run("load="+l.name, func(b *testing.B) { compareAll(b, l.measure, l.test, mtu) })
			}
			b.Run("load=udp", func(b *testing.B) { compareAll(b, packets, perf.Test{Kind: perf.UDP, Size: 1400}, mtu) })
		})
	}
}

// BenchmarkNodePort compares ways from the outside to a pod.
func BenchmarkNodePort(b *testing.B) {
	for _, l := range loads {
		b.Run("load="+l.name, func(b *testing.B) { compare(b, nodePort{}, kubeProxy{}, l.measure, l.test, mtus[0]) })
	}
}

func compareAll(b *testing.B, m measure, t perf.Test, mtu int) {
	for _, c := range contestants {
		compare(b, middleway{}, c, m, t, mtu)
	}
}

// compare measures two ways in turn.
func compare(b *testing.B, ours, other Contestant, m measure, t perf.Test, mtu int) {
	t.WarmUp, t.Time, t.Congestion = warmUp, *roundTime, *congestion
	b.Run("beside="+other.Name(), func(b *testing.B) {
		own, beside := joined(b, ours, mtu), joined(b, other, mtu)
		var r turns
		for b.Loop() {
			for range *rounds {
				if err := r.add(t, own, beside); err != nil {
					b.Fatal(err)
				}
			}
		}
		m.report(b, r)
	})
}

func (m measure) report(b *testing.B, r turns) {
	report := func(value float64, unit string) {
		if !math.IsNaN(value) && !math.IsInf(value, 0) { // of one round there is no interval
			b.ReportMetric(value, unit)
		}
	}
	report(0, "ns/op") // how long a comparison takes says nothing
	for _, of := range []struct {
		prefix  string
		results []bench.Result
	}{{"", r.own}, {"beside-", r.beside}} {
		report(bench.Median(bench.Figures(of.results, m.figure)), of.prefix+m.unit)
		report(bench.Median(bench.Figures(of.results, m.price)), of.prefix+m.priceUnit)
	}
	mean, low, high := bench.Interval(r.ratios(m.figure))
	report(mean, "x-beside")
	report(low, "x-beside-low")
	report(high, "x-beside-high")
}
