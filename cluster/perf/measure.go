package perf

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/middleway-net/middleway/cluster/stage"
)

// way is from one pod to another.
type way struct {
	name string
	from string // the pod that sends
	to   string // control of the pod that serves
	// streams is where streams of TCP go if not to the server itself. Datagrams do not go there.
	streams string
	// base is the way without the pod network, with which others are compared.
	base bool
}

// kind is what is measured, and of which figure ratios are.
type kind struct {
	name  string
	flags []string
	value func(figures) float64
	udp   bool
}

// figures are what of the answer of `tool perf -o json` is told here.
type figures struct {
	BitRate     float64 `json:"bitsPerSecond"`
	PacketRate  float64 `json:"packetsPerSecond"`
	RequestRate float64 `json:"requestsPerSecond"`
	P50         float64 `json:"p50Ms"`
	P99         float64 `json:"p99Ms"`
	Loss        float64 `json:"lossPercent"`
}

// kinds are all kinds, in the order of the table.
var kinds = []kind{
	{"tcp", nil, func(f figures) float64 { return f.BitRate }, false},
	{"udp", []string{"--udp"}, func(f figures) float64 { return f.PacketRate }, true},
	{"connections", []string{"--connections"}, func(f figures) float64 { return f.RequestRate }, false},
	{"latency", []string{"--latency"}, func(f figures) float64 { return f.P50 }, false},
}

// waysOf are those of a pair: between the nodes, and on the first of them.
func (r *run) waysOf(a, b *node) (ways []way) {
	first := int(r.FirstPort)
	if a != b {
		ways = []way{
			{name: "node → node", from: a.pod("host"), to: port(b.host, first), base: true},
			{name: "pod → pod", from: a.pod("net"), to: port(b.net, controlPort)},
			{name: "pod → Service", from: a.pod("net"), to: port(b.net, controlPort), streams: port(b.service, streamPort)},
		}
	}
	return append(ways, way{name: "pod → pod on " + a.name, from: a.pod("net"), to: port(a.peer, controlPort)})
}

// measurePair measures all ways of a pair in turn, again and again.
func (r *run) measurePair(ctx context.Context, a, b *node) error {
	p := &Pair{From: a.name, To: b.name}
	r.report.Pairs = append(r.report.Pairs, p)
	ways := r.waysOf(a, b)
	for _, w := range ways {
		p.Ways = append(p.Ways, newWay(w))
	}
	for range r.Rounds {
		for i, k := range kinds {
			for j, w := range ways {
				if k.udp && w.streams != "" {
					continue
				}
				m := p.Ways[j].Measures[i]
				r.Progress(fmt.Sprintf("%s → %s: %s, %s", a.name, b.name, k.name, w.name))
				f, err := r.measure(ctx, w, k)
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				m.add(f, k, err)
			}
		}
	}
	p.compare()
	return nil
}

// tries is how often a measurement is begun: pods and Services that were made a moment ago may not be known everywhere.
const tries = 3

// retryPause lies between two tries.
const retryPause = time.Second

func (r *run) measure(ctx context.Context, w way, k kind) (f figures, err error) {
	argv := stage.Argv(slices.Concat([]string{"tool", "perf", w.to, "--time", r.Time.String(), "-o", "json"}, k.flags)...)
	if w.streams != "" {
		argv = append(argv, "--to", w.streams)
	}
	for try := 1; ; try++ {
		limited, cancel := context.WithTimeout(ctx, r.Time+30*time.Second)
		err = stage.Ask(limited, r.stage, w.from, container, argv, nil, func(answer figures) { f = answer })
		cancel()
		if err == nil && k.value(f) == 0 {
			err = fmt.Errorf("%s: nothing arrived", w.from)
		}
		if err == nil || try == tries || ctx.Err() != nil {
			return f, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryPause):
		}
	}
}
