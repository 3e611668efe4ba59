package demo

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/lab/playground"
	"github.com/middleway-net/middleway/lab/tool"
	"github.com/middleway-net/middleway/lab/trace"
)

const (
	// serviceRequests is enough for each of four pods to be chosen, but once in 10,000 runs.
	serviceRequests = 40
	// serviceTries is how often a trace is asked for one that leads to the other node: one of two does.
	serviceTries = 32
	// drawingColumns are those of the other drawing.
	drawingColumns = 80
)

// serviceFact is a Service as a pod found and used it.
type serviceFact struct {
	From     string         `json:"from"`
	Name     string         `json:"name"`
	Address  netip.Addr     `json:"address"` // which the name has
	Requests int            `json:"requests"`
	Answers  map[string]int `json:"answers"` // by the pod that gave them
}

func (f *serviceFact) text() string {
	var by []string
	for _, pod := range slices.Sorted(maps.Keys(f.Answers)) {
		by = append(by, fmt.Sprintf("%s %d", pod, f.Answers[pod]))
	}
	return fmt.Sprintf("%s is %v, says the daemon\n%d requests to it: %s", f.Name, f.Address, f.Requests, strings.Join(by, ", "))
}

// traceFact is a trace to the Service.
type traceFact struct{ *trace.Trace }

func (f traceFact) text() string {
	steps := 0
	for _, h := range f.Hops {
		steps += len(h.Names)
		if h.Trace != nil {
			steps += len(h.Steps)
		}
	}
	return fmt.Sprintf("%d steps on %d nodes, to %s:", steps, len(f.Hops), f.Ends)
}

func (f traceFact) drawing(paint func(style, s string) string) string {
	var b strings.Builder
	_ = f.Write(&b, trace.Style{Paint: paint, Width: drawingColumns}) // a Builder takes all
	return b.String()
}

func (r *run) service(ctx context.Context) {
	client := r.cluster.Pods()[0]
	r.check(ctx, "by its name", func(ctx context.Context) (fact, error) { return askService(ctx, r.cluster, client) })
	r.check(ctx, "every decision", func(ctx context.Context) (fact, error) { return traceService(ctx, r.cluster, client) })
}

// askService asks the Service of the default pods by its name.
func askService(ctx context.Context, c *playground.Cluster, client *playground.Pod) (fact, error) {
	f := &serviceFact{From: client.Name(), Name: playground.DefaultService + ".default.svc.cluster.local", Requests: serviceRequests, Answers: map[string]int{}}
	addrs, err := awaitName(ctx, client, f.Name)
	if err != nil {
		return nil, err
	}
	f.Address = addrs[0].Unmap()
	server := netip.AddrPortFrom(f.Address, playground.DefaultServicePort)
	for range serviceRequests {
		v, err := getWithin(ctx, client, server)
		if err != nil {
			return f, requestError(client, server, err)
		}
		f.Answers[v.Hostname]++
	}
	if len(f.Answers) < len(c.Pods()) {
		return f, fmt.Errorf("only %s answered: the Service has more pods", strings.Join(slices.Sorted(maps.Keys(f.Answers)), ", "))
	}
	return f, nil
}

func getWithin(ctx context.Context, client *playground.Pod, server netip.AddrPort) (tool.Visit, error) {
	ctx, cancel := context.WithTimeout(ctx, requestWait)
	defer cancel()
	return tool.Get(ctx, client.Namespace().Dial, server)
}

// awaitName asks the cluster's DNS from inside a pod, until it knows the name.
func awaitName(ctx context.Context, client *playground.Pod, name string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, serverWait)
	defer cancel()
	dns := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return client.Namespace().Dial(ctx, network, netip.AddrPortFrom(lab.ClusterDNS4(), 53).String())
	}}
	for {
		addrs, err := dns.LookupNetIP(ctx, "ip4", name+".")
		if err == nil {
			return addrs, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%s found no address of %s within %v: %w", client.Name(), name, serverWait, err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// traceService asks for every decision on the way to the Service; where it can, for one that leads to the other node.
func traceService(ctx context.Context, c *playground.Cluster, client *playground.Pod) (fact, error) {
	var t *trace.Trace
	at, err := trace.Playground(ctx, c.Dir())
	if err != nil {
		return nil, err
	}
	for range serviceTries {
		t, err = trace.Follow(ctx, at, trace.Request{Namespace: "default", Pod: client.Name(), Destination: playground.DefaultService})
		if err != nil {
			return nil, err
		}
		if !t.Arrives() {
			return traceFact{t}, fmt.Errorf("the packet of %s does not arrive: %s %s", client.Name(), t.Verdict, t.Reason)
		}
		if len(t.Hops) > 1 {
			break
		}
	}
	return traceFact{t}, nil
}
