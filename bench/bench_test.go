package bench

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/lab/perf"
)

var (
	congestion = flag.String("congestion", "cubic", "congestion control of both ends, for every contestant")
	rounds     = flag.Int("rounds", 3, "how often each contestant is measured, between runs of the kernel")
	roundTime  = flag.Duration("round-time", 250*time.Millisecond, "how long one run counts")
)

// warmUp is the time of a run that does not count.
const warmUp = 100 * time.Millisecond

// noisy is the noise of kernel against kernel from which on a comparison is marked.
const noisy = 0.05

func TestMain(m *testing.M) { lab.Main(m) }

// measure says what a comparison reports.
type measure struct {
	unit    string // of the figure that is compared
	figure  func(Result) float64
	further []metric
}

// metric is one more figure; one of daemons is left out where there are none.
type metric struct {
	unit    string
	daemons bool
	figure  func(Result) float64
}

var (
	gbits   = measure{unit: "Gbit/s", figure: func(r Result) float64 { return r.Gbits() }, further: cpuPerGB}
	packets = measure{unit: "pkt/s", figure: func(r Result) float64 { return r.PacketRate() }, further: append([]metric{
		{"sent-pkt/s", false, func(r Result) float64 { return r.SendRate() }},
		{"loss-%", false, func(r Result) float64 { return 100 * r.Loss() }},
	}, cpuPerGB...)}
	latency = measure{unit: "p50-ns", figure: func(r Result) float64 { return float64(r.P50) }, further: []metric{
		{"p99-ns", false, func(r Result) float64 { return float64(r.P99) }},
	}}
	connections = measure{unit: "conn/s", figure: func(r Result) float64 { return r.RequestRate() }, further: []metric{
		{"cpu-us/conn", true, func(r Result) float64 { return r.DaemonCPU.Seconds() * 1e6 / float64(r.Requests) }},
		{"gen-cpu-us/conn", false, func(r Result) float64 { return r.GeneratorCPU().Seconds() * 1e6 / float64(r.Requests) }},
	}}
	cpuPerGB = []metric{
		{"cpu-s/GB", true, func(r Result) float64 { return r.DaemonCPU.Seconds() * 1e9 / float64(r.Bytes) }},
		{"gen-cpu-s/GB", false, func(r Result) float64 { return r.GeneratorCPU().Seconds() * 1e9 / float64(r.Bytes) }},
	}
)

func BenchmarkTCP(b *testing.B) {
	for _, place := range Places {
		for _, streams := range []int{1, 8} {
			b.Run(fmt.Sprintf("place=%s/streams=%d", place, streams), func(b *testing.B) {
				comparePaths(b, place, gbits, perf.Test{Kind: perf.TCP, Streams: streams})
			})
		}
	}
}

func BenchmarkUDP1400(b *testing.B)    { comparePlaces(b, packets, perf.Test{Kind: perf.UDP, Size: 1400}) }
func BenchmarkUDP64(b *testing.B)      { comparePlaces(b, packets, perf.Test{Kind: perf.UDP, Size: 64}) }
func BenchmarkLatencyTCP(b *testing.B) { comparePlaces(b, latency, perf.Test{Kind: perf.TCPLatency}) }
func BenchmarkLatencyUDP(b *testing.B) { comparePlaces(b, latency, perf.Test{Kind: perf.UDPLatency}) }
func BenchmarkConnections(b *testing.B) {
	comparePlaces(b, connections, perf.Test{Kind: perf.Connections, Streams: 2})
}

func comparePlaces(b *testing.B, m measure, t perf.Test) {
	for _, place := range Places {
		b.Run("place="+string(place), func(b *testing.B) { comparePaths(b, place, m, t) })
	}
}

func comparePaths(b *testing.B, place Place, m measure, t perf.Test) {
	t.WarmUp, t.Time, t.Congestion = warmUp, *roundTime, *congestion
	for _, c := range contestants {
		b.Run("path="+c.Name(), func(b *testing.B) { compare(b, c, place, m, t) })
	}
}

// compare measures a contestant in turn with the kernel.
func compare(b *testing.B, c Contestant, place Place, m measure, t perf.Test) {
	p := join(b, c, place)
	kernel, err := Kernel{}.Join(place)
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		b.Logf("nothing to compare with: %v", err)
	case err != nil:
		b.Fatal(err)
	default:
		closeAfter(b, kernel)
	}
	var r Rounds
	for b.Loop() {
		for range *rounds {
			if err := r.Add(t, p, kernel); err != nil {
				b.Fatal(err)
			}
		}
	}
	m.report(b, r, len(p.Daemons) > 0)
}

func (m measure) report(b *testing.B, r Rounds, daemons bool) {
	report := func(value float64, unit string) {
		if !math.IsNaN(value) && !math.IsInf(value, 0) { // where nothing arrived there is nothing to divide by
			b.ReportMetric(value, unit)
		}
	}
	report(0, "ns/op") // how long a comparison takes says nothing
	report(Median(Figures(r.Own, m.figure)), m.unit)
	for _, f := range m.further {
		if daemons || !f.daemons {
			report(Median(Figures(r.Own, f.figure)), f.unit)
		}
	}
	if len(r.Kernel) == 0 {
		return
	}
	noise := r.Noise(m.figure)
	report(Median(r.Ratios(m.figure)), "x-kernel")
	report(100*noise, "kernel-noise-%")
	if !(noise <= noisy) { // or not a number
		b.Logf("noisy: %s: the kernel differs from itself by %.0f %%, so x-kernel tells nothing finer", b.Name(), 100*noise)
	}
}

func join(t testing.TB, c Contestant, place Place) *Pair {
	t.Helper()
	p, err := c.Join(place)
	if errors.Is(err, unix.EOPNOTSUPP) {
		t.Skipf("this kernel cannot: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	closeAfter(t, p)
	return p
}

func closeAfter(t testing.TB, p *Pair) {
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
}
