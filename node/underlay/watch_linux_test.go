package underlay_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node/underlay"
)

func TestMain(m *testing.M) { lab.Main(m) }

// A watch tells of links, addresses and, if it is asked to, routes, and of many changes at once in few calls.
func TestWatch(t *testing.T) {
	for _, tt := range []struct {
		name   string
		watch  func(context.Context, func()) error
		routes bool
	}{
		{"interfaces", underlay.Watch, false},
		{"routes too", underlay.WatchRoutes, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ns, err := lab.NewNamespace("watched")
			if err != nil {
				t.Fatal(err)
			}
			defer ns.Close()
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			told := make(chan struct{}, 1000)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() {
				ended <- ns.Do(func() error { return tt.watch(ctx, func() { told <- struct{}{} }) })
			}()
			wait := func(what string) {
				t.Helper()
				select {
				case <-told:
				case err := <-ended:
					t.Fatalf("%s: the watch ended: %v", what, err)
				case <-time.After(20 * time.Second):
					t.Fatalf("%s: not told", what)
				}
			}
			wait("that it watches")
			const addresses = 200
			begin := time.Now()
			for i := range addresses {
				must(ns.AddAddr("lo", netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), 32)))
			}
			wait("an address")
			nl, err := ns.Netlink()
			must(err)
			lo, err := nl.LinkByName("lo")
			must(err)
			must(nl.LinkSetMTU(lo, 9000))
			took := time.Since(begin)
			calls := 1
			for quiet := false; !quiet; {
				select {
				case <-told:
					calls++
				case <-time.After(time.Second):
					quiet = true
				}
			}
			if most := 3 + int(took/(100*time.Millisecond)); calls > most {
				t.Errorf("%d changes within %v were %d calls, want at most %d", addresses+1, took, calls, most)
			}
			must(ns.AddRoute(netip.MustParsePrefix("198.51.100.0/24"), netip.Addr{}, "lo"))
			if tt.routes {
				wait("a route")
			}
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			if len(told) > 0 {
				t.Errorf("%d more calls", len(told))
			}
		})
	}
}
