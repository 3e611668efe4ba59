package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
	"github.com/middleway-net/middleway/node/fdstore"
)

// TestRestart: a daemon that starts without the cluster's objects in reach serves the node ports that it served before, and pods have
// their way out.
func TestRestart(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{})
	ways := c.ways(t, networks[0])
	for _, w := range ways {
		serve(t, w.server, w.at)
	}
	time.Sleep(1500 * time.Millisecond) // what is known is written down at least once a second
	c.must(os.RemoveAll(c.dir))
	for _, n := range c.Nodes {
		c.restart(n)
	}
	for _, w := range ways {
		for _, network := range networks {
			awaitAnswer(t, w.from, network, w.to)
		}
	}
}

// TestKilled: whoever connects to a node port while no daemon is there waits for the next one, where a store has the sockets, and is refused
// where there is none.
func TestKilled(t *testing.T) {
	dir, err := os.MkdirTemp("", "mw-") // a short path, as sockets want it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	ctx, cancel := context.WithCancel(t.Context())
	l, err := fdstore.Listen(ctx, path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- fdstore.Serve(ctx, l, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	c := newCluster(t, lab.ClusterConfig{Change: func(number int, n *node.Config) {
		if number == 1 {
			n.FDStore = path
		}
	}})
	pod := c.pod(2, 1)
	servePod(t, pod)
	c.put(service("web", 0), onPod(2, pod))
	for _, f := range families {
		from := c.outside(f.outside(2))
		at := func(node int) netip.AddrPort { return netip.AddrPortFrom(f.node(node), nodePort(0)) }
		for round := range 2 {
			awaitAnswer(t, from, "tcp", at(1))
			c.must(c.Nodes[0].Daemon().Kill())
			client, err := dial(from, "tcp", at(1), patience)
			if err != nil {
				t.Fatalf("%s, round %d: %v", f.name, round, err)
			}
			c.must(c.Nodes[0].Start())
			if who, err := askOn(client); err != nil || who.name != pod.Name() {
				t.Errorf("%s, round %d: got %+v, %v", f.name, round, who, err)
			}
			client.Close()
			c.must(c.Nodes[0].WaitReady(patience))
		}
		awaitAnswer(t, from, "tcp", at(2))
		c.must(c.Nodes[1].Daemon().Kill())
		if _, err := dial(from, "tcp", at(2), patience); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s, without a store: got %v", f.name, err)
		}
		c.must(c.Nodes[1].Start())
		c.must(c.Nodes[1].WaitReady(patience))
	}
}
