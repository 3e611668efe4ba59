package lab

import (
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// Nodes and a host outside reach each other, by whatever joins the nodes; what nobody has is told of by the gateway.
func TestExternal(t *testing.T) {
	for name, underlay := range map[string]UnderlayConfig{"kernel": {}, "userspace": {Userspace: true}} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, ClusterConfig{Pods: []int{0, 0}, External: true, Underlay: underlay})
			for number, n := range c.Nodes {
				mustPing(t, n.Namespace, ExternalAddr4(9), 56)
				mustPing(t, n.Namespace, ExternalAddr6(9), 56)
				transfer(t, c.External.Namespace, n.Namespace, NodeAddr4(number+1).Addr(), 1<<20)
				transfer(t, n.Namespace, c.External.Namespace, ExternalAddr6(5), 1<<20)
			}
			_, err := c.Nodes[0].Dial(t.Context(), "tcp", netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, 1}), 80).String())
			if !errors.Is(err, unix.ENETUNREACH) {
				t.Errorf("an address that nobody has: got %v, want %v", err, unix.ENETUNREACH)
			}
		})
	}
}
