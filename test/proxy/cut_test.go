package proxy

import (
	"errors"
	"io"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/middleway-net/middleway/lab"
)

// TestCutConnections: connections that ended in a daemon that was killed are reset at both ends.
func TestCutConnections(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{})
	for _, w := range c.ways(t, "tcp") {
		s := serve(t, w.server, w.at)
		awaitAnswer(t, w.from, "tcp", w.to) // the daemon was started a moment ago
		s.close()
		client, server := w.connect(t)
		mustPass(t, client, server, "question")
		c.restart(c.Nodes[0])
		for who, end := range map[string]io.Writer{"client": client, "server": server} {
			eventually(t, w.name+": the "+who+" hears that the connection is gone", func() bool {
				_, err := end.Write([]byte("?"))
				return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
			})
		}
	}
}

// TestPortInUse: a node port that a program of the node has is that program's. The daemon goes on, says so, and takes the port when it
// is free.
func TestPortInUse(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{})
	servePod(t, c.pod(1, 1))
	for _, f := range families {
		at := netip.AddrPortFrom(f.node(1), nodePort(0))
		other := serve(t, c.Nodes[0].Namespace, at)
		c.put(service("web", 0), onPod(1, c.pod(1, 1)))
		outside := c.outside(f.outside(2))
		for _, network := range networks {
			awaitAnswer(t, outside, network, netip.AddrPortFrom(f.node(2), nodePort(0)))
			awaitAnswer(t, c.Nodes[0], network, netip.AddrPortFrom(f.loopback(), nodePort(0)))
		}
		eventually(t, "the daemon says so", func() bool {
			st, err := c.Nodes[0].Status()
			return err == nil && len(st.Outside.Problems) == 2 // TCP and UDP
		})
		if said := c.Nodes[0].Daemon().Tail(); !strings.Contains(said, at.String()) || !strings.Contains(said, "default/web") {
			t.Errorf("the log does not name %v and default/web: %s", at, said)
		}
		for _, network := range networks {
			if got, err := ask(outside, network, at); err != nil || got.name != c.Nodes[0].Name() {
				t.Errorf("%s: %s answers (%v), want %s", network, got.name, err, c.Nodes[0].Name())
			}
		}
		other.close()
		for _, network := range networks {
			eventually(t, "the pod answers", func() bool {
				got, err := ask(outside, network, at)
				return err == nil && got.name == c.pod(1, 1).Name()
			})
		}
		eventually(t, "no problem is left", func() bool {
			st, err := c.Nodes[0].Status()
			return err == nil && len(st.Outside.Problems) == 0
		})
		c.remove(service("web", 0))
		for _, network := range networks {
			eventually(t, "the port is closed", func() bool {
				_, err := ask(outside, network, at)
				return errors.Is(err, syscall.ECONNREFUSED)
			})
		}
	}
}
