package k8s

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/middleway-net/middleway/k8s/object"
	"github.com/middleway-net/middleway/stack/dns"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/service"
)

// sourceFunc is a Source that a test plays.
type sourceFunc func(ctx context.Context, into *Store) error

func (f sourceFunc) Run(ctx context.Context, into *Store) error { return f(ctx, into) }

// silent is a source that cannot be reached.
func silent(ctx context.Context, _ *Store) error {
	<-ctx.Done()
	return nil
}

// has is a source that has objects, and no others.
func has(all ...object.Object) sourceFunc {
	return func(ctx context.Context, into *Store) error {
		for _, o := range all {
			into.Set(o)
		}
		for _, kind := range object.Kinds {
			into.SetSynced(kind)
		}
		<-ctx.Done()
		return nil
	}
}

// targets notes what a pipeline hands on.
type targets struct {
	mu    sync.Mutex
	table *service.Table
	zone  *dns.Zone
	nodes []*object.Node
	calls []string
	times []time.Time
}

func (r *targets) note(call string, set func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	set()
	r.calls = append(r.calls, call)
	r.times = append(r.times, time.Now())
}

// taken returns what was handed on since the last call.
func (r *targets) taken() []string {
	calls, _ := r.takenAt()
	return calls
}

func (r *targets) takenAt() ([]string, []time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	calls, times := r.calls, r.times
	r.calls, r.times = nil, nil
	return calls, times
}

func (r *targets) numNodes() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.nodes)
}

// backends returns where the table leads a client of a ClusterIP's port 80, "" for nowhere.
func (r *targets) backends(ip string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.table == nil {
		return ""
	}
	f := packet.NewFlow(packet.TCP, netip.MustParseAddrPort("10.244.1.9:40000"), netip.AddrPortFrom(netip.MustParseAddr(ip), 80))
	port, found := r.table.Lookup(&f)
	if found != service.AtPort {
		return ""
	}
	var list []string
	for _, b := range port.Internal.Backends {
		list = append(list, b.AddrPort().String())
	}
	return fmt.Sprintf("%v %v", list, port.Internal.Why)
}

func (r *targets) config(s Source) Config {
	return Config{
		Source: s, Node: "n1", Ranges: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}, Log: slog.New(slog.DiscardHandler),
		SetServices:    func(t *service.Table) { r.note("services", func() { r.table = t }) },
		RecallServices: func(t *service.Table) { r.note("recalled", func() { r.table = t }) },
		SetNodes:       func(n []*object.Node) { r.note("nodes", func() { r.nodes = n }) },
		SetZone:        func(z *dns.Zone) { r.note("zone", func() { r.zone = z }) },
	}
}

// start runs a pipeline until the test or the returned function ends it.
func start(t *testing.T, p *Pipeline) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	end = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(end)
	return end
}

func TestNothingBeforeAllIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &targets{}
		p := New(r.config(sourceFunc(silent)))
		end := start(t, p)
		p.Store().Set(serviceOf("web"))
		p.Store().Set(sliceOf("web-x", "web", "10.244.1.2"))
		for _, kind := range object.Kinds {
			time.Sleep(time.Second)
			synctest.Wait()
			if calls := r.taken(); calls != nil || p.Stats().Synced {
				t.Fatalf("before %v have synced: %v in force", kind, calls)
			}
			p.Store().SetSynced(kind)
		}
		synctest.Wait()
		if diff := cmp.Diff([]string{"nodes", "services"}, r.taken()); diff != "" {
			t.Errorf("in force (-want +got):\n%s", diff)
		}
		if got, want := r.backends("10.96.0.20"), "[10.244.1.2:8080] ready"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		end()
	})
}

// An empty cluster is in force too: its addresses are refused, and not unknown.
func TestEmptyCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &targets{}
		end := start(t, New(r.config(has())))
		synctest.Wait()
		if diff := cmp.Diff([]string{"nodes", "services"}, r.taken()); diff != "" {
			t.Errorf("in force (-want +got):\n%s", diff)
		}
		end()
	})
}

func TestChangesAreGathered(t *testing.T) {
	ms := time.Millisecond
	tests := []struct {
		name    string
		changes []time.Duration // after the first second
		want    []time.Duration // when they come into force
	}{
		{"one", []time.Duration{0}, []time.Duration{0}},
		{"two, far apart", []time.Duration{0, time.Second}, []time.Duration{0, time.Second}},
		{"two, close together", []time.Duration{0, ms}, []time.Duration{0, ms + quiet}},
		{"a burst", []time.Duration{0, ms, 2 * ms, 3 * ms}, []time.Duration{0, 3*ms + quiet}},
		{"no end", []time.Duration{0, 4 * ms, 8 * ms, 12 * ms, 16 * ms, 20 * ms, 23 * ms}, []time.Duration{0, 4*ms + most}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &targets{}
				p := New(r.config(has()))
				end := start(t, p)
				time.Sleep(time.Second)
				r.taken()
				began := time.Now()
				for i, at := range tt.changes {
					time.Sleep(at - time.Since(began))
					p.Store().Set(sliceOf("web-x", "web", fmt.Sprintf("10.244.1.%d", i+2)))
					synctest.Wait()
				}
				time.Sleep(time.Second)
				var got []time.Duration
				_, times := r.takenAt()
				for _, at := range times {
					got = append(got, at.Sub(began))
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("in force (-want +got):\n%s", diff)
				}
				if s := p.Stats(); s.LatencyMax > most || s.Changes != uint64(len(tt.want)) {
					t.Errorf("%d changes, the slowest after %v", s.Changes, s.LatencyMax)
				}
				end()
			})
		})
	}
}

// Only what changed is compiled; and everything if this node's zone has changed, by which hints mean others.
func TestWhatIsCompiled(t *testing.T) {
	hinted := sliceOf("web-x", "web", "10.244.1.2", "10.244.2.2")
	for i, zone := range []string{"a", "b"} {
		hinted.Endpoints[i].Hints = &object.Hints{Zones: []string{zone}}
	}
	tests := []struct {
		name  string
		do    func(*Store)
		want  int // Services compiled
		calls []string
		at    string
	}{
		{"nothing", func(s *Store) { s.Set(serviceOf("web")) }, 0, nil, "[10.244.1.2:8080 10.244.2.2:8080] ready"},
		{"its slice", func(s *Store) { s.Set(sliceOf("web-x", "web", "10.244.1.3")) }, 1, []string{"services"}, "[10.244.1.3:8080] ready"},
		{"a second slice", func(s *Store) { s.Set(sliceOf("web-y", "web", "10.244.1.3")) }, 1, []string{"services"}, "[10.244.1.2:8080 10.244.1.3:8080 10.244.2.2:8080] ready"},
		{"it is deleted", func(s *Store) { s.Delete(object.Services, key("web")) }, 1, []string{"services"}, ""},
		{"this node gets a zone", func(s *Store) { s.Set(&object.Node{Name: "n1", Zone: "b"}) }, 3, []string{"nodes", "services"}, "[10.244.2.2:8080] ready, and hinted for this node's zone"},
		{"another node gets a zone", func(s *Store) { s.Set(&object.Node{Name: "n2", Zone: "b"}) }, 0, []string{"nodes"}, "[10.244.1.2:8080 10.244.2.2:8080] ready"},
		{"a pod", func(s *Store) { s.Set(&object.Pod{Key: key("web-1")}) }, 0, nil, "[10.244.1.2:8080 10.244.2.2:8080] ready"},
		{"a pause of the source", func(*Store) { time.Sleep(time.Hour) }, 0, nil, "[10.244.1.2:8080 10.244.2.2:8080] ready"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &targets{}
				p := New(r.config(has(&object.Node{Name: "n1"}, serviceOf("web"), hinted, serviceWith("db", "10.96.0.21"), serviceWith("api", "10.96.0.22"))))
				end := start(t, p)
				time.Sleep(time.Second)
				r.taken()
				before := p.Stats().Compiled
				tt.do(p.Store())
				time.Sleep(time.Second)
				if got := int(p.Stats().Compiled - before); got != tt.want {
					t.Errorf("%d Services compiled, want %d", got, tt.want)
				}
				if diff := cmp.Diff(tt.calls, r.taken()); diff != "" {
					t.Errorf("handed on (-want +got):\n%s", diff)
				}
				if got := r.backends("10.96.0.20"); got != tt.at {
					t.Errorf("got %q, want %q", got, tt.at)
				}
				end()
			})
		})
	}
}

func TestZone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &targets{}
		c := r.config(has(&object.Namespace{Name: "default"}, serviceOf("web")))
		var err error
		if c.Zone, err = dns.NewZone(dns.ZoneConfig{}); err != nil {
			t.Fatal(err)
		}
		p := New(c)
		end := start(t, p)
		time.Sleep(time.Second)
		if diff := cmp.Diff([]string{"nodes", "services", "zone"}, r.taken()); diff != "" {
			t.Errorf("in force (-want +got):\n%s", diff)
		}
		p.Store().Set(&object.Namespace{Name: "other"})
		time.Sleep(time.Second)
		if diff := cmp.Diff([]string{"zone"}, r.taken()); diff != "" {
			t.Errorf("after a namespace (-want +got):\n%s", diff)
		}
		p.Store().Delete(object.Services, key("web"))
		time.Sleep(time.Second)
		if diff := cmp.Diff([]string{"services", "zone"}, r.taken()); diff != "" {
			t.Errorf("after a Service (-want +got):\n%s", diff)
		}
		end()
	})
}

func TestSourceFails(t *testing.T) {
	broken := errors.New("no inotify")
	p := New((&targets{}).config(sourceFunc(func(context.Context, *Store) error { return broken })))
	if err := p.Run(t.Context()); !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
}

func serviceWith(name, ip string) *object.Service {
	s := serviceOf(name)
	s.ClusterIPs = []netip.Addr{netip.MustParseAddr(ip)}
	return s
}

func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 10 s", what)
		}
	}
}
