package perf

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/middleway-net/middleway/cluster"
	"github.com/middleway-net/middleway/cluster/clustertest"
)

// answer prints what `tool perf -o json` would: between nodes twice of what pods have.
func answer(argv []string, pod string, out io.Writer) error {
	factor := 1.0
	if strings.HasPrefix(pod, "host-") {
		factor = 2
	}
	line := strings.Join(argv, " ")
	text := fmt.Sprintf(`{"bitsPerSecond": %g}`, factor*5e9)
	switch {
	case strings.Contains(line, "--udp"):
		text = fmt.Sprintf(`{"packetsPerSecond": %g, "lossPercent": 1}`, factor*1e5)
	case strings.Contains(line, "--connections"):
		text = fmt.Sprintf(`{"requestsPerSecond": %g}`, factor*1e4)
	case strings.Contains(line, "--latency"):
		text = fmt.Sprintf(`{"p50Ms": %g, "p99Ms": 0.2}`, 0.1/factor)
	}
	_, err := io.WriteString(out, text+"\n")
	return err
}

func TestRun(t *testing.T) {
	s := clustertest.New(t, 3)
	var lines []string
	s.Run = func(_ context.Context, c cluster.Container, argv []string, _ io.Reader, out, _ io.Writer) error {
		lines = append(lines, c.Pod+" "+strings.Join(argv[1:], " "))
		return answer(argv, c.Pod, out)
	}
	r, err := Run(t.Context(), Config{API: s.API(t), Rounds: 2, Time: time.Second, FirstPort: 20000})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Pairs) != 1 || r.Pairs[0].From != "node-1" || r.Pairs[0].To != "node-2" || r.Failed() {
		t.Fatalf("got %+v, want the first two nodes", r.Pairs)
	}
	// four ways of four kinds in each round, of which datagrams do not go through a Service
	if len(lines) != 2*15 || lines[0] != "host-0 tool perf 192.168.254.12:20000 --time 1s -o json" {
		t.Errorf("%d measurements, the first %q", len(lines), lines[0])
	}
	ways := r.Pairs[0].Ways
	for i, want := range []struct {
		name  string
		tcp   float64
		ratio float64
	}{{"node → node", 1e10, 1}, {"pod → pod", 5e9, 0.5}, {"pod → Service", 5e9, 0.5}, {"pod → pod on node-1", 5e9, 0}} {
		m := ways[i].Measures[0]
		if i == 0 {
			want.ratio = 0 // it is what others are compared with
		}
		if ways[i].Name != want.name || m.Median != want.tcp || m.Ratio != want.ratio || len(m.Rounds) != 2 {
			t.Errorf("way %d: got %s, %+v, want %+v", i, ways[i].Name, m, want)
		}
	}
	if m := ways[1].Measures[3]; m.Median != 0.1 || m.Ratio != 2 || m.P99 != 0.2 {
		t.Errorf("latency: %+v, want twice the nodes'", m)
	}
	if left := s.Names("/api/v1/namespaces"); len(left) > 0 {
		t.Errorf("namespaces %q are left", left)
	}
	var b bytes.Buffer
	if err := r.Print(&b); err != nil || !strings.Contains(b.String(), "5.00 Gbit/s") || !strings.Contains(b.String(), "0.50 (0.50–0.50)") {
		t.Errorf("%v\n%s", err, b.String())
	}
}

func TestChoose(t *testing.T) {
	for _, tt := range []struct {
		nodes int
		c     Config
		want  string
	}{
		{3, Config{}, "[[node-1 node-2]]"},
		{3, Config{Pairs: 9}, "[[node-1 node-2] [node-1 node-3] [node-2 node-3]]"},
		{3, Config{From: "node-3", Pairs: 9}, "[[node-3 node-1] [node-3 node-2]]"},
		{3, Config{From: "node-3", To: "node-1"}, "[[node-3 node-1]]"},
		{1, Config{}, "[[node-1 node-1]]"},
		{2, Config{From: "node-9"}, "there is no node node-9 that is Ready; there are node-1, node-2"},
	} {
		s := clustertest.New(t, tt.nodes)
		tt.c.API = s.API(t)
		r := &run{Config: tt.c.withDefaults()}
		err := r.choose(t.Context())
		if got := fmt.Sprint(r.pairs); err == nil && got != tt.want || err != nil && err.Error() != tt.want {
			t.Errorf("%d nodes, %+v: got %s, %v, want %s", tt.nodes, tt.c, got, err, tt.want)
		}
	}
}

// A measurement that fails is told, and the others go on.
func TestMeasureFails(t *testing.T) {
	s := clustertest.New(t, 2)
	s.Run = func(_ context.Context, c cluster.Container, argv []string, _ io.Reader, out, errs io.Writer) error {
		if c.Pod == "net-0" && slices.Contains(argv, "--udp") {
			fmt.Fprint(errs, "middleway: tool perf: no route")
			return errors.New("exit code 1")
		}
		return answer(argv, c.Pod, out)
	}
	r, err := Run(t.Context(), Config{API: s.API(t), Rounds: 1})
	if err != nil {
		t.Fatal(err)
	}
	ways := r.Pairs[0].Ways
	if !r.Failed() || !strings.Contains(ways[1].Measures[1].Error, "no route") || ways[1].Measures[0].Median == 0 {
		t.Errorf("got %+v, %+v", ways[1].Measures[1], ways[1].Measures[0])
	}
}
