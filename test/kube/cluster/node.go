package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/test/kube/inspect"
	"github.com/middleway-net/middleway/test/kube/node"
	"github.com/middleway-net/middleway/test/kube/sandbox"
)

// A Node is one of a cluster's.
type Node struct {
	Name     string
	Number   int      // from 1
	PodCIDRs []string // known when the network joins it

	c *Cluster
}

// AllNodes is the cluster's nodes, by their numbers.
func (c *Cluster) AllNodes() []*Node {
	var all []*Node
	for i := 1; i <= c.Plan.Nodes; i++ {
		all = append(all, &Node{Name: c.Plan.Node(i), Number: i, c: c})
	}
	return all
}

// Find returns the node of that name, or of that number.
func (c *Cluster) Find(name string) (*Node, error) {
	for _, n := range c.AllNodes() {
		if n.Name == name || fmt.Sprint(n.Number) == name {
			return n, nil
		}
	}
	return nil, fmt.Errorf("cluster %s has no node %q; it has %s to %s", c.Name, name, c.Plan.Node(1), c.Plan.Node(c.Plan.Nodes))
}

// Dir is the folder of all that the node keeps, which it has at the same place.
func (n *Node) Dir() string { return n.c.nodeDir(n.Name) }

// Log is the file of what a component of the node prints.
func (n *Node) Log(component string) string {
	return filepath.Join(n.c.logs(n.Name), component+".log")
}

// Inside is the file that the node has by this name in one of its own folders, /etc/kubernetes, /etc/cni/net.d, /opt/cni/bin.
func (n *Node) Inside(name string) string { return filepath.Join(n.Dir(), name) }

// order speaks with the node's first process.
func (n *Node) order(ctx context.Context, method, path string, send, receive any) error {
	var body bytes.Buffer
	if send != nil {
		if err := json.NewEncoder(&body).Encode(send); err != nil {
			return err
		}
	}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", node.Socket(n.Dir()))
		},
	}}
	req, err := http.NewRequestWithContext(ctx, method, "http://init"+path, &body)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("node %s does not answer: %w; %s:\n%s", n.Name, err, n.Log("init"), node.Tail(n.Log("init"), 5))
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s of node %s: %s", path, n.Name, bytes.TrimSpace(text))
	}
	if receive == nil {
		return nil
	}
	return json.Unmarshal(text, receive)
}

// State asks how far the node is.
func (n *Node) State(ctx context.Context) (node.State, error) {
	var s node.State
	return s, n.order(ctx, http.MethodGet, "/state", nil, &s)
}

// Run starts a component, in the place of one of the same name; it is started again whenever it ends.
func (n *Node) Run(ctx context.Context, c node.Component) error {
	if err := n.order(ctx, http.MethodPut, "/component", c, nil); err != nil {
		return err
	}
	return n.c.change(func() {
		others := slices.DeleteFunc(n.c.Added[n.Name], func(o node.Component) bool { return o.Name == c.Name })
		n.c.Added[n.Name] = append(others, c)
	})
}

// Remove ends a component that Run started; the node boots without it.
func (n *Node) Remove(ctx context.Context, component string) error {
	if err := n.Stop(ctx, component); err != nil {
		return err
	}
	return n.c.change(func() {
		n.c.Added[n.Name] = slices.DeleteFunc(n.c.Added[n.Name], func(o node.Component) bool { return o.Name == component })
	})
}

// Registered waits until the Node object is there with its range of pods, which is PodCIDRs then.
func (n *Node) Registered(ctx context.Context) error { return n.c.awaitRange(ctx, n) }

// Crash ends the node as a loss of power does: all its processes at once, its namespaces, what was in its /run and its kernel.
// What is on its disk stays.
func (n *Node) Crash() error {
	if err := n.c.cgroup(n.Name).Remove(20 * time.Second); err != nil {
		return fmt.Errorf("crash %s: %w", n.Name, err)
	}
	if err := sandbox.DeleteNetns(n.Name); err != nil {
		return err
	}
	return sandbox.Disconnected(n.c.Outside(), n.Number)
}

// Boot starts a node that has crashed, with its components. It does not wait until the node is Ready. Routes that a network gave to
// the node are gone; middleway's manifest needs nothing more.
func (n *Node) Boot(ctx context.Context) error { return n.c.makeNode(ctx, n) }

// Ready waits until the Node object says that it is Ready. One that has just crashed may still say so.
func (n *Node) Ready(ctx context.Context) error { return n.c.awaitReady(ctx, n) }

// Stop kills a component, which stays away until Start.
func (n *Node) Stop(ctx context.Context, component string) error {
	return n.order(ctx, http.MethodPost, "/stop/"+component, nil, nil)
}

// Start starts a component that Stop stopped.
func (n *Node) Start(ctx context.Context, component string) error {
	return n.order(ctx, http.MethodPost, "/start/"+component, nil, nil)
}

// Kill sends a signal to a component, which is started again a second after it has ended.
func (n *Node) Kill(ctx context.Context, component string, signal unix.Signal) error {
	return n.order(ctx, http.MethodPost, fmt.Sprintf("/kill/%s/%d", component, int(signal)), nil, nil)
}

// Kernel looks for what the node's kernel holds now.
func (n *Node) Kernel() (k inspect.Kernel, err error) {
	err = sandbox.InNetns(n.Name, func() error {
		k, err = inspect.Look()
		return err
	})
	return k, err
}

// birth is the file of what the node's kernel held before anything ran there.
func (n *Node) birth() string { return filepath.Join(n.Dir(), "birth.json") }

// Findings is what the node's kernel holds that it did not hold at first.
func (n *Node) Findings() ([]inspect.Finding, error) {
	birth, err := inspect.Read(n.birth())
	if err != nil {
		return nil, err
	}
	now, err := n.Kernel()
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", n.Name, err)
	}
	return inspect.Compare(birth, now), nil
}

// giveUp says why it is no use to wait any longer for the node: something there ends again and again.
func (n *Node) giveUp(ctx context.Context) error {
	s, err := n.State(ctx)
	if err != nil {
		return err
	}
	if s.Problem != "" {
		return fmt.Errorf("node %s: %s", n.Name, s.Problem)
	}
	for _, p := range s.Processes {
		if p.Restarts >= 8 {
			return fmt.Errorf("%s on %s ended %d times; %s:\n%s", p.Name, n.Name, p.Restarts, n.Log(p.Name), node.Tail(n.Log(p.Name), 10))
		}
	}
	return n.crashing()
}

// crashing is an error where a container of a pod ended for the third time: kubelet names its logs /var/log/pods/POD/CONTAINER/TIMES.log.
func (n *Node) crashing() error {
	logs, err := filepath.Glob(n.Inside("/var/log/pods/*/*/3.log"))
	if err != nil || len(logs) == 0 {
		return err
	}
	container := filepath.Dir(logs[0])
	return fmt.Errorf("container %s of pod %s on %s ends again and again; %s:\n%s",
		filepath.Base(container), filepath.Base(filepath.Dir(container)), n.Name, logs[0], node.Tail(logs[0], 10))
}

// WriteFile writes a file in one of the node's own folders, whole or not at all.
func (n *Node) WriteFile(name, text string) error {
	file := n.Inside(name)
	if err := os.WriteFile(file+".new", []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// InstallPlugins copies CNI plugins from a folder to where the node's container runtime looks for them.
func (n *Node) InstallPlugins(from string, names ...string) error {
	for _, name := range names {
		program, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			return fmt.Errorf("install CNI plugin: %w", err)
		}
		file := n.Inside(filepath.Join("/opt/cni/bin", name))
		if err := os.WriteFile(file+".new", program, 0o755); err != nil {
			return err
		}
		if err := os.Rename(file+".new", file); err != nil {
			return err
		}
	}
	return nil
}
