package dns_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	wire "github.com/miekg/dns"

	"github.com/middleway-net/middleway/stack/dns"
)

func TestAutopath(t *testing.T) {
	for _, tt := range []struct {
		name, ask, rcode string
		want             []string
		why              string
	}{
		{name: "outside", ask: "www.example.com.default.svc.cluster.local. A",
			want: []string{www, "www.example.com.default.svc.cluster.local. 5 IN CNAME www.example.com."}, why: "one question in place of four"},
		{name: "outside, other family", ask: "foo.example.com.default.svc.cluster.local. AAAA",
			want: []string{"foo.example.com.default.svc.cluster.local. 5 IN CNAME foo.example.com.", soa}, why: "NODATA, else musl gives the A up too"},
		{name: "other namespace", ask: "db.data.default.svc.cluster.local. A", want: []string{
			"db.data.default.svc.cluster.local. 5 IN CNAME db.data.svc.cluster.local.",
			"db.data.svc.cluster.local. 5 IN A 10.244.1.5", "db.data.svc.cluster.local. 5 IN A 10.244.2.6", "db.data.svc.cluster.local. 5 IN A 10.244.2.7",
		}, why: "the second domain of the path"},
		{name: "whole name", ask: "web.default.svc.cluster.local.default.svc.cluster.local. A", want: []string{
			"web.default.svc.cluster.local. 5 IN A 10.96.0.20", "web.default.svc.cluster.local.default.svc.cluster.local. 5 IN CNAME web.default.svc.cluster.local.",
		}, why: "fewer than five dots"},
		{name: "of itself", ask: "web.default.svc.cluster.local. A", want: []string{"web.default.svc.cluster.local. 5 IN A 10.96.0.20"}, why: "it exists"},
		{name: "nothing", ask: "gone.example.com.default.svc.cluster.local. A", rcode: "NXDOMAIN", want: []string{soa}, why: "the resolver goes on"},
		{name: "another's path", ask: "www.example.com.data.svc.cluster.local. A", rcode: "NXDOMAIN", want: []string{soa}, why: "the client is in default"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newResolver(t, network{first: holding(www, foo)}, func(c *dns.Config) {
					c.Autopath = func(a netip.Addr) (string, bool) { return "default", a == client }
				})
				for range 2 {
					got := r.ask(t, newQuery(tt.ask))
					if want := orDefault(tt.rcode, "NOERROR"); wire.RcodeToString[got.Rcode] != want {
						t.Errorf("got %s, want %s: %s", wire.RcodeToString[got.Rcode], want, tt.why)
					}
					if diff := cmp.Diff(tt.want, records(append(got.Answer, got.Ns...))); diff != "" {
						t.Errorf("%s (-want +got):\n%s", tt.why, diff)
					}
				}
			})
		})
	}
}
