package bench

import (
	"errors"
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/lab"
)

var (
	congestion = flag.String("congestion", "cubic", "congestion control of both ends, for every contestant")
	rounds     = flag.Int("rounds", 3, "how often the contestants take turns")
	roundTime  = flag.Duration("round-time", time.Second, "how long one contestant is measured in one round")
)

func TestMain(m *testing.M) { lab.Main(m) }

// contestants are the paths of BenchmarkTCP. A new one is a line here.
var contestants = []Contestant{Middleway{}, Kernel{}, Relay{}, Netstack{}}

// BenchmarkTCP measures every contestant in turn with the kernel. See README.md for what it prints.
func BenchmarkTCP(b *testing.B) {
	for _, place := range Places {
		for _, streams := range []int{1, 8} {
			for _, c := range contestants {
				b.Run(fmt.Sprintf("place=%s/streams=%d/path=%s", place, streams, c.Name()), func(b *testing.B) {
					compare(b, c, place, Load{Streams: streams, Congestion: *congestion, Time: *roundTime})
				})
			}
		}
	}
}

// compare measures the kernel and a contestant in turn; and the bare relay, which is what middleway could be at best.
func compare(b *testing.B, c Contestant, place Place, l Load) {
	pairs := []*Pair{join(b, Kernel{}, place), join(b, c, place)}
	_, ours := c.(Middleway)
	if ours {
		pairs = append(pairs, join(b, Relay{}, place))
	}
	all := make([][]Result, len(pairs))
	for b.Loop() {
		results, err := l.Rounds(*rounds, pairs...)
		if err != nil {
			b.Fatal(err)
		}
		for i := range all {
			all[i] = append(all[i], results[i]...)
		}
	}
	kernel, own := all[0], all[1]
	b.ReportMetric(0, "ns/op") // how long a comparison takes says nothing
	b.ReportMetric(Median(Rates(own)), "Gbit/s")
	toKernel := Ratios(own, kernel)
	b.ReportMetric(Median(toKernel), "x-kernel")
	b.ReportMetric(slices.Min(toKernel), "x-kernel-min")
	b.ReportMetric(slices.Max(toKernel), "x-kernel-max")
	if ours {
		b.ReportMetric(Median(Ratios(own, all[2])), "x-relay")
	}
	if len(pairs[1].Daemons) > 0 {
		cpu := make([]float64, len(own))
		for i, r := range own {
			cpu[i] = r.CPUPerGB()
		}
		b.ReportMetric(Median(cpu), "cpu-s/GB")
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
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}
