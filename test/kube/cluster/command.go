package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/test/kube/sandbox"
)

// The hidden commands of this program by which it starts itself again inside namespaces.
const (
	EnterCommand = "enter" // an Entering as JSON: runs a command there
	BirthCommand = "birth" // a node's spec file: starts its first process, and prints its id
	InitCommand  = "init"  // a node's spec file: is a node's first process
)

// An Entering is the argument of EnterCommand.
type Entering struct {
	Entry sandbox.Entry `json:"entry"`
	Argv  []string      `json:"argv"`
	Env   []string      `json:"env"`
}

// self is a command of this very program, in a process of its own.
func self(ctx context.Context, args ...string) (*exec.Cmd, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) } // which is passed on to what it runs
	cmd.WaitDelay = 10 * time.Second
	return cmd, nil
}

func (c *Cluster) entering(ctx context.Context, e sandbox.Entry, argv []string) (*exec.Cmd, error) {
	text, err := json.Marshal(Entering{Entry: e, Argv: argv, Env: c.env()})
	if err != nil {
		return nil, err
	}
	return self(ctx, EnterCommand, string(text))
}

// env is the environment of commands in the cluster's namespaces.
func (c *Cluster) env() []string {
	env := []string{"PATH=" + c.path(), "KUBECONFIG=" + c.Kubeconfig()}
	for _, name := range []string{"HOME", "TERM", "LANG"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// OutsideCommand is a command in the network outside of the nodes, from where the API server and the nodes' addresses are reached.
func (c *Cluster) OutsideCommand(ctx context.Context, argv ...string) (*exec.Cmd, error) {
	return c.entering(ctx, sandbox.Entry{Cgroup: c.cgroup("outside"), Netns: c.Outside()}, argv)
}

// Command is a command in all of the node's namespaces. It ends with the node.
func (n *Node) Command(ctx context.Context, argv ...string) (*exec.Cmd, error) {
	return n.CommandAt(ctx, 0, argv...)
}

// CommandAt is a command of the node in the network namespace of a process of one of its pods, which Processes knows; 0: the
// node's own.
func (n *Node) CommandAt(ctx context.Context, pid int, argv ...string) (*exec.Cmd, error) {
	first, ok := n.c.Inits[n.Name]
	if !ok {
		return nil, fmt.Errorf("node %s does not run", n.Name)
	}
	return n.c.entering(ctx, sandbox.Entry{Cgroup: n.c.cgroup(n.Name), PID: first, Inner: pid}, argv)
}

// Output runs a command to its end. The error has what it said of its failure.
func Output(cmd *exec.Cmd, err error) (string, error) {
	if err != nil {
		return "", err
	}
	var stderr bytes.Buffer
	if cmd.Stderr == nil {
		cmd.Stderr = &stderr
	}
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

// Kubectl runs kubectl outside as the cluster's administrator and returns what it printed.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (string, error) {
	out, err := Output(c.OutsideCommand(ctx, append([]string{c.Program("kubectl")}, args...)...))
	if err != nil {
		return out, fmt.Errorf("kubectl %s: %w", strings.Join(args, " "), err)
	}
	return out, nil
}

// Apply applies manifests.
func (c *Cluster) Apply(ctx context.Context, manifests string) error {
	cmd, err := c.OutsideCommand(ctx, c.Program("kubectl"), "apply", "-f", "-")
	if err != nil {
		return err
	}
	cmd.Stdin = strings.NewReader(manifests)
	if _, err := Output(cmd, nil); err != nil {
		return fmt.Errorf("kubectl apply: %w", err)
	}
	return nil
}

// Eventually asks done again and again until it returns no error, and returns its last one after the limit.
func Eventually(ctx context.Context, limit time.Duration, done func() error) error {
	for end := time.Now().Add(limit); ; {
		err := done()
		if err == nil || ctx.Err() != nil {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("not within %v: %w", limit, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Wait waits until an API object is as kubectl wait's condition says.
func (c *Cluster) Wait(ctx context.Context, limit time.Duration, args ...string) error {
	_, err := c.Kubectl(ctx, append([]string{"wait", "--timeout=" + limit.String()}, args...)...)
	return err
}
