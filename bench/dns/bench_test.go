package dns

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	wire "github.com/miekg/dns"

	"github.com/middleway-net/middleway/lab"
)

var (
	program   = flag.String("coredns", "", "program of CoreDNS to compare with; default: the one that bench/coredns builds to bin/coredns, else one in PATH")
	rounds    = flag.Int("rounds", 3, "how often each is measured, in turn")
	roundTime = flag.Duration("round-time", time.Second, "how long one run counts")
	own       = flag.Bool("own-client", false, "ask with our own client, also where dnsperf is installed")
)

func TestMain(m *testing.M) { lab.Main(m) }

const services = 1000

// contestants starts both, or skips where there is no CoreDNS.
func contestants(tb testing.TB) (ours, theirs *contestant) {
	tb.Helper()
	path := *program
	if path == "" {
		path = filepath.Join("..", "..", "bin", "coredns")
		if _, err := os.Stat(path); err != nil {
			if path, err = exec.LookPath("coredns"); err != nil {
				tb.Skip("there is no CoreDNS to compare with: go build -C bench/coredns -o ../../bin/coredns . makes one, -coredns names one")
			}
		}
	}
	path, err := filepath.Abs(path)
	if err != nil {
		tb.Fatal(err)
	}
	o := newObjects(services)
	if theirs, err = newCoreDNS(o, path); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = theirs.Close() })
	if ours, err = newMiddleway(o); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = ours.Close() })
	return ours, theirs
}

// differences are the questions to which the answers differ, and why (docs/dns.md, "Coming from CoreDNS").
var differences = map[string]string{
	"inner.team-0.svc.cluster.local. AAAA":              "an alias to a name without such a record is told (RFC 2308, section 2.2), CoreDNS says nothing",
	"inner.team-0.svc.cluster.local. SRV":               "an alias holds for all types (RFC 1034, section 3.6.2)",
	"inner.team-0.svc.cluster.local. TXT":               "an alias holds for all types",
	"outside.team-0.svc.cluster.local. SRV":             "an alias holds for all types",
	"outside.team-0.svc.cluster.local. TXT":             "an alias holds for all types",
	"gone.team-0.svc.cluster.local. A":                  "NXDOMAIN if the alias leads to no name (RFC 6604)",
	"gone.team-0.svc.cluster.local. AAAA":               "NXDOMAIN",
	"gone.team-0.svc.cluster.local. SRV":                "NXDOMAIN",
	"gone.team-0.svc.cluster.local. TXT":                "NXDOMAIN",
	"dangling.team-0.svc.cluster.local. A":              "NXDOMAIN",
	"dangling.team-0.svc.cluster.local. AAAA":           "NXDOMAIN",
	"dangling.team-0.svc.cluster.local. SRV":            "NXDOMAIN",
	"dangling.team-0.svc.cluster.local. TXT":            "NXDOMAIN",
	"member-3.service-10.team-1.svc.cluster.local. SRV": "SRV records are those of Services",
	"ns.dns.cluster.local. A":                           "the DNS Service's address, here CoreDNS's own",
	"_tcp.service-11.team-1.svc.cluster.local. SRV":     "a name above others exists (RFC 8020)",
}

// What moves from CoreDNS to us finds the same names, but for the differences.
func TestSameAnswers(t *testing.T) {
	ours, theirs := contestants(t)
	questions := mix(40)
	for i := range 30 {
		name := fmt.Sprintf("service-%d.team-%d.svc.cluster.local.", i, i/10%10)
		questions = append(questions, name+" SRV", name+" MX", "_http._tcp."+name+" SRV", "_https._tcp."+name+" SRV", "member-3."+name+" A", "x."+name+" A")
	}
	for _, alias := range []string{"inner", "outside", "gone", "dangling"} {
		name := alias + ".team-0.svc.cluster.local. "
		questions = append(questions, name+"CNAME", name+"A", name+"AAAA", name+"SRV", name+"TXT")
	}
	questions = append(questions,
		"cluster.local. NS", "ns.dns.cluster.local. A", "_tcp.service-11.team-1.svc.cluster.local. SRV", "member-3.service-10.team-1.svc.cluster.local. SRV",
		"10-244-2-115.service-11.team-1.svc.cluster.local. A", "Service-11.TEAM-1.svc.cluster.local. A", "cluster.local. A", "svc.cluster.local. A", "team-0.svc.cluster.local. A", "nowhere.svc.cluster.local. A", "x.cluster.local. A", "pod.cluster.local. A",
		"10-244-2-5.team-0.pod.cluster.local. A", "10-244-2-5.nowhere.pod.cluster.local. A", "dns-version.cluster.local. TXT",
		"12.1.96.10.in-addr.arpa. PTR", "5.2.244.10.in-addr.arpa. PTR", "www-1.example.com. A", "gone.example.com. A",
	)
	slices.Sort(questions)
	for _, question := range slices.Compact(questions) {
		a, err := ours.ask(question)
		if err != nil {
			t.Fatalf("middleway: %s: %v", question, err)
		}
		b, err := theirs.ask(question)
		if err != nil {
			t.Fatalf("coredns: %s: %v", question, err)
		}
		same := a.Rcode == b.Rcode && slices.Equal(data(a.Answer), data(b.Answer))
		if why, known := differences[question]; known {
			if same {
				t.Errorf("%s: the answers no longer differ: %s", question, why)
			}
			continue
		}
		if a.Rcode != b.Rcode {
			t.Errorf("%s: middleway says %s, CoreDNS %s", question, wire.RcodeToString[a.Rcode], wire.RcodeToString[b.Rcode])
		}
		if diff := cmp.Diff(data(b.Answer), data(a.Answer)); diff != "" {
			t.Errorf("%s (-coredns +middleway):\n%s", question, diff)
		}
	}
}

// data are the types and data of records, sorted; weights of SRV records are everybody's own.
func data(all []wire.RR) (lines []string) {
	for _, rr := range all {
		if srv, ok := rr.(*wire.SRV); ok {
			srv.Weight = 0
		}
		lines = append(lines, wire.TypeToString[rr.Header().Rrtype]+" "+strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	slices.Sort(lines)
	return lines
}

// BenchmarkThroughput asks as much as the server takes.
func BenchmarkThroughput(b *testing.B) {
	compare(b, load{questions: mix(2000), sockets: 4, window: 16, time: *roundTime}, func(ours, theirs []result) {
		b.ReportMetric(median(ours, result.rate), "q/s")
		b.ReportMetric(median(theirs, result.rate), "coredns-q/s")
		b.ReportMetric(median(ours, result.perCPU), "q/cpu-s")
		b.ReportMetric(median(theirs, result.perCPU), "coredns-q/cpu-s")
		reportRatio(b, ours, theirs, result.rate, "x-q/s")
		reportRatio(b, ours, theirs, result.perCPU, "x-q/cpu-s")
	})
}

// BenchmarkLatency asks one question after the other, with our own client.
func BenchmarkLatency(b *testing.B) {
	*own = true
	compare(b, load{questions: mix(2000), sockets: 1, window: 1, time: *roundTime}, func(ours, theirs []result) {
		p50 := func(r result) float64 { return float64(r.median) }
		p99 := func(r result) float64 { return float64(r.p99) }
		b.ReportMetric(median(ours, p50), "p50-ns")
		b.ReportMetric(median(theirs, p50), "coredns-p50-ns")
		b.ReportMetric(median(ours, p99), "p99-ns")
		b.ReportMetric(median(theirs, p99), "coredns-p99-ns")
		reportRatio(b, ours, theirs, p50, "x-p50")
	})
}

// compare runs the load against both in turn.
func compare(b *testing.B, l load, report func(ours, theirs []result)) {
	ours, theirs := contestants(b)
	run := runner(b, l)
	var a, c []result
	for b.Loop() {
		for _, one := range []*contestant{ours, theirs} { // caches and heaps are warm
			run(one)
		}
		for range *rounds {
			a = append(a, run(ours))
			c = append(c, run(theirs))
		}
	}
	b.ReportMetric(0, "ns/op")
	report(a, c)
	for _, r := range slices.Concat(a, c) {
		if r.lost*1000 > r.answers {
			b.Logf("%d of %d questions were lost", r.lost, r.lost+r.answers)
		}
	}
}

// runner chooses the client.
func runner(b *testing.B, l load) func(*contestant) result {
	_, err := exec.LookPath("dnsperf")
	perf := err == nil && !*own
	file := filepath.Join(b.TempDir(), "questions")
	if err := os.WriteFile(file, []byte(strings.Join(l.questions, "\n")+"\n"), 0o600); err != nil {
		b.Fatal(err)
	}
	return func(c *contestant) result {
		r, err := c.measure(func() (result, error) {
			if perf {
				return c.runDNSPerf(l, file)
			}
			return c.run(l)
		})
		if err != nil {
			b.Fatalf("%s: %v", c.name, err)
		}
		return r
	}
}

func median(all []result, figure func(result) float64) float64 {
	var figures []float64
	for _, r := range all {
		figures = append(figures, figure(r))
	}
	slices.Sort(figures)
	return figures[len(figures)/2]
}

// reportRatio reports the median of the ratios of runs that followed each other.
func reportRatio(b *testing.B, ours, theirs []result, figure func(result) float64, unit string) {
	var ratios []float64
	for i := range ours {
		ratios = append(ratios, figure(ours[i])/figure(theirs[i]))
	}
	slices.Sort(ratios)
	b.ReportMetric(ratios[len(ratios)/2], unit)
}
