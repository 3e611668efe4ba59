package service

import (
	"context"
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/middleway-net/middleway/lab"
)

// TestBalance: connections spread evenly over three backends, on the client's node and on another.
//
// Of n connections each backend gets n/3, with a standard deviation of √(2n)/3. For 10,000 that is 47, and 5 % of the mean is 3.5 of
// them: a fair choice is farther off once in 800 times, so three tries in a row once in 500,000,000. A short run takes 1,000 connections,
// once, and the bound that a fair choice crosses less than once in a million times: 5.1 standard deviations, for three backends.
func TestBalance(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{Pods: []int{2, 2}})
	backends := []*lab.Pod{c.pod(1, 2), c.pod(2, 1), c.pod(2, 2)}
	for _, p := range backends {
		servePod(t, p)
	}
	c.put(service("web", 1), onPod(1, backends[0]), onPod(2, backends[1]), onPod(2, backends[2]))
	n, bound, tries := 10_000, 0.05, 3
	if testing.Short() {
		n, tries = 1000, 1
		bound = 5.1 * math.Sqrt(2*float64(n)) / float64(n)
	}
	for try := 1; ; try++ {
		begin := time.Now()
		got := connect(t, c.pod(1, 1).Namespace, at(v4, 1), n)
		worst := 0.0
		for _, p := range backends {
			worst = max(worst, math.Abs(float64(got[p.Name()])*3/float64(n)-1))
		}
		t.Logf("%d connections in %v: %v, at most %.1f %% off", n, time.Since(begin).Round(time.Millisecond), got, 100*worst)
		if worst <= bound {
			return
		}
		if try == tries {
			t.Fatalf("want at most %.1f %% off even", 100*bound)
		}
	}
}

// connect makes n connections, some at a time, and returns how many each backend got.
func connect(t *testing.T, from *lab.Namespace, to netip.AddrPort, n int) map[string]int {
	t.Helper()
	const clients = 8
	got, mu, wg := map[string]int{}, sync.Mutex{}, sync.WaitGroup{}
	for i := range clients {
		wg.Go(func() {
			err := from.Do(func() error { // once for all: a thread of its own for each connection costs more than the connection
				for range (n + i) / clients {
					s, err := ask(here{}, "tcp", to)
					if err != nil {
						return err
					}
					mu.Lock()
					got[s.name]++
					mu.Unlock()
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	return got
}

// TestRemovedUnderLoad: once a backend has left the slices no new connection goes there, and those that it has live on until their ends.
// No connection fails meanwhile. Whether the node was within 100 ms is asked of the quickest of some removals, since the machine may
// have stood still in the others.
func TestRemovedUnderLoad(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{Pods: []int{2, 2}})
	pods := []*lab.Pod{c.pod(1, 2), c.pod(2, 1), c.pod(2, 2)}
	web, all := service("web", 1), []endpoint{onPod(1, pods[0]), onPod(2, pods[1]), onPod(2, pods[2])}
	for _, p := range pods {
		servePod(t, p)
	}
	c.put(web, all...)
	l := startLoad(t, c.pod(1, 1).Namespace, at(v4, 1))
	const most = 100 * time.Millisecond
	quickest := time.Hour
	for round := 0; round < 9 && quickest > most; round++ {
		gone := round % len(pods)
		held := hold(t, c.pod(1, 1), at(v4, 1), pods[gone].Name())
		var left []endpoint
		for i, e := range all {
			if i != gone {
				left = append(left, e)
			}
		}
		c.write(slicesOf(web, left...)...)
		removed := time.Now()
		c.endpoints(web, left...)
		time.Sleep(2 * most)
		last := l.last(pods[gone].Name()).Sub(removed)
		t.Logf("%s got its last connection %v after it was removed", pods[gone].Name(), last)
		quickest = min(quickest, last)
		if s, err := askOn(held); err != nil || s.name != pods[gone].Name() {
			t.Errorf("a connection to the removed backend: got %q (%v), want it to live on", s.name, err)
		}
		held.Close()
		c.endpoints(web, all...)
	}
	if quickest > most {
		t.Errorf("connections go to a removed backend for %v or longer, want at most %v", quickest, most)
	}
	l.stop()
}

// TestSlicesChangeUnderLoad: endpoints move between slices, are there twice, and come and go, while connections are made. None fails as
// long as one backend stays.
func TestSlicesChangeUnderLoad(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{Pods: []int{2, 2}})
	stays, a, b := onPod(1, c.pod(1, 2)), onPod(2, c.pod(2, 1)), onPod(2, c.pod(2, 2))
	for _, p := range []*lab.Pod{c.pod(1, 2), c.pod(2, 1), c.pod(2, 2)} {
		servePod(t, p)
	}
	web := service("web", 1)
	c.put(web, stays)
	l := startLoad(t, c.pod(1, 1).Namespace, at(v4, 1))
	first := func(of ...endpoint) *discoveryv1.EndpointSlice { return sliceOf(web, "v4", v4, of...) }
	second := func(of ...endpoint) *discoveryv1.EndpointSlice { return sliceOf(web, "more", v4, of...) }
	for range fewer(50) {
		for _, s := range []*discoveryv1.EndpointSlice{
			first(stays, a), second(b), second(b, stays), first(a), first(a, b), first(b, stays), second(a.but(draining)), second(a.but(unready)), second(), first(stays),
		} {
			c.write(s)
			time.Sleep(time.Millisecond)
		}
	}
	c.await(c.Nodes[0], web, stays)
	if n := l.stop(); n == 0 {
		t.Error("no connection was made")
	} else {
		t.Logf("%d connections", n)
	}
}

// TestEventInForce: how long it takes from an EndpointSlice's being written until a new flow follows it. A pod sees it, at the end of the
// way.
func TestEventInForce(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{Pods: []int{2, 1}})
	pods := []*lab.Pod{c.pod(1, 2), c.pod(2, 1)}
	backends := []endpoint{onPod(1, pods[0]), onPod(2, pods[1])}
	for _, p := range pods {
		servePod(t, p)
	}
	web := service("web", 1)
	c.put(web, backends[0])
	var took []time.Duration
	for round := range fewer(50) {
		next := (round + 1) % 2
		begin := time.Now()
		c.write(slicesOf(web, backends[next])...)
		eventually(t, pods[next].Name()+" is asked", func() bool {
			conn, err := dial(c.pod(1, 1), "udp", at(v4, 1), patience)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_, _ = conn.Write([]byte("?"))
			s, err := hear(conn, 20*time.Millisecond) // an answer to a flow that has just ended does not come
			return err == nil && s.name == pods[next].Name()
		})
		took = append(took, time.Since(begin))
		c.endpoints(web, backends[next]) // the other node has it too
	}
	slices.Sort(took)
	t.Logf("an event is in force after %v at the median, at least %v, at most %v", took[len(took)/2], took[0], took[len(took)-1])
	if took[0] > 2*time.Second { // on a quiet machine it is 10 ms
		t.Errorf("no event was in force before %v", took[0])
	}
}

// hold returns a connection to the backend of a name.
func hold(t *testing.T, from client, to netip.AddrPort, name string) net.Conn {
	t.Helper()
	for range 200 { // of three backends
		c, err := dial(from, "tcp", to, patience)
		if err != nil {
			t.Fatal(err)
		}
		if s, err := askOn(c); err != nil {
			t.Fatal(err)
		} else if s.name == name {
			t.Cleanup(func() { c.Close() })
			return c
		}
		c.Close()
	}
	t.Fatalf("none of 200 connections went to %s", name)
	return nil
}

// load makes connections until it is stopped.
type load struct {
	t    *testing.T
	end  context.CancelFunc
	done sync.WaitGroup

	mu    sync.Mutex
	count int
	lasts map[string]time.Time // when the last connection that a backend got was begun
}

func startLoad(t *testing.T, from *lab.Namespace, to netip.AddrPort) *load {
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{t: t, end: cancel, lasts: map[string]time.Time{}}
	for range 3 {
		l.done.Go(func() {
			if err := from.Do(func() error { return l.run(ctx, to) }); err != nil {
				t.Error(err)
			}
		})
	}
	return l
}

func (l *load) run(ctx context.Context, to netip.AddrPort) error {
	for ctx.Err() == nil {
		begin := time.Now()
		s, err := ask(here{}, "tcp", to)
		if err != nil {
			return fmt.Errorf("a connection failed: %w", err)
		}
		l.mu.Lock()
		l.count++
		if l.lasts[s.name].Before(begin) {
			l.lasts[s.name] = begin
		}
		l.mu.Unlock()
		time.Sleep(time.Millisecond) // ports are few
	}
	return nil
}

// last returns when the last connection that a backend got was begun.
func (l *load) last(name string) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lasts[name]
}

// stop returns how many connections were made.
func (l *load) stop() int {
	l.end()
	l.done.Wait()
	return l.count
}
