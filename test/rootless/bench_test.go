package rootless

import (
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/middleway-net/middleway/node"
)

var (
	rounds    = flag.Int("rounds", 5, "how often both are measured, in turn")
	roundTime = flag.Duration("round-time", time.Second, "how long one run counts")
)

// BenchmarkHosts compares two ways of the tunnel between two hosts: by sockets that are handed in, and through slirp4netns on both. Two pairs of
// hosts are on one network and are measured in turn, first one first and then the other.
func BenchmarkHosts(b *testing.B) {
	hosts := newHosts(b, 4)
	ours, theirs := hosts[:2], hosts[2:]
	for _, h := range ours {
		h.configure(func(c *node.Config) { c.Address, c.Peers = h.addr(false), peersOf(h, ours, false) })
	}
	for _, h := range theirs {
		h.hide(theirs, "tap0", bySlirp4netns, func(c *node.Config) { c.MTU, c.VXLAN.AnySource = 1450, false })
	}
	for _, h := range hosts {
		h.start()
	}
	for _, h := range hosts {
		h.waitReady()
		awaitPeers(b, h, 1)
	}
	for _, to := range []*host{ours[1], theirs[1]} {
		to.serve(to.plan.Pods[0], "tool", "perf", "--serve")
	}
	for _, l := range []struct {
		name, unit string
		args       []string
		figure     func(perfResult) float64
	}{
		{"tcp", "Gbit/s", nil, func(r perfResult) float64 { return r.BitsPerSecond / 1e9 }},
		{"tcp-8", "Gbit/s", []string{"--streams", "8"}, func(r perfResult) float64 { return r.BitsPerSecond / 1e9 }},
		{"udp-1400", "pkt/s", []string{"--udp"}, func(r perfResult) float64 { return r.PacketsPerSecond }},
		{"latency", "p50-us", []string{"--latency"}, func(r perfResult) float64 { return r.P50Ms * 1e3 }},
	} {
		b.Run("load="+l.name, func(b *testing.B) {
			var figures [2][]float64
			var ratios []float64
			for b.Loop() {
				for round := range *rounds {
					var now [2]float64
					for turn := range 2 {
						i := (round + turn) % 2
						now[i] = l.figure(measure(b, [][]*host{ours, theirs}[i], l.args...))
						figures[i] = append(figures[i], now[i])
					}
					ratios = append(ratios, now[0]/now[1])
				}
			}
			b.ReportMetric(0, "ns/op") // how long a comparison takes says nothing
			b.ReportMetric(median(figures[0]), l.unit)
			b.ReportMetric(median(figures[1]), "slirp4netns-"+l.unit)
			b.ReportMetric(median(ratios), "x-slirp4netns")
			b.ReportMetric(slices.Min(ratios), "x-slirp4netns-min")
			b.ReportMetric(slices.Max(ratios), "x-slirp4netns-max")
		})
	}
}

// perfResult is what `middleway tool perf -o json` says.
type perfResult struct{ BitsPerSecond, PacketsPerSecond, P50Ms float64 }

// measure sends from the first pod of the first host to that of the second one.
func measure(b *testing.B, pair []*host, args ...string) (r perfResult) {
	b.Helper()
	to := pair[1].pods[pair[1].plan.Pods[0]][0]
	out, err := pair[0].run(pair[0].plan.Pods[0], append([]string{"tool", "perf", to.String(), "-o", "json", "--congestion", "cubic", "--time", fmt.Sprint(roundTime.Seconds())}, args...)...)
	must(b, err)
	must(b, json.Unmarshal([]byte(out), &r))
	if r == (perfResult{}) || math.IsInf(r.BitsPerSecond, 0) {
		b.Fatalf("nothing arrived: %s", out)
	}
	return r
}

func median(all []float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
