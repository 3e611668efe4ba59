package proxy

import (
	"os"
	"testing"
	"time"

	"github.com/middleway-net/middleway/lab"
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
