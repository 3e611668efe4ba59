package k8s

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/middleway-net/middleway/k8s/object"
	"github.com/middleway-net/middleway/k8s/services"
	"github.com/middleway-net/middleway/stack/dns"
	"github.com/middleway-net/middleway/stack/service"
)

// Size of the benchmarks: Services × endpoints.
const (
	manyServices  = 10_000
	manyEndpoints = 10
)

func manyObjects() (all []object.Object) {
	for i := range manyServices {
		ip := netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})
		s := serviceWith(fmt.Sprintf("web-%05d", i), ip.String())
		all = append(all, s, manySlice(i, 0))
	}
	return all
}

// manySlice returns the slice of the i-th Service. Its strings are its own, as those of a decoded object are; those that
// package object shares are shared.
func manySlice(i, version int) *object.EndpointSlice {
	s := sliceOf(fmt.Sprintf("web-%05d-x7k2p", i), fmt.Sprintf("web-%05d", i))
	s.Endpoints = make([]object.Endpoint, 0, manyEndpoints)
	for k := range manyEndpoints {
		n := i*manyEndpoints + k
		s.Endpoints = append(s.Endpoints, object.Endpoint{
			Addr: netip.AddrFrom4([4]byte{10, byte(244 + version&1), byte(n >> 8), byte(n)}), Node: nodeNames[n%len(nodeNames)],
			Ready: true, Serving: true,
		})
	}
	return s
}

var nodeNames = func() (all [100]string) {
	for i := range all {
		all[i] = fmt.Sprint("n", i)
	}
	return all
}()

// BenchmarkEvent measures the time from a changed EndpointSlice in the store until table and zone were handed on, among 10,000
// Services with 10 endpoints each; each event comes alone.
func BenchmarkEvent(b *testing.B) {
	set := make(chan struct{}, 1)
	store := make(chan *Store, 1)
	p := New(Config{
		Source: sourceFunc(func(ctx context.Context, into *Store) error {
			into.Replace(manyObjects(), object.Kinds...)
			store <- into
			<-ctx.Done()
			return nil
		}),
		Node: "n1", Log: slog.New(slog.DiscardHandler), Zone: zone(b), SetZone: func(*dns.Zone) { set <- struct{}{} }, // it comes last
	})
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	into := <-store
	<-set
	time.Sleep(2 * quiet)
	var total, slowest time.Duration
	n := 0
	for b.Loop() {
		n++
		next := manySlice(n%manyServices, n/manyServices+1)
		began := time.Now()
		into.Set(next)
		<-set
		d := time.Since(began)
		total, slowest = total+d, max(slowest, d)
		b.StopTimer()
		time.Sleep(2 * quiet)
		b.StartTimer()
	}
	b.ReportMetric(float64(slowest.Microseconds()), "slowest-µs")
	b.ReportMetric(float64(total.Microseconds())/float64(n), "event-µs")
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}

// maxTables bounds, in bytes, what a node's tables of all these Services take.
const maxTables = 10 << 20

func TestTablesAreSmall(t *testing.T) {
	if _, tables, _ := memory(t); tables > maxTables {
		t.Errorf("the tables of %d Services with %d endpoints take %d bytes, want %d at most", manyServices, manyEndpoints, tables, maxTables)
	}
}

// BenchmarkMemory measures what 10,000 Services with 10 endpoints each take: the stripped objects, the tables and the zone.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		objects, tables, zone := memory(b)
		b.ReportMetric(float64(objects), "objects-B")
		b.ReportMetric(float64(tables), "tables-B")
		b.ReportMetric(float64(zone), "zone-B")
	}
}

func memory(t testing.TB) (objects, tables, zones int64) {
	before := heap()
	all := manyObjects()
	store := NewStore()
	store.Replace(all, object.Kinds...)
	store.Take()
	clear(all)
	objects = heap() - before

	p := &Pipeline{config: Config{Log: slog.New(slog.DiscardHandler)}, store: store, table: service.New(nil)}
	p.applyServices(p.allServices(nil))
	tables = heap() - before - objects
	p.zone = zone(t)
	p.applyZone(Changes{Services: p.allServices(nil)})
	zones = heap() - before - objects - tables
	runtime.KeepAlive(p)
	return objects, tables, zones
}

func zone(t testing.TB) *dns.Zone {
	z, err := dns.NewZone(dns.ZoneConfig{})
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// BenchmarkCompileAll measures the compilation of all of them.
func BenchmarkCompileAll(b *testing.B) {
	store := NewStore()
	store.Replace(manyObjects(), object.Kinds...)
	names := store.Names(object.Services)
	b.ReportAllocs()
	for b.Loop() {
		for _, name := range names {
			s, slices := store.Service(name)
			services.Compile(s, slices, services.Node{Name: "n1"})
		}
	}
}

// BenchmarkRestart measures the time from the start of a daemon, whose source does not answer, until the table of the objects that
// the former one kept was handed on.
func BenchmarkRestart(b *testing.B) {
	c := Config{Node: "n1", Log: slog.New(slog.DiscardHandler), Kept: filepath.Join(b.TempDir(), "objects.db")}
	run := func(s Source) {
		ctx, cancel := context.WithCancel(b.Context())
		c.Source, c.SetServices = s, func(*service.Table) { cancel() }
		c.RecallServices = c.SetServices
		if err := New(c).Run(ctx); err != nil {
			b.Fatal(err)
		}
	}
	run(has(manyObjects()...))
	info, err := os.Stat(c.Kept)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		run(sourceFunc(silent))
	}
	b.ReportMetric(float64(info.Size()), "file-B")
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
