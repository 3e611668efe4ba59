package dns_test

import (
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	wire "github.com/miekg/dns"

	"github.com/middleway-net/middleway/stack/dns"
)

func TestPodNames(t *testing.T) {
	const pod, other, gone = "10-244-1-5.default.pod.cluster.local. A", "10-244-1-5.data.pod.cluster.local. A", "10-244-1-6.default.pod.cluster.local. A"
	for _, tt := range []struct {
		name  string
		pods  dns.PodNames
		rcode map[string]int
	}{
		{"insecure", dns.PodsInsecure, map[string]int{pod: wire.RcodeSuccess, other: wire.RcodeSuccess, gone: wire.RcodeSuccess, "pod.cluster.local. A": wire.RcodeSuccess}},
		{"disabled", dns.PodsDisabled, map[string]int{pod: wire.RcodeNameError, other: wire.RcodeNameError, gone: wire.RcodeNameError, "pod.cluster.local. A": wire.RcodeNameError}},
		{"verified", dns.PodsVerified, map[string]int{pod: wire.RcodeSuccess, other: wire.RcodeNameError, gone: wire.RcodeNameError, "default.pod.cluster.local. A": wire.RcodeSuccess}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := zoneConfig
			c.Pods = tt.pods
			z, err := dns.NewZone(c)
			if err != nil {
				t.Fatal(err)
			}
			for _, change := range []dns.Changes{
				{Namespaces: map[string]bool{"default": true, "data": true}, Pods: map[string][]netip.Addr{"default/web": addrs("10.244.1.5"), "default/gone": addrs("10.244.1.6")}},
				{Pods: map[string][]netip.Addr{"default/gone": nil, "default/web": addrs("10.244.1.5", "fd00:10:244:1::5")}},
			} {
				if z, err = z.With(change); err != nil {
					t.Fatal(err)
				}
			}
			s := newServer(t, z)
			for ask, want := range tt.rcode {
				if got := exchange(t, s, newQuery(ask)); got.Rcode != want {
					t.Errorf("%s: got %s, want %s", ask, wire.RcodeToString[got.Rcode], wire.RcodeToString[want])
				}
			}
		})
	}
}

// A zone stays as it was when the next one is made of it.
func TestZonesDoNotChange(t *testing.T) {
	before := clusterZone(t)
	after, err := before.With(dns.Changes{
		Services:   map[string]*dns.Service{"default/web": nil, "default/new": {Namespace: "default", Name: "new", ClusterIPs: addrs("10.96.0.40")}},
		Namespaces: map[string]bool{"empty": false, "further": true},
	})
	if err != nil {
		t.Fatal(err)
	}
	for ask, want := range map[string][2]int{
		"web.default.svc.cluster.local. A": {wire.RcodeSuccess, wire.RcodeNameError},
		"20.0.96.10.in-addr.arpa. PTR":     {wire.RcodeSuccess, wire.RcodeNameError},
		"new.default.svc.cluster.local. A": {wire.RcodeNameError, wire.RcodeSuccess},
		"empty.svc.cluster.local. A":       {wire.RcodeSuccess, wire.RcodeNameError},
		"further.svc.cluster.local. A":     {wire.RcodeNameError, wire.RcodeSuccess},
		"db.data.svc.cluster.local. A":     {wire.RcodeSuccess, wire.RcodeSuccess},
	} {
		for i, z := range []*dns.Zone{before, after} {
			if got := exchange(t, newServer(t, z), newQuery(ask)); got.Rcode != want[i] {
				t.Errorf("%s: zone %d says %s, want %s", ask, i, wire.RcodeToString[got.Rcode], wire.RcodeToString[want[i]])
			}
		}
	}
}

// What cannot be in a zone is left out with a sentence, and the rest is in it.
func TestMistakesInServices(t *testing.T) {
	long := strings.Repeat("a", 64)
	z, err := clusterZone(t).With(dns.Changes{
		Services: map[string]*dns.Service{
			"default/out":     {Namespace: "default", Name: "out", ExternalName: "a..b"},
			"default/" + long: {Namespace: "default", Name: long, ClusterIPs: addrs("10.96.0.41")},
			"default/new":     {Namespace: "default", Name: "new", ClusterIPs: addrs("10.96.0.40")},
		},
		Namespaces: map[string]bool{"": true},
	})
	for _, want := range []string{`service default/out: externalName: name "a..b": a label has 1 to 63 bytes`, "service default/" + long + ": ", `namespace: "": not a label`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	s := newServer(t, z)
	if got := exchange(t, s, newQuery("new.default.svc.cluster.local. A")); len(got.Answer) != 1 {
		t.Errorf("got %v", got)
	}
	if got := exchange(t, s, newQuery("out.default.svc.cluster.local. A")); got.Rcode != wire.RcodeNameError {
		t.Errorf("got %v", got)
	}
}

func TestZoneConfig(t *testing.T) {
	for want, c := range map[string]dns.ZoneConfig{
		"cluster domain: the root is none":   {Domain: "."},
		`cluster domain: name "a..b"`:        {Domain: "a..b"},
		"time to live 1h0m1s: whole seconds": {TTL: time.Hour + time.Second},
		"time to live 100ms: whole seconds":  {TTL: 100 * time.Millisecond},
		"at most 255 bytes in a message":     {Domain: strings.Repeat("abcdefg.", 40)},
	} {
		if _, err := dns.NewZone(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %q", c, err, want)
		}
	}
	z, err := dns.NewZone(dns.ZoneConfig{Domain: "Test.Example.", TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	s, err := dns.New(dns.Config{Zone: z})
	if err != nil {
		t.Fatal(err)
	}
	s.SetZone(z)
	got := exchange(t, s, newQuery("dns-version.test.example. TXT"))
	if len(got.Answer) != 1 || got.Answer[0].Header().Ttl != 60 {
		t.Errorf("got %v", got)
	}
}

// A Service of ten endpoints takes less than 700 bytes: 7 MB for 10,000.
func TestZoneMemory(t *testing.T) {
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	const n = 2000
	z := largeZone(t, n)
	used := (heap() - before) / n
	t.Logf("%d bytes", used)
	if used > 700 {
		t.Errorf("a Service takes %d bytes, want at most 700", used)
	}
	runtime.KeepAlive(z)
}

// Answers go on while zones follow each other.
func TestSetZoneMeanwhile(t *testing.T) {
	z := clusterZone(t)
	s := newServer(t, z)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 200 {
			var web *dns.Service
			if i%2 == 1 {
				web = clusterServices[0]
			}
			next, err := z.With(dns.Changes{Services: map[string]*dns.Service{"default/web": web}})
			if err != nil {
				t.Error(err)
			}
			z = next
			s.SetZone(z)
		}
	}()
	out := make([]byte, dns.MaxUDP)
	query := pack(t, newQuery("web.default.svc.cluster.local. A"))
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		if n, ok := s.Answer(out, query, client); !ok || out[3]&15 != wire.RcodeSuccess && out[3]&15 != wire.RcodeNameError {
			t.Fatalf("got %x", out[:n])
		}
	}
}
