package e2e

import (
	"testing"
	"time"

	"github.com/middleway-net/middleway/lab"
)

// badLink loses, reorders, duplicates and corrupts in both directions.
var badLink = lab.Faults{Seed: 1, Loss: 0.01, Reorder: 0.05, Duplicate: 0.01, Corrupt: 0.001}

func TestFaults(t *testing.T)     { testFaults(t, badLink, 100<<20) }
func TestSoakFaults(t *testing.T) { soak(t); testFaults(t, badLink, 500<<20) }

func testFaults(t *testing.T, faults lab.Faults, size int64) {
	cl := newCluster(t, lab.ClusterConfig{Pods: []int{1, 1}, Underlay: lab.UnderlayConfig{Userspace: true}})
	link := cl.Underlay.Link()
	a, b := cl.Nodes[0].Pods[0], cl.Nodes[1].Pods[0]
	clean := transfer{from: a.Namespace, to: b.Namespace, addr: b.Addr4, size: size}.run(t)
	t.Logf("without faults: %v", clean)
	for _, tt := range []struct {
		name string
		transfer
	}{
		{"IPv4", transfer{from: a.Namespace, to: b.Namespace, addr: b.Addr4}},
		{"IPv6", transfer{from: b.Namespace, to: a.Namespace, addr: a.Addr6}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			link.SetFaults(faults) // starts the dice anew
			defer link.SetFaults(lab.Faults{})
			before := [2]lab.Counters{link.Counters(0, 1), link.Counters(1, 0)}
			tt.size, tt.timeout = size, 5*time.Minute
			t.Log(tt.run(t))
			for i, c := range []lab.Counters{link.Counters(0, 1), link.Counters(1, 0)} {
				b := before[i]
				if c.Lost == b.Lost || c.Reordered == b.Reordered || c.Duplicated == b.Duplicated {
					t.Errorf("faults that did not happen in direction %d: before %+v, after %+v", i, b, c)
				}
			}
			if c, b := link.Counters(0, 1).Corrupted+link.Counters(1, 0).Corrupted, before[0].Corrupted+before[1].Corrupted; c == b {
				t.Error("nothing was corrupted")
			}
		})
	}
	t.Log(link)
	for _, n := range cl.Nodes {
		t.Logf("%s dropped %v", n.Name(), dropsOf(t, n))
	}
}

// Every kind of fault by itself, so that none hides behind another.
func TestSoakEachFault(t *testing.T) {
	soak(t)
	for name, f := range map[string]lab.Faults{
		"loss":      {Seed: 2, Loss: 0.05},
		"reorder":   {Seed: 3, Reorder: 0.2},
		"duplicate": {Seed: 4, Duplicate: 0.2},
		"corrupt":   {Seed: 5, Corrupt: 0.02},
		"jitter":    {Seed: 6, Delay: 5 * time.Millisecond, Jitter: 4 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			cl := newCluster(t, lab.ClusterConfig{Pods: []int{1, 1}, Underlay: lab.UnderlayConfig{Faults: f}})
			a, b := cl.Nodes[0].Pods[0], cl.Nodes[1].Pods[0]
			t.Log(transfer{from: a.Namespace, to: b.Namespace, addr: b.Addr4, size: 16 << 20, timeout: 5 * time.Minute}.run(t))
		})
	}
}

// A transfer outlives a cut of two seconds: nothing of it is lost, and it goes on soon after.
func TestPartition(t *testing.T) {
	const cut = 2 * time.Second
	cl := newCluster(t, lab.ClusterConfig{Pods: []int{1, 1}, Underlay: lab.UnderlayConfig{Userspace: true}})
	link := cl.Underlay.Link()
	a, b := cl.Nodes[0].Pods[0], cl.Nodes[1].Pods[0]
	r := transfer{from: a.Namespace, to: b.Namespace, addr: b.Addr4}.start(t)
	time.Sleep(200 * time.Millisecond)
	link.Partition(0)
	time.Sleep(cut)
	if c := link.Counters(0, 1); c.Cut == 0 {
		t.Errorf("nothing was cut: %+v", c)
	}
	link.Heal()
	time.Sleep(cut) // TCP tries again after 0.2, 0.6, 1.4, 3 s
	r.stop()
	got := r.wait(t)
	t.Log(got)
	if got.stall < cut-100*time.Millisecond {
		t.Errorf("longest stall %v: the cut of %v was not felt", got.stall, cut)
	}
}
