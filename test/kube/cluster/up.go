package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/middleway-net/middleway/test/kube/node"
	"github.com/middleway-net/middleway/test/kube/pki"
	"github.com/middleway-net/middleway/test/kube/sandbox"
)

// Up makes a cluster and returns when it serves: nodes are Ready and names are answered. It says on out what it does and how long
// that took. What it made before an error stays, so that one can look at it; Down takes it away.
func Up(ctx context.Context, config Config, network Network, out io.Writer) (*Cluster, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("a cluster's namespaces and cgroups need root: call it by sudo -E")
	}
	if err := config.Check(); err != nil {
		return nil, err
	}
	if strings.HasPrefix(config.Dir, "/run/") {
		return nil, fmt.Errorf("nodes have a /run of their own and would not see %s: set MIDDLEWAY_KUBE_DIR to a folder elsewhere", config.Dir)
	}
	unlock, err := lock(config.Dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if old, err := Open(config.Dir); err == nil && old.alive() {
		return nil, fmt.Errorf("cluster %s is up already: kube down --cluster %s ends it", config.Name, config.Name)
	}
	if err := clear(config); err != nil { // what a former one left
		return nil, err
	}
	for _, dir := range []string{"logs", "pki"} {
		if err := os.RemoveAll(filepath.Join(config.Dir, dir)); err != nil {
			return nil, err
		}
	}
	c := &Cluster{Config: config, Inits: map[string]int{}, Added: map[string][]node.Component{}, out: out}
	if err := c.up(ctx, network); err != nil {
		return nil, fmt.Errorf("%w\nWhat was made stays for a look, with logs in %s; kube down --cluster %s takes it away", err, filepath.Join(c.Dir, "logs"), c.Name)
	}
	return c, nil
}

// up is the steps of Up in their order.
func (c *Cluster) up(ctx context.Context, network Network) error {
	begin := time.Now()
	say := func(format string, args ...any) {
		fmt.Fprintf(c.out, "%6.1f s  %s\n", time.Since(begin).Seconds(), fmt.Sprintf(format, args...))
	}
	if err := pki.Write(c.pki(), c.Plan); err != nil {
		return err
	}
	var err error
	if c.api, err = newAPI(c.Config); err != nil {
		return err
	}
	if err := c.save(); err != nil {
		return err
	}
	if err := c.makeOutside(ctx); err != nil {
		return err
	}
	for _, n := range c.AllNodes() {
		if err := c.makeNode(ctx, n); err != nil {
			return err
		}
	}
	say("%d namespaces with their first processes; logs are in %s", c.Plan.Nodes, filepath.Join(c.Dir, "logs"))

	control := c.AllNodes()[0]
	if err := c.awaitAPI(ctx, control); err != nil {
		return err
	}
	say("the API server is ready")

	work, workCtx := errgroup.WithContext(ctx)
	installed := make(chan struct{})
	work.Go(func() error {
		err := network.Install(workCtx, c)
		if err == nil {
			close(installed)
		}
		return err
	})
	for _, n := range c.AllNodes() {
		work.Go(func() error {
			if err := c.awaitRange(workCtx, n); err != nil {
				return err
			}
			select {
			case <-workCtx.Done():
				return workCtx.Err()
			case <-installed:
				return network.Join(workCtx, c, n)
			}
		})
	}
	if err := work.Wait(); err != nil {
		return fmt.Errorf("network %s: %w", c.Network, err)
	}
	say("nodes are registered, and the network %s is installed", c.Network)

	for _, n := range c.AllNodes() {
		if err := c.awaitReady(ctx, n); err != nil {
			return err
		}
	}
	say("nodes are Ready")
	if err := network.Ready(ctx, c); err != nil {
		return fmt.Errorf("network %s: %w", c.Network, err)
	}
	for _, n := range c.AllNodes() {
		if err := c.awaitImages(ctx, n); err != nil {
			return err
		}
	}
	say("cluster %s is up: %d nodes, %s, network %s", c.Name, c.Plan.Nodes, c.Family, c.Network)
	return nil
}

// makeOutside makes the namespace around the nodes, and starts their DNS server there.
func (c *Cluster) makeOutside(ctx context.Context) error {
	if err := sandbox.MakeNetns(c.Outside()); err != nil {
		return err
	}
	if err := sandbox.MakeOutside(c.Outside(), c.OutsideAddrs()); err != nil {
		return err
	}
	if err := c.cgroup("outside").Make(); err != nil {
		return err
	}
	logfile := filepath.Join(c.logs("outside"), "resolver.log")
	if err := os.MkdirAll(filepath.Dir(logfile), 0o755); err != nil {
		return err
	}
	logs, err := os.Create(logfile)
	if err != nil {
		return err
	}
	defer logs.Close()
	program, err := os.Executable()
	if err != nil {
		return err
	}
	// It outlives this process, so nothing of ctx is its concern.
	cmd, err := c.OutsideCommand(context.WithoutCancel(ctx), program, ResolverCommand)
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = logs, logs
	cmd.SysProcAttr = detached()
	if err := cmd.Start(); err != nil {
		return err
	}
	return cmd.Process.Release()
}

// makeNode makes a node's namespaces and cgroup, and starts its first process.
func (c *Cluster) makeNode(ctx context.Context, n *Node) error {
	if err := sandbox.MakeNetns(n.Name); err != nil {
		return err
	}
	if err := sandbox.Connect(n.Name, c.Outside(), n.Number, c.Interface(n.Number), c.OutsideAddrs()); err != nil {
		return err
	}
	if err := c.cgroup(n.Name).Make(); err != nil {
		return err
	}
	spec, err := c.spec(n.Number)
	if err != nil {
		return err
	}
	spec.Components = append(spec.Components, c.Added[n.Name]...)
	file, err := spec.Write()
	if err != nil {
		return err
	}
	kernel, err := n.Kernel()
	if err != nil {
		return err
	}
	if err := kernel.Write(n.birth()); err != nil {
		return err
	}
	return c.startNode(ctx, n, file)
}

// startNode starts a node's first process by a process that joins the node's cgroup before.
func (c *Cluster) startNode(ctx context.Context, n *Node, specFile string) error {
	if err := os.MkdirAll(c.logs(n.Name), 0o755); err != nil {
		return err
	}
	logs, err := os.OpenFile(n.Log("init"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer logs.Close()
	cmd, err := self(ctx, BirthCommand, specFile)
	if err != nil {
		return err
	}
	cmd.Stderr = logs
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	line, _ := bufio.NewReader(stdout).ReadString('\n')
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("start node %s: %w; %s:\n%s", n.Name, err, n.Log("init"), node.Tail(n.Log("init"), 5))
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		return fmt.Errorf("start node %s: %w", n.Name, err)
	}
	if err := c.change(func() { c.Inits[n.Name] = pid }); err != nil {
		return err
	}
	return wait{what: "node " + n.Name + " begins", limit: 20 * time.Second, log: n.Log("init"), done: func(ctx context.Context) error {
		_, err := n.State(ctx)
		return err
	}}.until(ctx)
}

func (c *Cluster) awaitAPI(ctx context.Context, control *Node) error {
	return wait{
		what: "the API server is ready", limit: 2 * time.Minute, log: control.Log("kube-apiserver"),
		done:   func(ctx context.Context) error { return c.api.get(ctx, "/readyz", nil) },
		giveUp: func() error { return control.giveUp(ctx) },
	}.until(ctx)
}

// awaitRange waits for the Node object's range of pods.
func (c *Cluster) awaitRange(ctx context.Context, n *Node) error {
	return n.await(ctx, "is registered and has a range", "kubelet", func(ctx context.Context) error {
		var o nodeObject
		if err := c.api.get(ctx, "/api/v1/nodes/"+n.Name, &o); err != nil {
			return err
		}
		n.PodCIDRs = o.Spec.PodCIDRs
		if len(n.PodCIDRs) == 0 {
			return errors.New("it has no spec.podCIDRs")
		}
		return nil
	})
}

func (c *Cluster) awaitReady(ctx context.Context, n *Node) error {
	return n.await(ctx, "is Ready", "kubelet", func(ctx context.Context) error {
		var o nodeObject
		if err := c.api.get(ctx, "/api/v1/nodes/"+n.Name, &o); err != nil {
			return err
		}
		if ok, why := o.ready(); !ok {
			return errors.New(why)
		}
		return nil
	})
}

func (c *Cluster) awaitImages(ctx context.Context, n *Node) error {
	return n.await(ctx, "has all images", "images", func(ctx context.Context) error {
		s, err := n.State(ctx)
		if err == nil && !s.Images {
			err = errors.New("they are still being brought to its store")
		}
		return err
	})
}

// await waits for something about the node of which the component's log tells.
func (n *Node) await(ctx context.Context, what, component string, done func(context.Context) error) error {
	return wait{
		what: "node " + n.Name + " " + what, limit: 3 * time.Minute, log: n.Log(component),
		done:   done,
		giveUp: func() error { return n.giveUp(ctx) },
	}.until(ctx)
}

// alive says whether any of the nodes' first processes answers.
func (c *Cluster) alive() bool {
	for _, n := range c.AllNodes() {
		if _, err := n.State(context.Background()); err == nil {
			return true
		}
	}
	return false
}

// Birth starts a node's first process as BirthCommand, and prints its id.
func Birth(specFile string, out io.Writer) error {
	s, err := node.Read(specFile)
	if err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	pid, err := sandbox.Entry{Cgroup: s.Cgroup, Netns: s.Name}.StartInit([]string{program, InitCommand, specFile})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, pid)
	return err
}

// Enter runs the command of EnterCommand and returns its exit status.
func Enter(text string) (int, error) {
	var e Entering
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		return 0, err
	}
	return e.Entry.Run(e.Argv, e.Env)
}
