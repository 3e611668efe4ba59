package playground

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
)

// readyWait bounds the start of a daemon, on a machine that is busy with other things.
const readyWait = 30 * time.Second

// Node is a node of a cluster: a namespace, and a daemon that is started again whenever it ends.
type Node struct {
	*lab.Node
	cluster *Cluster
	network *network

	mu       sync.Mutex
	restarts int
	problem  string      // why the daemon is down
	answer   node.Status // its last one
}

func newNode(c *Cluster, n *lab.Node) (*Node, error) {
	network, err := newNetwork(c.dir, n.Config.RunDir)
	if err != nil {
		return nil, err
	}
	return &Node{Node: n, cluster: c, network: network}, nil
}

// Addresses are the node's own, as pods know them; a kernel without IPv6 leaves those out.
func (n *Node) Addresses() []netip.Addr {
	if lab.HasIPv6() {
		return n.Config.NodeAddresses
	}
	return slices.DeleteFunc(slices.Clone(n.Config.NodeAddresses), netip.Addr.Is6)
}

// supervise starts the daemon again until the cluster ends. It takes its pods up by itself: they are in its state.
func (n *Node) supervise() {
	wait := backoff{first: 200 * time.Millisecond, most: 10 * time.Second, calm: 10 * time.Second}
	for since := time.Now(); ; since = time.Now() {
		daemon := n.Daemon()
		select {
		case <-n.cluster.ctx.Done():
			return
		case <-daemon.Done():
		}
		n.down(daemon)
		select {
		case <-n.cluster.ctx.Done():
			return
		case <-time.After(wait.after(time.Since(since))):
		}
		if err := n.restart(); err != nil {
			n.setProblem(err.Error())
		}
	}
}

// restart starts a new daemon and waits until it answers, or has ended too.
func (n *Node) restart() error {
	if err := n.Start(); err != nil {
		return err
	}
	n.mu.Lock()
	n.restarts++
	n.mu.Unlock()
	if err := n.WaitReady(readyWait); err != nil {
		return err
	}
	n.setProblem("")
	n.cluster.text.event(n.Name(), fmt.Sprintf("daemon started again, pid %d", n.Daemon().PID()))
	return nil
}

func (n *Node) down(daemon *lab.Process) {
	cause := lastLine(daemon.Tail())
	if exit := (*exec.ExitError)(nil); errors.As(daemon.Wait(), &exit) && (cause == "" || !exit.Exited()) {
		cause = exit.Error() // without the name of the program
	}
	if n.cluster.ctx.Err() == nil {
		n.setProblem("daemon ended: " + cause)
		n.cluster.text.event(n.Name(), fmt.Sprintf("daemon ended, pid %d: %s", daemon.PID(), cause))
	}
}

func (n *Node) setProblem(s string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.problem = s
}

// Status returns what the node is like now; of a daemon that does not answer, what it said last.
func (n *Node) Status() NodeStatus {
	ctx, cancel := context.WithTimeout(context.Background(), statusWait)
	defer cancel()
	daemon := n.Daemon()
	answer, err := node.ReadStatus(ctx, n.Config.RunDir)
	n.mu.Lock()
	defer n.mu.Unlock()
	s := NodeStatus{
		Name: n.Name(), Addresses: n.Addresses(), PodCIDRs: n.Config.PodCIDRs, PID: daemon.PID(), Restarts: n.restarts,
		RunDir: n.Config.RunDir, Ready: err == nil,
	}
	switch {
	case err == nil:
		n.answer, s.PID = answer, answer.PID
	case n.problem != "":
		s.Message = n.problem
	default:
		s.Message = fmt.Sprintf("the daemon does not answer; pid %d", daemon.PID())
	}
	if last := n.answer; last.PID != 0 {
		s.MTU, s.PodCIDRs, s.Underlay, s.Started = last.MTU, last.PodCIDRs, last.Address, last.Started
	}
	return s
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}
