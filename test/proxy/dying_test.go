package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/middleway-net/middleway/lab"
)

// How long it may take until a client hears that its backend is gone: where its node knows, where somebody says so to who asks, and where
// nobody does. A connection that waits asks nothing for 10 s.
const (
	knownTime = 8 * time.Second
	toldTime  = 15 * time.Second
	hangTime  = 25 * time.Second
)

// TestDyingBackend: the client of a backend that goes in the middle hears a reset, whether its node knows at once or not, and it makes no
// difference whether it sends, receives, or waits.
func TestDyingBackend(t *testing.T) {
	for _, tt := range []struct {
		name string
		node int // of the backend
		die  func(c *cluster, pod *lab.Pod)
		most time.Duration
	}{
		{"pod of this node", 1, func(c *cluster, pod *lab.Pod) { removeDevice(c, pod) }, knownTime},
		{"pod of another node", 2, func(c *cluster, pod *lab.Pod) { removeDevice(c, pod) }, toldTime},
		{"pod of another node, an endpoint no more", 2, func(c *cluster, pod *lab.Pod) {
			removeDevice(c, pod)
			c.put(service("web", 0))
		}, knownTime},
		{"another node, whole", 2, func(c *cluster, _ *lab.Pod) { removeNode(c, 2) }, hangTime},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel() // it waits most of the time
			c := newCluster(t, lab.ClusterConfig{})
			pod := c.pod(tt.node, 1)
			c.put(service("web", 0), onPod(tt.node, pod))
			var dying []*net.TCPConn
			var what []string
			for _, f := range families {
				w := way{f.name, c.outside(f.outside(2)), netip.AddrPortFrom(f.node(1), nodePort(0)), pod.Namespace, netip.AddrPortFrom(f.pod(pod), targetPort)}
				s := serve(t, w.server, w.at)
				awaitAnswer(t, w.from, "tcp", w.to)
				s.close()
				for _, does := range []string{"sends", "receives", "waits"} {
					client, server := w.connect(t)
					mustPass(t, client, server, "question")
					switch does {
					case "sends":
						keepSending(t, client)
						go func() { _ = ends(server) }()
					case "receives":
						keepSending(t, server)
					}
					dying, what = append(dying, client), append(what, f.name+", a client that "+does)
				}
			}
			time.Sleep(100 * time.Millisecond)
			begin := time.Now()
			tt.die(c, pod)
			var wg sync.WaitGroup
			for i, client := range dying {
				wg.Go(func() {
					_ = client.SetDeadline(begin.Add(tt.most))
					if err := ends(client); !errors.Is(err, syscall.ECONNRESET) {
						t.Errorf("%s: got %v after %v, want %v", what[i], err, time.Since(begin).Round(time.Millisecond), syscall.ECONNRESET)
					}
					t.Logf("%s: after %v", what[i], time.Since(begin).Round(time.Millisecond))
				})
			}
			wg.Wait()
		})
	}
}

// TestForsakenBackend: a connection goes on whose backend is an endpoint no more but lives, also one that says nothing.
func TestForsakenBackend(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{})
	pod := c.pod(2, 1)
	c.put(service("web", 0), onPod(2, pod))
	ends := map[*net.TCPConn]*net.TCPConn{}
	for _, f := range families {
		w := way{f.name, c.outside(f.outside(2)), netip.AddrPortFrom(f.node(1), nodePort(0)), pod.Namespace, netip.AddrPortFrom(f.pod(pod), targetPort)}
		s := serve(t, w.server, w.at)
		awaitAnswer(t, w.from, "tcp", w.to)
		s.close()
		client, server := w.connect(t)
		ends[client] = server
	}
	c.put(service("web", 0))
	time.Sleep(5 * time.Second) // the backend is asked at once, and again after 4 s
	for client, server := range ends {
		mustPass(t, client, server, "question")
		mustPass(t, server, client, "answer")
	}
}

// TestGoneEndpoint: a client is reset at once whose backend is an endpoint, but no pod any more.
func TestGoneEndpoint(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{})
	for node := 1; node <= 2; node++ {
		gone := endpoint{node: fmt.Sprintf("node-%d", node)}
		for i, f := range families {
			gone.addrs[i] = host(f.podCIDR(node), 99)
		}
		c.put(service(fmt.Sprint("web-", node), node), gone)
		for _, f := range families {
			to := netip.AddrPortFrom(f.node(1), nodePort(node))
			var took time.Duration
			eventually(t, "there is a listener", func() bool {
				begin := time.Now()
				err := hears(c.outside(f.outside(2)), to)
				took = time.Since(begin)
				return errors.Is(err, syscall.ECONNRESET)
			})
			t.Logf("%s, of node %d: after %v", f.name, node, took.Round(time.Millisecond))
		}
	}
}

// hears connects, and returns the error that ends the connection.
func hears(from client, to netip.AddrPort) error {
	conn, err := dial(from, "tcp", to, knownTime)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(knownTime))
	return ends(conn.(*net.TCPConn))
}

// TestDyingClient: who is connected with a pod that goes in the middle hears a reset.
func TestDyingClient(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{Pods: []int{1}})
	pod := c.pod(1, 1)
	servers := map[string]*net.TCPConn{}
	for _, f := range families {
		at := netip.AddrPortFrom(f.outside(1), outsidePort)
		w := way{f.name, pod, at, c.External.Namespace, at}
		client, server := w.connect(t)
		mustPass(t, client, server, "question")
		servers[f.name] = server
	}
	begin := time.Now()
	removeDevice(c, pod)
	for name, server := range servers {
		_ = server.SetDeadline(begin.Add(knownTime))
		if err := ends(server); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: got %v after %v, want %v", name, err, time.Since(begin).Round(time.Millisecond), syscall.ECONNRESET)
		}
		t.Logf("%s: after %v", name, time.Since(begin).Round(time.Millisecond))
	}
}

// TestDeletedPod: who is connected with a pod when its runtime deletes it hears a reset, whoever opened the connection.
func TestDeletedPod(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{Pods: []int{1}})
	r := newRuntime(t, c.Nodes[0])
	pod := r.add("deleted", both(9000, "")...)
	others := map[string]*net.TCPConn{}
	for _, f := range families {
		in := way{f.name, c.outside(f.outside(2)), netip.AddrPortFrom(f.node(1), 9000), pod.Namespace, netip.AddrPortFrom(f.pod(&pod.Pod), targetPort)}
		s := serve(t, in.server, in.at)
		awaitAnswer(t, in.from, "tcp", in.to)
		s.close()
		others[f.name+", a client of its host port"], _ = in.connect(t)
		at := netip.AddrPortFrom(f.outside(1), outsidePort)
		_, others[f.name+", a server outside"] = way{f.name, pod, at, c.External.Namespace, at}.connect(t)
	}
	begin := time.Now()
	r.del(pod)
	for name, other := range others {
		_ = other.SetDeadline(begin.Add(knownTime))
		if err := ends(other); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: got %v after %v, want %v", name, err, time.Since(begin).Round(time.Millisecond), syscall.ECONNRESET)
		}
		t.Logf("%s: after %v", name, time.Since(begin).Round(time.Millisecond))
	}
}

// removeDevice takes a pod's device away, as its end does.
func removeDevice(c *cluster, pod *lab.Pod) {
	c.t.Helper()
	nl, err := pod.Netlink()
	c.must(err)
	link, err := nl.LinkByName("eth0")
	c.must(err)
	c.must(nl.LinkDel(link))
}

// removeNode takes a node off the underlay.
func removeNode(c *cluster, number int) {
	c.t.Helper()
	nl, err := c.Nodes[number-1].Netlink()
	c.must(err)
	link, err := nl.LinkByName("eth0")
	c.must(err)
	c.must(nl.LinkSetDown(link))
}
