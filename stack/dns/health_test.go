package dns_test

import (
	"context"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	wire "github.com/miekg/dns"

	"github.com/middleway-net/middleway/stack/dns"
)

func TestUpstreamDownIsAskedLast(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var asked atomic.Int32
		up := atomic.Bool{}
		sometimes := func(network string, query []byte) [][]byte {
			if asked.Add(1); !up.Load() {
				return nil
			}
			return holding(www, foo)(network, query)
		}
		r := newResolver(t, network{first: sometimes, second: holding(www, foo)}, nil)
		background(t, r.Run)
		time.Sleep(5 * time.Second) // probes fail
		if got := r.Stats().Upstreams; got[0].State != "down" || got[1].State != "up" {
			t.Errorf("got %+v, want the first down", got)
		}
		began := time.Now()
		if got := only(t, r.ask(t, newQuery("www.example.com. A"))); got != www || time.Since(began) > 0 {
			t.Errorf("got %q after %v, want it at once from the second", got, time.Since(began))
		}
		up.Store(true)
		time.Sleep(5 * time.Second)
		if got := r.Stats().Upstreams; got[0].State != "up" {
			t.Errorf("got %+v, want the first up again", got)
		}
	})
}

func TestLoop(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var r *resolver
		back := newPacketConn()
		// A resolver of the machine that asks us in turn.
		leadsBack := func(_ string, query []byte) [][]byte {
			back.in <- datagram{append([]byte(nil), query...), clientPort}
			return [][]byte{(<-back.out).b}
		}
		r = newResolver(t, network{first: leadsBack}, nil)
		background(t, func(ctx context.Context) error { return r.ServeUDP(ctx, back) })
		background(t, r.Run)
		synctest.Wait()
		if got := r.Stats().Upstreams[0].State; got != "loop" {
			t.Errorf("got %q, want loop", got)
		}
		before := r.Stats().Upstreams[0].Queries
		if got := r.ask(t, newQuery("www.example.com. A")); got.Rcode != wire.RcodeServerFailure {
			t.Errorf("got %v, want SERVFAIL", got)
		}
		if got := r.Stats().Upstreams[0].Queries; got != before {
			t.Errorf("got %d further questions upstream, want none", got-before)
		}
	})
}

// Other upstreams are asked from the next question on, and one that stays is known as it was.
func TestSetUpstreams(t *testing.T) {
	bubble(t, func(t *testing.T) {
		silent := answering(func(*wire.Msg, bool) *wire.Msg { return nil })
		r := newResolver(t, network{first: silent, second: holding(www)}, func(c *dns.Config) { c.Upstreams = c.Upstreams[:1] })
		background(t, r.Run)
		time.Sleep(10 * time.Second)
		if got := r.ask(t, newQuery("www.example.com. A")); got.Rcode != wire.RcodeServerFailure {
			t.Errorf("got %v, want SERVFAIL", got)
		}
		if err := r.SetUpstreams([]netip.AddrPort{netip.MustParseAddrPort(first), netip.MustParseAddrPort(second)}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second) // the failure is forgotten
		began := time.Now()
		if got := only(t, r.ask(t, newQuery("www.example.com. A"))); got != www || time.Since(began) > 0 {
			t.Errorf("got %q after %v, want it at once: the first is known to be down", got, time.Since(began))
		}
		if err := r.SetUpstreams([]netip.AddrPort{netip.MustParseAddrPort("10.96.0.10:53")}); err == nil {
			t.Error("the cluster's DNS itself was taken")
		}
		if got := r.Stats().Upstreams; len(got) != 2 {
			t.Errorf("got %+v, want those before", got)
		}
	})
}
