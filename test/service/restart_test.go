package service

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/middleway-net/middleway/lab"
)

// TestKilledDuringTransfer: nobody writes the folder any more, and then it is gone. Daemons are killed in the middle of transfers through
// ClusterIPs, which go on; new connections, over TCP and UDP, and names are served from what was known last.
func TestKilledDuringTransfer(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{Pods: []int{2, 1}})
	near, beside, far := c.pod(1, 1), c.pod(1, 2), c.pod(2, 1)
	c.put(service("beside", 1), onPod(1, beside))
	c.put(service("far", 2), onPod(2, far))
	time.Sleep(1500 * time.Millisecond) // what is known is written down at least once a second
	for _, f := range families {
		if f == v6 {
			for _, n := range c.Nodes {
				c.awaitSynced(n)
			}
			c.must(os.RemoveAll(c.dir))
		}
		for _, tt := range []struct {
			name    string
			number  int
			backend *lab.Pod
			killed  []*lab.Node
		}{
			{"same node", 1, beside, c.Nodes[:1]},
			{"other node", 2, far, c.Nodes},
		} {
			t.Run(f.name+"/"+tt.name, func(t *testing.T) {
				s := startStream(t, near.Namespace, at(f, tt.number), tt.backend.Namespace, f.pod(tt.backend), 0)
				for _, n := range tt.killed {
					s.more(t)
					c.kill(n)
					c.start(n)
					s.more(t)
				}
				s.stop()
				t.Log(s.wait(t))
				servePod(t, tt.backend)
				for _, network := range []string{"tcp", "udp"} {
					for _, from := range []client{near, c.Nodes[0]} {
						if got := mustAsk(t, from, network, at(f, tt.number)); got.name != tt.backend.Name() {
							t.Errorf("%s answers, want %s", got.name, tt.backend.Name())
						}
					}
				}
				for _, p := range []*lab.Pod{near, far} {
					mustResolve(t, p.Namespace, "far.default.svc.cluster.local.", v4.vip(2).String())
				}
			})
		}
	}

	// A folder that comes back is followed again, and what it no longer has is gone.
	c.fill(len(c.Nodes))
	c.put(service("far", 2), onPod(2, far))
	servePod(t, far)
	if got := mustAsk(t, near, "tcp", at(v4, 2)); got.name != far.Name() {
		t.Errorf("%s answers, want %s", got.name, far.Name())
	}
	for _, n := range c.Nodes {
		c.awaitSynced(n)
		if got := c.traced(n, service("beside", 1), v4.vip(1)); got != nil {
			t.Errorf("%s still has a Service that the new folder has not: %+v", n.Name(), got)
		}
	}
}

// TestNothingHalfKnown: until a daemon has a whole set of objects names fail, so that no client takes one for missing, and no Service is
// served.
func TestNothingHalfKnown(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{Pods: []int{1, 1}})
	n, pod, far := c.Nodes[0], c.pod(1, 1), c.pod(2, 1)
	servePod(t, far)
	c.put(service("far", 1), onPod(2, far))
	mustAsk(t, pod, "tcp", at(v4, 1))

	c.kill(n)
	kept, err := filepath.Glob(filepath.Join(n.Config.RunDir, "cluster.db*"))
	if err != nil || len(kept) != 1 {
		t.Fatalf("what was known last: %v %v", kept, err)
	}
	c.must(os.Remove(kept[0]))
	marker := filepath.Join(c.dir, "complete")
	c.must(os.Remove(marker))
	c.start(n)
	for _, name := range []string{"far.default.svc.cluster.local.", "gone.default.svc.cluster.local."} {
		if got := dig(t, pod.Namespace, v4, "udp", name, dnsmessage.TypeA); got.RCode != "SERVFAIL" {
			t.Errorf("%s: got %s, want SERVFAIL", name, got.RCode)
		}
	}
	mustBeSilent(t, pod, "tcp", at(v4, 1))
	c.must(os.WriteFile(marker, nil, 0o644))
	mustAsk(t, pod, "tcp", at(v4, 1))
	eventually(t, "names are answered", func() bool {
		return dig(t, pod.Namespace, v4, "udp", "gone.default.svc.cluster.local.", dnsmessage.TypeA).RCode == "NXDOMAIN"
	})
	mustResolve(t, pod.Namespace, "far.default.svc.cluster.local.", v4.vip(1).String())
}
