package proxy

import (
	"net/netip"
	"testing"

	"github.com/middleway-net/middleway/lab"
)

// way is a way across the border of the cluster.
type way struct {
	name   string
	from   client
	to     netip.AddrPort // that the client asks for
	server *lab.Namespace
	at     netip.AddrPort // where it serves
}

// Service numbers of ways.
const (
	wayNear = iota
	wayFar
)

// waysEach is how many ways there are of each family.
const waysEach = 3

// ways returns the ways of both families: from a pod to the outside, and from the outside through node ports of node 1 to a pod there and to
// one on node 2. All are open for a network when it returns.
func (c *cluster) ways(t testing.TB, network string) (ways []way) {
	t.Helper()
	near, far := c.pod(1, 1), c.pod(2, 1)
	c.put(service("near", wayNear), onPod(1, near))
	c.put(service("far", wayFar), onPod(2, far))
	for _, f := range families {
		outside := netip.AddrPortFrom(f.outside(1), outsidePort)
		ways = append(ways,
			way{f.name + "/egress", near, outside, c.External.Namespace, outside},
			way{f.name + "/node port", c.outside(f.outside(2)), netip.AddrPortFrom(f.node(1), nodePort(wayNear)), near.Namespace, netip.AddrPortFrom(f.pod(near), targetPort)},
			way{f.name + "/node port to another node", c.outside(f.outside(2)), netip.AddrPortFrom(f.node(1), nodePort(wayFar)), far.Namespace, netip.AddrPortFrom(f.pod(far), targetPort)},
		)
	}
	for _, w := range ways {
		s := serve(t, w.server, w.at)
		awaitAnswer(t, w.from, network, w.to)
		s.close()
	}
	return ways
}
