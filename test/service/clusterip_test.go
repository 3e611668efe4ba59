package service

import (
	"errors"
	"net/netip"
	"syscall"
	"testing"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
)

// TestBesideKubeProxy: another proxy serves the host, which gets no route to Services here; pods are served all the same.
func TestBesideKubeProxy(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{Pods: []int{1, 1}, Change: func(_ int, n *node.Config) { n.Services.BesideKubeProxy = true }})
	servePod(t, c.pod(2, 1))
	serve(t, c.Nodes[0].Namespace, v4.node(1), v6.node(1))
	c.put(service("far", 1), onPod(2, c.pod(2, 1)))
	c.put(service("host", 2), onHost(1))
	for _, f := range families {
		for number, want := range map[int]string{1: c.pod(2, 1).Name(), 2: c.Nodes[0].Name()} {
			for _, network := range []string{"tcp", "udp"} {
				if got := mustAsk(t, c.pod(1, 1), network, at(f, number)); got.name != want {
					t.Errorf("%s, %s: got %s, want %s", f.name, network, got.name, want)
				}
			}
		}
		if _, err := dial(c.Nodes[0], "udp", at(f, 1), patience); !errors.Is(err, syscall.ENETUNREACH) {
			t.Errorf("%s: the host has a route to Services: %v", f.name, err)
		}
	}
}

// TestClusterIP: pods and hosts reach backends on their own node, on another, in hosts' own networks, and themselves. A backend sees a
// pod's own address, and a host's where it has one that leads back; only who reaches himself does not see himself.
func TestClusterIP(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{Pods: []int{2, 1}})
	a, beside, far, one, two := c.pod(1, 1), c.pod(1, 2), c.pod(2, 1), c.Nodes[0], c.Nodes[1]
	for _, p := range []*lab.Pod{a, beside, far} {
		servePod(t, p)
	}
	serve(t, one.Namespace, v4.node(1), v6.node(1))
	serve(t, two.Namespace, v4.node(2), v6.node(2))
	const toSelf, toBeside, toFar, toHost, toFarHost = 1, 2, 3, 4, 5
	c.put(service("self", toSelf), onPod(1, a))
	c.put(service("beside", toBeside), onPod(1, beside))
	c.put(service("far", toFar), onPod(2, far))
	c.put(service("host", toHost), onHost(1))
	c.put(service("far-host", toFarHost), onHost(2))

	for _, f := range families {
		for _, network := range []string{"tcp", "udp"} {
			for _, tt := range []struct {
				name    string
				from    client
				to      int
				backend string
				seen    netip.Addr
			}{
				{"pod to pod beside", a, toBeside, beside.Name(), f.pod(a)},
				{"pod to pod of another node", a, toFar, far.Name(), f.pod(a)},
				{"pod to its host", a, toHost, one.Name(), f.pod(a)},
				{"pod to another host", a, toFarHost, two.Name(), f.pod(a)},
				{"pod to itself", a, toSelf, a.Name(), f.gateway(1)},
				{"pod of the other node", far, toSelf, a.Name(), f.pod(far)},
				{"host to its pod", one, toBeside, beside.Name(), f.mw0(1)},
				{"host to pod of another node", one, toFar, far.Name(), f.mw0(1)},
				{"host to itself", one, toHost, one.Name(), f.gateway(1)},
				{"host to another host", one, toFarHost, two.Name(), f.mw0(1)},
				{"host from its own address to its pod", fromAddr(one, f.node(1)), toBeside, beside.Name(), f.node(1)},
				{"host from its own address to pod of another node", fromAddr(one, f.node(1)), toFar, far.Name(), f.mw0(1)},
				{"host from its own address to itself", fromAddr(one, f.node(1)), toHost, one.Name(), f.gateway(1)},
			} {
				t.Run(f.name+"/"+network+"/"+tt.name, func(t *testing.T) {
					conn, err := dial(tt.from, network, at(f, tt.to), patience)
					if err != nil {
						t.Fatal(err)
					}
					defer conn.Close()
					for range 3 { // over UDP the second question has a flow
						got, err := askOn(conn)
						if err != nil {
							t.Fatal(err)
						}
						if got.name != tt.backend || got.client.Addr() != tt.seen {
							t.Errorf("%s answered, which saw %v; want %s and %v", got.name, got.client, tt.backend, tt.seen)
						}
					}
				})
			}
		}
	}
	for _, n := range c.Nodes {
		for reason, count := range c.drops(n) {
			t.Errorf("%s dropped %d: %s", n.Name(), count, reason)
		}
	}
}
