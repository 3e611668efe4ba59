package k8s

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/service"
)

// portAt is a Service that no object describes.
func portAt(ip, backend string) *service.Service {
	to := netip.MustParseAddrPort(backend)
	all := []service.Backend{{Addr: packet.KeyOf(to.Addr()), Port: to.Port()}}
	return &service.Service{Frontends: map[service.Frontend]*service.Port{
		{Addr: netip.MustParseAddr(ip), Proto: packet.TCP, Port: 80}: {Name: "hostport/web:80", Internal: service.Choice{Backends: all, Why: "it is one"}, Serving: all},
	}}
}

// What no source tells is in force before a source has told anything, beside it afterwards, and until it is gone.
func TestFurther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &targets{}
		told := make(chan struct{})
		source := has(serviceOf("web"), sliceOf("web-x", "web", "10.244.1.2"))
		p := New(r.config(sourceFunc(func(ctx context.Context, into *Store) error { <-told; return source(ctx, into) })))
		p.SetFurther(map[string]*service.Service{"hostport/a": portAt("192.168.254.11", "10.244.1.3:80")})
		end := start(t, p)
		defer end()
		check := func(calls []string, ofA, ofB, ofWeb string) {
			t.Helper()
			time.Sleep(time.Second) // changes are gathered
			synctest.Wait()
			if diff := cmp.Diff(calls, r.taken()); diff != "" {
				t.Errorf("in force (-want +got):\n%s", diff)
			}
			for ip, want := range map[string]string{"192.168.254.11": ofA, "192.168.254.12": ofB, "10.96.0.20": ofWeb} {
				if got := r.backends(ip); got != want {
					t.Errorf("%s: got %q, want %q", ip, got, want)
				}
			}
		}
		const a, b, web = "[10.244.1.3:80] it is one", "[10.244.1.4:80] it is one", "[10.244.1.2:8080] ready"
		check([]string{"recalled"}, a, "", "")
		close(told)
		check([]string{"nodes", "services"}, a, "", web)
		p.SetFurther(map[string]*service.Service{"hostport/b": portAt("192.168.254.12", "10.244.1.4:80")})
		check([]string{"services"}, "", b, web)
		p.Store().Set(sliceOf("web-x", "web", "10.244.1.5"))
		check([]string{"services"}, "", b, "[10.244.1.5:8080] ready")
		p.SetFurther(nil)
		check([]string{"services"}, "", "", "[10.244.1.5:8080] ready")
	})
}
