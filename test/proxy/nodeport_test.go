package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/stack/packet"
)

var networks = []string{"tcp", "udp"}

// TestNodePort: from outside, from the node itself by its own address and by loopback, from pods, to a node with and one without a
// backend. The client is seen where it has an address that leads back to the node that translates, else that node's gateway is.
func TestNodePort(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{})
	servePod(t, c.pod(1, 1))
	c.put(service("web", 0), onPod(1, c.pod(1, 1)))
	for _, f := range families {
		for _, network := range networks {
			for number := 1; number <= 2; number++ {
				awaitAnswer(t, c.outside(f.outside(2)), network, netip.AddrPortFrom(f.node(number), nodePort(0)))
			}
			for _, tt := range []struct {
				name string
				from client
				to   netip.Addr
				seen netip.Addr
			}{
				{"outside to the backend's node", c.outside(f.outside(2)), f.node(1), f.gateway(1)},
				{"outside to another node", c.outside(f.outside(3)), f.node(2), f.gateway(2)},
				{"the backend's node to its loopback", c.Nodes[0], f.loopback(), f.gateway(1)},
				{"another node to its loopback", c.Nodes[1], f.loopback(), f.gateway(2)},
				{"a node to its own address", c.Nodes[1], f.node(2), f.gateway(2)},
				{"a node to another", c.Nodes[1], f.node(1), f.gateway(1)},
				{"a pod to its own node", c.pod(1, 2), f.node(1), f.pod(c.pod(1, 2))},
				{"a pod to its own node, to itself", c.pod(1, 1), f.node(1), f.gateway(1)},
				{"a pod to its own node, to a backend elsewhere", c.pod(2, 1), f.node(2), f.pod(c.pod(2, 1))},
				{"a pod to another node", c.pod(2, 1), f.node(1), f.gateway(1)},
			} {
				t.Run(f.name+"/"+network+"/"+tt.name, func(t *testing.T) {
					mustAsk(t, tt.from, network, netip.AddrPortFrom(tt.to, nodePort(0)), c.pod(1, 1).Name(), tt.seen)
				})
			}
		}
	}
	for _, n := range c.Nodes {
		for _, reason := range []packet.DropReason{packet.DropNoRoute, packet.DropGuarded, packet.DropUninvited, packet.DropSource} {
			if count := c.drops(n, reason); count > 0 {
				t.Errorf("%s dropped %d: %v", n.Name(), count, reason)
			}
		}
	}
}

// TestKeepClient: under policy Local a backend sees who asks its node, by TCP and by UDP, and a program of another node that asks that one.
func TestKeepClient(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{})
	servePod(t, c.pod(1, 1))
	s := service("web", 0)
	s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	c.put(s, onPod(1, c.pod(1, 1)))
	for _, f := range families {
		for _, network := range networks {
			awaitAnswer(t, c.outside(f.outside(2)), network, netip.AddrPortFrom(f.node(1), nodePort(0)))
			awaitAnswer(t, c.Nodes[1], network, netip.AddrPortFrom(f.loopback(), nodePort(0)))
			for _, tt := range []struct {
				name string
				from client
				to   netip.Addr
				seen netip.Addr
			}{
				{"outside", c.outside(f.outside(2)), f.node(1), f.outside(2)},
				{"another node", c.Nodes[1], f.node(1), f.node(2)},
				{"a pod of another node", c.pod(2, 1), f.node(1), f.pod(c.pod(2, 1))},
				{"a pod of the node", c.pod(1, 2), f.node(1), f.pod(c.pod(1, 2))},
				{"the backend itself", c.pod(1, 1), f.node(1), f.gateway(1)},
				{"the node, by its loopback", c.Nodes[0], f.loopback(), f.gateway(1)},
				{"the node, by its address", c.Nodes[0], f.node(1), f.node(1)},
				{"another node, by its loopback", c.Nodes[1], f.loopback(), f.gateway(2)},
				{"another node, by its address", c.Nodes[1], f.node(2), f.node(2)},
				{"a pod of another node, by that", c.pod(2, 1), f.node(2), f.pod(c.pod(2, 1))},
			} {
				t.Run(f.name+"/"+network+"/"+tt.name, func(t *testing.T) {
					mustAsk(t, tt.from, network, netip.AddrPortFrom(tt.to, nodePort(0)), c.pod(1, 1).Name(), tt.seen)
				})
			}
		}
	}
	for _, n := range c.Nodes {
		for _, reason := range []packet.DropReason{packet.DropNoRoute, packet.DropGuarded, packet.DropUninvited, packet.DropSource, packet.DropTransit} {
			if count := c.drops(n, reason); count > 0 {
				t.Errorf("%s dropped %d: %v", n.Name(), count, reason)
			}
		}
	}
}

// TestExternalIP: an address of a node that is a Service's, at the Service's port; other ports of it are none of the Service's business.
func TestExternalIP(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{})
	servePod(t, c.pod(2, 1))
	s := service("web", 0)
	addr := netip.MustParseAddr("198.51.100.7")
	s.Spec.ExternalIPs = []string{addr.String()}
	c.must(c.Nodes[0].AddAddr("lo", netip.PrefixFrom(addr, 32)))
	c.must(c.External.AddRoute(netip.PrefixFrom(addr, 32), v4.node(1), "eth0"))
	c.put(s, onPod(2, c.pod(2, 1)))
	for _, network := range networks {
		at := netip.AddrPortFrom(addr, servicePort)
		awaitAnswer(t, c.outside(v4.outside(2)), network, at)
		mustAsk(t, c.outside(v4.outside(2)), network, at, c.pod(2, 1).Name(), v4.gateway(1))
		mustAsk(t, c.pod(1, 1), network, at, c.pod(2, 1).Name(), v4.pod(c.pod(1, 1)))
		if err := fails(t, c.outside(v4.outside(2)), network, netip.AddrPortFrom(addr, servicePort+1), patience); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s, another port: got %v, want %v", network, err, syscall.ECONNREFUSED)
		}
	}
}

// TestNobodyServes: without a usable endpoint a NodePort refuses, with policy Local and none here it is silent, and it serves as soon as
// there is one.
func TestNobodyServes(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{})
	servePod(t, c.pod(2, 1))
	local := service("local", 1)
	local.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	c.put(service("web", 0))
	c.put(local, onPod(2, c.pod(2, 1)))
	const wait = time.Second
	for _, f := range families {
		for _, network := range networks {
			awaitAnswer(t, c.outside(f.outside(2)), network, netip.AddrPortFrom(f.node(2), nodePort(1)))
			awaitAnswer(t, c.Nodes[0], network, netip.AddrPortFrom(f.loopback(), nodePort(1)))
			for _, tt := range []struct {
				name string
				from client
				to   netip.AddrPort
			}{
				{"outside", c.outside(f.outside(2)), netip.AddrPortFrom(f.node(1), nodePort(0))},
				{"loopback", c.Nodes[0], netip.AddrPortFrom(f.loopback(), nodePort(0))},
				{"pod", c.pod(1, 1), netip.AddrPortFrom(f.node(1), nodePort(0))},
				{"pod of another node", c.pod(2, 1), netip.AddrPortFrom(f.node(1), nodePort(0))},
			} {
				t.Run(fmt.Sprintf("%s/%s/refused/%s", f.name, network, tt.name), func(t *testing.T) {
					if err := fails(t, tt.from, network, tt.to, patience); !errors.Is(err, syscall.ECONNREFUSED) {
						t.Errorf("got %v, want %v", err, syscall.ECONNREFUSED)
					}
				})
			}
			t.Run(fmt.Sprintf("%s/%s/silent", f.name, network), func(t *testing.T) {
				err := fails(t, c.outside(f.outside(2)), network, netip.AddrPortFrom(f.node(1), nodePort(1)), wait)
				if !isTimeout(err) {
					t.Errorf("got %v, want silence", err)
				}
			})
			// From the node itself and its pods every endpoint is as good as one here.
			mustAsk(t, c.Nodes[0], network, netip.AddrPortFrom(f.loopback(), nodePort(1)), c.pod(2, 1).Name(), f.gateway(1))
			mustAsk(t, c.pod(1, 1), network, netip.AddrPortFrom(f.node(1), nodePort(1)), c.pod(2, 1).Name(), f.pod(c.pod(1, 1)))
		}
	}
	c.put(service("web", 0), onPod(2, c.pod(2, 1)))
	for _, f := range families {
		for _, network := range networks {
			awaitAnswer(t, c.outside(f.outside(2)), network, netip.AddrPortFrom(f.node(1), nodePort(0)))
		}
	}
	c.put(service("web", 0))
	for _, f := range families {
		for _, network := range networks {
			eventually(t, "it refuses again", func() bool {
				_, err := ask(c.outside(f.outside(2)), network, netip.AddrPortFrom(f.node(1), nodePort(0)))
				return errors.Is(err, syscall.ECONNREFUSED)
			})
		}
	}
}

// TestAffinity: a client outside comes back to its backend, whatever its port. By chance it does, of three, once in 3,000,000,000 times.
func TestAffinity(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{})
	pods := []*lab.Pod{c.pod(1, 1), c.pod(1, 2), c.pod(2, 1)}
	var all []endpoint
	for i, p := range pods {
		servePod(t, p)
		all = append(all, onPod(1+i/2, p))
	}
	s := service("web", 0)
	s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	c.put(s, all...)
	for _, f := range families {
		for _, network := range networks {
			at := netip.AddrPortFrom(f.node(1), nodePort(0))
			awaitAnswer(t, c.outside(f.outside(1)), network, at)
			names := map[string]bool{}
			for range 21 {
				got, err := ask(c.outside(f.outside(2)), network, at)
				c.must(err)
				names[got.name] = true
			}
			if len(names) != 1 {
				t.Errorf("%s, %s: one client went to %v", f.name, network, names)
			}
		}
	}
}
