package bench

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/lab/perf"
)

const (
	iperfTolerance = 0.10
	iperfPort      = "5201"
	iperfTime      = time.Second
	// Rounds of 2.5 s until the answer is clear, at least and at most.
	iperfMinRounds, iperfMaxRounds = 5, 12
	iperfOthers                    = 0.10 // share of the processors that others may use
	// A machine on which the first iperfBusyRounds do not count is busy.
	iperfBusyRounds = 3
	// iperfCongestion is what every kernel lets every namespace have as its default. iperf3 sets the control of a connection
	// that is made already: on a machine whose default is bbr it would be paced all the same, at a third of the rate.
	iperfCongestion = "reno"
)

var requireIperf3 = flag.Bool("iperf3", false, "the comparison with iperf3 must come to an end: that it is not installed, or the machine busy, is a failure")

// unable skips the comparison, or fails if it is required.
func unable(t *testing.T, format string, args ...any) {
	t.Helper()
	if *requireIperf3 {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// Our generator moves what iperf3 moves: over a veth, pinned alike, in turn, until a confidence interval of the median ratio says
// yes or no. Only rounds count in which nothing else ran: whom a busy machine favours says nothing about the generators.
func TestAgreesWithIperf3(t *testing.T) {
	if _, err := exec.LookPath("iperf3"); err != nil {
		unable(t, "iperf3 is not installed")
	}
	if testing.Short() {
		t.Skip("takes up to half a minute")
	}
	p := join(t, cable{}, SameNode)
	for _, n := range []*lab.Namespace{p.From, p.To} {
		if err := n.Sysctl("net.ipv4.tcp_congestion_control", iperfCongestion); err != nil {
			t.Fatal(err)
		}
	}
	r := &race{t: t, pair: p, server: serveIperf3(t, p)}
	before := r.iperf3()
	var ratios []float64
	for i := range iperfMaxRounds {
		if i >= iperfBusyRounds && len(ratios) == 0 {
			break
		}
		ours, after := r.ours(), r.iperf3()
		ratio := ours.rate / ((before.rate + after.rate) / 2)
		others := max(before.others, ours.others, after.others)
		t.Logf("ours %.1f Gbit/s, iperf3 %.1f and %.1f: %.2f; others used up to %.0f %% of the processors", ours.rate, before.rate, after.rate, ratio, 100*others)
		before = after
		if others > iperfOthers {
			continue
		}
		ratios = append(ratios, ratio)
		if clear, _ := agrees(ratios); clear && len(ratios) >= iperfMinRounds {
			break
		}
	}
	if len(ratios) < iperfMinRounds {
		unable(t, "this machine is too busy: only %d rounds had the processors for themselves, and %d are needed", len(ratios), iperfMinRounds)
	}
	low, high := medianInterval(ratios)
	switch clear, yes := agrees(ratios); {
	case yes:
	case clear:
		t.Errorf("our generator moves %.2f of what iperf3 moves (%.2f to %.2f), want 1 ± %.2f", Median(ratios), low, high, iperfTolerance)
	default:
		unable(t, "this machine is too noisy: our generator moves something between %.2f and %.2f of what iperf3 moves", low, high)
	}
}

// race is runs of the two generators over one pair.
type race struct {
	t      *testing.T
	pair   *Pair
	server *lab.Process // of iperf3
}

// lap is one run.
type lap struct {
	rate   float64 // in Gbit/s
	others float64 // share of all processors that others used
}

func (r *race) ours() (l lap) {
	before := r.used()
	result, err := r.pair.run(generatorConfig{Test: perf.Test{Congestion: iperfCongestion, Time: iperfTime}, Pinned: true})
	if err != nil {
		r.t.Fatal(err)
	}
	return lap{result.Gbits(), r.used().othersSince(before, result.ClientCPU)}
}

func (r *race) iperf3() lap {
	before := r.used()
	rate, cpu, err := iperf3(r.pair)
	if err != nil {
		r.t.Fatal(err)
	}
	return lap{rate, r.used().othersSince(before, cpu)}
}

// usage is processor time up to a moment.
type usage struct {
	at      time.Time
	all     time.Duration // of everybody, but for interrupts, which are counted apart or as part of what they interrupt
	servers time.Duration
}

func (r *race) used() (u usage) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		r.t.Fatal(err)
	}
	var user, nice, system, idle, iowait, irq, softirq, steal int64 // in hundredths of a second
	if _, err := fmt.Sscanf(string(stat), "cpu %d %d %d %d %d %d %d %d", &user, &nice, &system, &idle, &iowait, &irq, &softirq, &steal); err != nil {
		r.t.Fatalf("read /proc/stat: %v", err)
	}
	u.at, u.all = time.Now(), time.Duration(user+nice+system+steal)*10*time.Millisecond
	for _, p := range []*lab.Process{r.server, r.pair.server} {
		if p == nil {
			continue // ours starts with the first run
		}
		cpu, err := p.CPUTime()
		if err != nil {
			r.t.Fatal(err)
		}
		u.servers += cpu
	}
	return u
}

func (u usage) othersSince(before usage, client time.Duration) float64 {
	others := u.all - before.all - (u.servers - before.servers) - client
	return float64(others) / float64(u.at.Sub(before.at)) / float64(runtime.NumCPU())
}

// agrees tells whether the answer is clear, the interval in the tolerance or outside of it, and what it is by the median.
func agrees(ratios []float64) (clear, yes bool) {
	low, high := medianInterval(ratios)
	least, most := 1-iperfTolerance, 1+iperfTolerance
	clear = least <= low && high <= most || high < least || most < low
	return clear, least <= Median(ratios) && Median(ratios) <= most
}

func TestAgrees(t *testing.T) {
	for _, tt := range []struct {
		ratios     []float64
		clear, yes bool
	}{
		{[]float64{0.95, 1, 1, 1, 1.05}, true, true},
		{[]float64{0.5, 1, 1, 1, 1.05}, false, true},
		{[]float64{0.5, 0.6, 0.6, 0.6, 0.95}, false, false},
		{[]float64{0.5, 0.6, 0.6, 0.6, 0.7}, true, false},
		{[]float64{4, 5, 6, 7, 8}, true, false},
		{[]float64{0.1, 0.2, 1, 1, 1, 1, 1, 1, 1, 1, 5, 9}, true, true}, // of twelve the outer two at each end do not count
	} {
		if clear, yes := agrees(tt.ratios); clear != tt.clear || yes != tt.yes {
			t.Errorf("%v: got %v, %v, want %v, %v", tt.ratios, clear, yes, tt.clear, tt.yes)
		}
	}
}

// medianInterval returns a confidence interval of the median, of 94 % or more: for 5 values the least and the greatest, for more
// the order statistics of the binomial distribution.
func medianInterval(values []float64) (low, high float64) {
	v := slices.Sorted(slices.Values(values))
	skip := max(0, int(float64(len(v))/2-1.96*math.Sqrt(float64(len(v)))/2))
	return v[skip], v[len(v)-1-skip]
}

// cable joins two pods by a veth and nothing else.
type cable struct{}

func (cable) Name() string { return "cable" }

func (cable) Join(place Place) (*Pair, error) {
	return build(func(p *Pair) error {
		if err := p.pods(); err != nil {
			return err
		}
		from, to := podAddrs(place)
		p.Addr = to
		err := lab.Veth(lab.VethEnd{Namespace: p.From, Device: "eth0"}, lab.VethEnd{Namespace: p.To, Device: "eth0"}, podMTU)
		if err != nil {
			return err
		}
		return errors.Join(
			p.From.AddAddr("eth0", netip.PrefixFrom(from, 8)), p.To.AddAddr("eth0", netip.PrefixFrom(to, 8)),
			p.From.SetUp("eth0"), p.To.SetUp("eth0"))
	})
}

// serveIperf3 starts iperf3's server at the receiving pod.
func serveIperf3(t *testing.T, p *Pair) *lab.Process {
	t.Helper()
	server := lab.Exec(p.To, "iperf3", "--server", "--port", iperfPort, "--bind", p.Addr.String(), "--forceflush")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	p.OnClose(server.Kill)
	for deadline := time.Now().Add(startTimeout); !strings.Contains(server.Tail(), "listening"); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("iperf3's server is not ready within %v: %s", startTimeout, server.Tail())
		}
	}
	return server
}

// iperf3 measures a pair by iperf3 with the parameters of our own generator: what was received in Gbit/s, and the client's
// processor time.
func iperf3(p *Pair) (rate float64, cpu time.Duration, err error) {
	client := lab.Exec(p.From, "iperf3", "--client", p.Addr.String(), "--port", iperfPort, "--json", "--length", "128K",
		"--time", fmt.Sprint(int(iperfTime.Seconds())), "--affinity", fmt.Sprintf("0,%d", runtime.NumCPU()-1))
	if err := client.Start(); err != nil {
		return 0, 0, err
	}
	failed := client.Wait()
	var report struct {
		Error string
		End   struct {
			Received struct {
				BitsPerSecond float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		}
	}
	if err := json.Unmarshal([]byte(client.Tail()), &report); err != nil || failed != nil || report.Error != "" {
		return 0, 0, fmt.Errorf("iperf3: %w: %s", errors.Join(failed, err), client.Tail())
	}
	cpu, err = client.CPUTime()
	return report.End.Received.BitsPerSecond / 1e9, cpu, err
}
