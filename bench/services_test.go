package bench

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/lab/perf"
)

var (
	pairs  = flag.Int("pairs", 2, "how often a Service and its pods are measured, in turn")
	events = flag.Int("events", 50, "how many changes of an EndpointSlice BenchmarkEndpointEvent makes at each size")
)

// serviceLoads are the loads under which a Service is compared with its pods' own addresses.
var serviceLoads = []struct {
	name    string
	measure measure
	test    perf.Test
}{
	{"tcp", gbits, perf.Test{Kind: perf.TCP}},
	{"latency", latency, perf.Test{Kind: perf.TCPLatency}},
	{"connections", connections, perf.Test{Kind: perf.Connections, Streams: 2}},
}

// BenchmarkService compares the way through a Service with that to its pods' own addresses, among more and more Services of ten
// endpoints each.
func BenchmarkService(b *testing.B) {
	for _, place := range Places {
		b.Run("place="+string(place), func(b *testing.B) {
			s := joinService(b, place)
			for _, services := range []int{1, 1000, 10000} {
				b.Run(fmt.Sprintf("services=%d", services), func(b *testing.B) {
					grow(b, s, services)
					for _, load := range serviceLoads {
						b.Run("load="+load.name+"/path=service", func(b *testing.B) { comparePaired(b, s, load.measure, load.test) })
					}
				})
			}
		})
	}
}

func comparePaired(b *testing.B, s *ServicePair, m measure, t perf.Test) {
	t.WarmUp, t.Time, t.Congestion = warmUp, *roundTime, *congestion
	var p Paired
	for b.Loop() {
		for range *pairs {
			if err := p.Add(t, s); err != nil {
				b.Fatal(err)
			}
		}
	}
	m.report(b, Rounds{Own: p.Service}, true)
	for _, f := range append([]metric{{unit: m.unit, figure: m.figure}}, m.further...) {
		b.ReportMetric(Median(Figures(p.Direct, f.figure)), "direct-"+f.unit)
	}
	mean, low, high := Interval(p.Ratios(m.figure))
	b.ReportMetric(mean, "x-direct")
	if !math.IsNaN(low) { // of one pair nothing can be said
		b.ReportMetric(low, "x-direct-low")
		b.ReportMetric(high, "x-direct-high")
	}
}

func joinService(t testing.TB, place Place) *ServicePair {
	t.Helper()
	s, err := JoinService(place)
	if errors.Is(err, unix.EOPNOTSUPP) {
		t.Skipf("this kernel cannot: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	closeAfter(t, s.Pair)
	return s
}

func grow(t testing.TB, s *ServicePair, services int) {
	t.Helper()
	if err := s.Grow(services); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkEndpointEvent is the time from the change of an EndpointSlice, before its file is written, until the first packet that
// follows it has arrived: one of ten endpoints is ready, and in each event that becomes another one. The packets are datagrams
// of one flow. What the client's daemon has of the machine's memory is beside it.
func BenchmarkEndpointEvent(b *testing.B) {
	for _, services := range []int{1, 10000} {
		b.Run(fmt.Sprintf("services=%d", services), func(b *testing.B) {
			s := joinService(b, SameNode)
			grow(b, s, services)
			memory, err := s.Memory()
			if err != nil {
				b.Fatal(err)
			}
			f := newFollowers(b, s)
			var took []float64
			for b.Loop() {
				for range *events {
					took = append(took, float64(f.event(b, s)))
				}
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(Median(took), "event-p50-ns")
			b.ReportMetric(slices.Max(took), "event-max-ns")
			b.ReportMetric(float64(memory)/1e6, "rss-MB")
		})
	}
}

// followers are a sender of datagrams to a Service, and the pods that receive them.
type followers struct {
	ready   int          // the endpoint that is
	waited  atomic.Int64 // the pod of which the first datagram is waited for; -1: of none
	arrived chan time.Time
}

const (
	// sendEvery is the time between two datagrams, and so how coarse the times of events are.
	sendEvery = 100 * time.Microsecond
	// eventTimeout is how long an event may take until it is taken for lost.
	eventTimeout = 10 * time.Second
)

func newFollowers(b testing.TB, s *ServicePair) *followers {
	b.Helper()
	f := &followers{arrived: make(chan time.Time, 1)}
	f.waited.Store(-1)
	for i, pod := range s.backends {
		conn, err := lab.Sockets{Namespace: pod.Namespace}.ListenPacket("udp4", s.pods[i].String())
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { conn.Close() })
		go f.receive(i, conn)
	}
	conn, err := lab.Sockets{Namespace: s.From}.Dial(b.Context(), "udp4", s.frontend[0].String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	go send(conn)
	return f
}

// send sends until the socket is closed. It sleeps by itself: Go's own sleep would be a millisecond long.
func send(conn net.Conn) {
	for {
		if _, err := conn.Write([]byte("event")); errors.Is(err, net.ErrClosed) {
			return
		}
		pause := unix.NsecToTimespec(int64(sendEvery))
		_ = unix.Nanosleep(&pause, nil)
	}
}

func (f *followers) receive(i int, conn net.PacketConn) {
	b := make([]byte, 64)
	for {
		if _, _, err := conn.ReadFrom(b); err != nil {
			return
		}
		if f.waited.CompareAndSwap(int64(i), -1) {
			f.arrived <- time.Now()
		}
	}
}

// event makes the next endpoint the one that is ready and returns how long that took to arrive there. It comes alone.
func (f *followers) event(b testing.TB, s *ServicePair) time.Duration {
	time.Sleep(20*time.Millisecond + rand.N(20*time.Millisecond))
	f.ready = (f.ready + 1) % endpoints
	f.waited.Store(int64(f.ready))
	began := time.Now()
	if err := s.SetReady(func(endpoint int) bool { return endpoint == f.ready }); err != nil {
		b.Fatal(err)
	}
	select {
	case at := <-f.arrived:
		return at.Sub(began)
	case <-time.After(eventTimeout):
		b.Fatalf("no packet followed a change of an EndpointSlice within %v", eventTimeout)
		return 0
	}
}

// All loads get through to the pods, by their own addresses and through the Service.
func TestServicePair(t *testing.T) {
	for _, place := range Places {
		t.Run(string(place), func(t *testing.T) {
			s := joinService(t, place)
			grow(t, s, 3)
			for _, load := range serviceLoads {
				for name, to := range map[string][]netip.AddrPort{"direct": s.pods, "service": s.frontend} {
					r := arriving(t, s, generatorConfig{Test: load.test, To: to})
					if r.Bytes+r.Requests == 0 || r.DaemonCPU <= 0 {
						t.Errorf("%s, %s: got %+v, want something, and processor time of the daemons", load.name, name, r)
					}
				}
			}
			if n, err := s.Memory(); err != nil || n < 1<<20 {
				t.Errorf("memory of a daemon: got %d bytes, %v", n, err)
			}
		})
	}
}

// arriving runs a short test until something arrives: on a machine that is busy with other things nothing may at first. Processor time is
// counted in ticks by some kernels: a short test may have none.
func arriving(t *testing.T, s *ServicePair, c generatorConfig) (r Result) {
	t.Helper()
	c.Test.WarmUp, c.Test.Time = 20*time.Millisecond, 50*time.Millisecond
	var err error
	for deadline := time.Now().Add(30 * time.Second); (r.Bytes+r.Requests == 0 || r.DaemonCPU == 0) && time.Now().Before(deadline); {
		r, err = s.run(c)
	}
	if err != nil {
		t.Error(err)
	}
	return r
}

// A change of the measured Service is followed by all that is sent to it.
func TestEndpointEvent(t *testing.T) {
	s := joinService(t, SameNode)
	f := newFollowers(t, s)
	for range 2 * endpoints { // each endpoint twice
		if took := f.event(t, s); took <= 0 {
			t.Errorf("a packet that followed after %v", took)
		}
	}
}

func TestInterval(t *testing.T) {
	near := func(got, want float64) bool { return math.Abs(got-want) < 1e-3 }
	for _, tt := range []struct {
		name            string
		ratios          []float64
		mean, low, high float64
	}{
		{"all the same", []float64{0.9, 0.9, 0.9}, 0.9, 0.9, 0.9},
		// Logarithms ±0.1: their mean is 0, its standard error 0.1, and Student's quantile with one degree of freedom 12.706.
		{"two", []float64{math.Exp(0.1), math.Exp(-0.1)}, 1, math.Exp(-1.2706), math.Exp(1.2706)},
		// -0.02, 0, 0.02: standard error 0.02/√3.
		{"three", []float64{math.Exp(-0.02), 1, math.Exp(0.02)}, 1, math.Exp(-4.303 * 0.02 / math.Sqrt(3)), math.Exp(4.303 * 0.02 / math.Sqrt(3))},
	} {
		mean, low, high := Interval(tt.ratios)
		if !near(mean, tt.mean) || !near(low, tt.low) || !near(high, tt.high) {
			t.Errorf("%s: got %v in [%v, %v], want %v in [%v, %v]", tt.name, mean, low, high, tt.mean, tt.low, tt.high)
		}
	}
	if mean, low, _ := Interval([]float64{0.5}); mean != 0.5 || !math.IsNaN(low) {
		t.Errorf("one ratio: got %v, from %v, want it without an interval", mean, low)
	}
}

// The interval of ratios holds the true one in 95 of 100 cases, for few rounds and for more than the table has.
func TestIntervalHolds(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	const cases, truth = 4000, 0.97
	for _, rounds := range []int{2, 3, 20, 60} {
		held := 0
		for range cases {
			ratios := make([]float64, rounds)
			for i := range ratios {
				ratios[i] = truth * math.Exp(0.05*random.NormFloat64())
			}
			if _, low, high := Interval(ratios); low <= truth && truth <= high {
				held++
			}
		}
		if share := float64(held) / cases; share < 0.935 || share > 0.965 {
			t.Errorf("%d rounds: the interval held the truth in a share of %v, want 0.95", rounds, share)
		}
	}
}

func TestPaired(t *testing.T) {
	of := func(bytes ...int64) (results []Result) {
		for _, n := range bytes {
			results = append(results, Result{Result: perf.Result{Bytes: n}})
		}
		return results
	}
	got := Paired{Direct: of(4, 2), Service: of(2, 3)}.Ratios(func(r Result) float64 { return float64(r.Bytes) })
	if !slices.Equal(got, []float64{0.5, 1.5}) {
		t.Errorf("2/4 and 3/2: got %v", got)
	}
}

// The address of each Service and endpoint is its own, inside the range that is meant for it.
func TestServiceObjects(t *testing.T) {
	s := &ServicePair{}
	for i := range endpoints {
		s.pods = append(s.pods, netip.AddrPortFrom(backendAddr(SameNode, i), doorPort))
	}
	seen := map[netip.Addr]bool{}
	for i := range 10000 {
		ip := clusterIP(i)
		if !lab.ServiceCIDRs()[0].Contains(ip) || seen[ip] || ip == lab.ClusterDNS4() {
			t.Fatalf("Service %d: %v is taken, or no address of a Service", i, ip)
		}
		seen[ip] = true
		for k := range endpoints {
			a := s.endpointAddr(i, k)
			if seen[a] || i > 0 && lab.PodCIDR4(1).Contains(a) {
				t.Fatalf("endpoint %d of Service %d: %v is taken", k, i, a)
			}
			seen[a] = true
		}
	}
}

func TestResidentSize(t *testing.T) {
	if got, err := residentSize("Name:\tx\nVmHWM:\t  90 kB\nVmRSS:\t  10420 kB\nRssAnon:\t 1 kB\n"); got != 10420<<10 || err != nil {
		t.Errorf("got %d, %v", got, err)
	}
	for _, status := range []string{"", "VmRSS:", "Name:\tx\nVmRSS:\t1 MB\n", "Name:\tx\nVmRSS:\tmuch kB\n"} {
		if _, err := residentSize(status); err == nil || !strings.Contains(err.Error(), "VmRSS") {
			t.Errorf("%q: got %v", status, err)
		}
	}
}
