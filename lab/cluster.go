package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/node"
)

// ClusterConfig describes a cluster of middleway nodes.
type ClusterConfig struct {
	// Pods is how many pods each node has; its length is the number of nodes. Default two nodes of two pods.
	Pods []int
	// Underlay is the network between the nodes.
	Underlay UnderlayConfig
	// IPv6Underlay makes the nodes speak IPv6 to each other.
	IPv6Underlay bool
	// Outside makes the nodes reach each other by sockets in the network namespace of the process that called Enter, the
	// machine's own, in place of an Underlay: see type Outside.
	Outside bool
	// Workers is each daemon's number of workers. Default node.Config's.
	Workers int
	// Kernel are nodes that the test makes itself out of the kernel's VXLAN: nodes of the plan with numbers behind those of
	// Pods. Their namespaces join the underlay, and every daemon knows them as peers.
	Kernel []*Namespace
	// External adds a host that is no node, outside of the cluster.
	External bool
	// Dir is where configurations and run directories lie. Default: a Directory of the cluster's own.
	Dir string
	// Change edits each node's configuration before it starts.
	Change func(number int, c *node.Config)
	// Output gets the daemons' logs as they come. Default: none; Node.Tail has the last of them.
	Output io.Writer
}

// Cluster is a cluster of middleway nodes on this machine, each a daemon process of its own in a namespace of its own.
type Cluster struct {
	// Nodes are the nodes, node 1 of the plan first.
	Nodes    []*Node
	Underlay *Underlay // nil with ClusterConfig.Outside
	External *External // nil without ClusterConfig.External

	dir     *Directory // nil if the caller has given one
	outside *Outside   // nil without ClusterConfig.Outside
}

// Node is a node of a Cluster.
type Node struct {
	*Namespace
	Config node.Config
	Pods   []*Pod

	output io.Writer
	file   string // of the configuration

	mu     sync.Mutex
	daemon *Process
}

// Pod is a pod of a Node: a namespace whose eth0 the node's daemon attaches.
type Pod struct {
	*Namespace
	Addr4, Addr6 netip.Addr
}

// nodeRole is the role in which a child is a node's daemon.
const nodeRole = "node"

func init() { RegisterRole(nodeRole, runNode) }

// runNode is the daemon of a lab's node: package node as cmd/middleway runs it. Its argument is the configuration's path.
func runNode(args []string) int {
	c, err := node.ReadConfig(args[0], nil)
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, os.Interrupt)
		defer stop()
		err = node.Run(ctx, c, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "middleway node:", err)
		return 1
	}
	return 0
}

// NewCluster makes namespaces, underlay and pods, starts the daemons, and returns when all of them answer.
func NewCluster(c ClusterConfig) (*Cluster, error) {
	if c.Pods == nil {
		c.Pods = []int{2, 2}
	}
	cl := &Cluster{}
	if c.Dir == "" {
		var err error
		if cl.dir, err = NewDirectory(); err != nil {
			return nil, fmt.Errorf("make the lab's directory: %w", err)
		}
		c.Dir = cl.dir.Path()
	}
	if err := cl.build(c); err != nil {
		return nil, errors.Join(err, cl.Close())
	}
	return cl, nil
}

func (cl *Cluster) build(c ClusterConfig) error {
	var joined []*Namespace
	for i, pods := range c.Pods {
		n, err := cl.addNode(i+1, pods, c)
		if err != nil {
			return err
		}
		joined = append(joined, n.Namespace)
	}
	joined = append(joined, c.Kernel...)
	if err := cl.join(c, joined); err != nil {
		return err
	}
	for i, n := range cl.Nodes {
		for p := 1; p <= len(joined); p++ {
			if p != i+1 {
				n.Config.Peers = append(n.Config.Peers, peerConfig(p, c.IPv6Underlay, p > len(c.Pods)))
			}
		}
		if cl.outside != nil {
			cl.outside.Configure(i+1, &n.Config)
		}
		if c.Change != nil {
			c.Change(i+1, &n.Config)
		}
		if err := n.Start(); err != nil {
			return err
		}
	}
	for _, n := range cl.Nodes {
		if err := n.WaitReady(30 * time.Second); err != nil {
			return err
		}
	}
	return nil
}

// join makes the network between the nodes.
func (cl *Cluster) join(c ClusterConfig, nodes []*Namespace) (err error) {
	if c.Outside {
		return cl.joinOutside(c)
	}
	if !c.External {
		cl.Underlay, err = NewUnderlay(c.Underlay, nodes...)
		return err
	}
	if cl.External, err = newExternal(len(nodes) + 1); err != nil {
		return err
	}
	if cl.Underlay, err = NewUnderlay(c.Underlay, append(nodes, cl.External.Namespace)...); err != nil {
		return err
	}
	for _, n := range nodes {
		if err := cl.External.route(n); err != nil {
			return err
		}
	}
	return nil
}

func underlayAddr(number int, v6 bool) netip.Addr {
	if v6 {
		return NodeAddr6(number).Addr()
	}
	return NodeAddr4(number).Addr()
}

func peerConfig(number int, v6, kernel bool) node.Peer {
	p := node.Peer{
		Name: fmt.Sprintf("node-%d", number), Address: underlayAddr(number, v6), Kernel: kernel,
		PodCIDRs: []netip.Prefix{PodCIDR4(number), PodCIDR6(number)}, NodeAddresses: nodeAddrs(number),
	}
	if kernel {
		p.MAC = vtepMAC(number, 4).String()
		if v6 {
			p.MAC = vtepMAC(number, 6).String()
		}
	}
	return p
}

// nodeAddrs returns the addresses by which pods know node n.
func nodeAddrs(n int) []netip.Addr {
	return []netip.Addr{NodeAddr4(n).Addr(), NodeAddr6(n).Addr()}
}

func (cl *Cluster) addNode(number, pods int, c ClusterConfig) (*Node, error) {
	name := fmt.Sprintf("node-%d", number)
	ns, err := NewNamespace(name)
	if err != nil {
		return nil, err
	}
	n := &Node{Namespace: ns, output: c.Output, file: filepath.Join(c.Dir, name+".yaml")}
	cl.Nodes = append(cl.Nodes, n)
	if err := ns.Sysctl("net.ipv4.ping_group_range", "0 0"); err != nil { // root's; systemd lets every group have ICMP echo sockets
		return nil, err
	}
	n.Config = node.Config{
		Name: name, Address: underlayAddr(number, c.IPv6Underlay), Workers: c.Workers,
		NodeAddresses: nodeAddrs(number), PodCIDRs: []netip.Prefix{PodCIDR4(number), PodCIDR6(number)}, RunDir: filepath.Join(c.Dir, name),
	}
	for i := range pods {
		p := &Pod{Addr4: host(PodCIDR4(number), i+2).Addr(), Addr6: host(PodCIDR6(number), i+2).Addr()}
		if p.Namespace, err = NewNamespace(fmt.Sprintf("pod-%d-%d", number, i+1)); err != nil {
			return nil, err
		}
		n.Pods = append(n.Pods, p)
		n.Config.Pods = append(n.Config.Pods, node.Pod{
			Name: p.Name(), Netns: p.Path(), Addresses: []netip.Addr{p.Addr4, p.Addr6},
		})
	}
	return n, nil
}

// Start starts the node's daemon with the node's present Config.
func (n *Node) Start() error {
	// JSON is YAML.
	b, err := json.Marshal(n.Config)
	if err != nil {
		return err
	}
	if err := os.WriteFile(n.file, b, 0o600); err != nil {
		return fmt.Errorf("write configuration of %s: %w", n.Name(), err)
	}
	daemon := Command(n.Namespace, nodeRole, n.file)
	daemon.Output = n.output
	if err := daemon.Start(); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.daemon = daemon
	return nil
}

// Daemon returns the node's daemon process, nil before Start.
func (n *Node) Daemon() *Process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.daemon
}

// WaitReady waits until the daemon moves packets and answers.
func (n *Node) WaitReady(timeout time.Duration) error {
	deadline, daemon := time.Now().Add(timeout), n.Daemon()
	for {
		if st, err := n.Status(); err == nil && st.PID == daemon.PID() {
			return nil
		}
		select {
		case <-daemon.Done():
			return fmt.Errorf("daemon of %s ended: %s", n.Name(), strings.TrimSpace(daemon.Tail()))
		case <-time.After(2 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("daemon of %s does not answer within %v: %s", n.Name(), timeout, strings.TrimSpace(daemon.Tail()))
		}
	}
}

// Status asks the daemon for its state.
func (n *Node) Status() (node.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	return node.ReadStatus(ctx, n.Config.RunDir)
}

// Close ends the daemons and takes everything down.
func (cl *Cluster) Close() error {
	var errs []error
	for _, n := range cl.Nodes {
		if daemon := n.Daemon(); daemon != nil {
			errs = append(errs, ignoreEnded(daemon.Stop(5*time.Second)))
		}
	}
	if cl.Underlay != nil {
		errs = append(errs, cl.Underlay.Close())
	}
	if cl.outside != nil {
		errs = append(errs, cl.outside.Close())
	}
	for _, n := range cl.Nodes {
		for _, p := range n.Pods {
			errs = append(errs, p.Close())
		}
		errs = append(errs, n.Namespace.Close())
	}
	if cl.External != nil {
		errs = append(errs, cl.External.Close())
	}
	if cl.dir != nil {
		errs = append(errs, cl.dir.Close())
	}
	return errors.Join(errs...)
}

// ignoreEnded drops the errors of stopping a daemon that a test killed, or that never started.
func ignoreEnded(err error) error {
	if err == nil || errors.Is(err, ErrNotStarted) {
		return nil
	}
	var exit interface{ ExitCode() int }
	if errors.As(err, &exit) && exit.ExitCode() == -1 { // by a signal
		return nil
	}
	return err
}
