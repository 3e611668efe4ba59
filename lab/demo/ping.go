package demo

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/middleway-net/middleway/lab/playground"
	"github.com/middleway-net/middleway/node"
)

const (
	echoes = 10 // requests an address
	// echoWait is how long a reply is waited for: the pods are microseconds away, but the machine may be busy.
	echoWait = time.Second
)

// pingFact is the replies to one pod.
type pingFact struct {
	From string     `json:"from"`
	To   string     `json:"to"`
	Echo []echoFact `json:"echo"`
}

type echoFact struct {
	Addr  netip.Addr `json:"addr"`
	Count int        `json:"count"` // replies; all came
	RTT   Millis     `json:"medianMs"`
}

func (f *pingFact) text() string {
	var words []string
	for _, e := range f.Echo {
		words = append(words, fmt.Sprintf("%v %v", e.Addr, e.RTT))
	}
	return fmt.Sprintf("%s → %s  %s", f.From, f.To, strings.Join(words, ", "))
}

func (r *run) ping(ctx context.Context) {
	for _, p := range r.places() {
		r.check(ctx, p.name, func(ctx context.Context) (fact, error) {
			return ping(ctx, p.client, p.server.Name(), p.server.Addrs()...)
		})
	}
	r.check(ctx, "gateway", func(ctx context.Context) (fact, error) {
		n := r.cluster.Nodes()[0]
		var gateways []netip.Addr
		for _, cidr := range n.Status().PodCIDRs {
			gateways = append(gateways, node.Gateway(cidr))
		}
		return ping(ctx, r.cluster.Pods()[0], n.Name(), gateways...)
	})
}

// ping asks all addresses, also if one does not answer. The fact is nil if none does.
func ping(ctx context.Context, from *playground.Pod, to string, addrs ...netip.Addr) (fact, error) {
	f := &pingFact{From: from.Name(), To: to}
	var errs []error
	for _, a := range addrs {
		rtt, err := medianPing(ctx, from, a)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		f.Echo = append(f.Echo, echoFact{a, echoes, Millis(rtt)})
	}
	if len(f.Echo) == 0 {
		return nil, errors.Join(errs...)
	}
	return f, errors.Join(errs...)
}

func medianPing(ctx context.Context, from *playground.Pod, to netip.Addr) (time.Duration, error) {
	var rtts []time.Duration
	for range echoes {
		ctx, cancel := context.WithTimeout(ctx, echoWait)
		rtt, err := from.Namespace().Ping(ctx, to, 56)
		cancel()
		if timedOut(err) {
			return 0, fmt.Errorf("%s got no reply from %v within %v", from.Name(), to, echoWait)
		}
		if err != nil {
			return 0, err
		}
		rtts = append(rtts, rtt)
	}
	slices.Sort(rtts)
	return rtts[len(rtts)/2], nil
}
