package scenario

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/test/kube/cluster"
)

// clientPod is a pod on the node CLIENT from which a scenario asks, behind other objects of a manifest.
const clientPod = `---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  nodeName: CLIENT
  terminationGracePeriodSeconds: 0
  containers: [{name: client, image: "${IMAGE}", args: [pause]}]
`

// A Client is in the network of a pod, or outside of all nodes, and works while the API server is away.
type Client struct {
	cluster *cluster.Cluster
	node    *cluster.Node // nil: outside
	pid     int
}

// Outside is in the network beside the nodes.
func (t *T) Outside() Client { return Client{cluster: t.Cluster} }

// command is a program in the client's network.
func (c Client) command(ctx context.Context, argv ...string) (*exec.Cmd, error) {
	if c.node == nil {
		return c.cluster.OutsideCommand(ctx, argv...)
	}
	return c.node.CommandAt(ctx, c.pid, argv...)
}

// Client is in the network of a pod of the scenario that is Ready.
func (t *T) Client(ctx context.Context, pod string) (Client, error) {
	uid, on, err := t.Cluster.PodUID(ctx, t.Namespace, pod)
	if err != nil {
		return Client{}, err
	}
	n, err := t.Cluster.Find(on)
	if err != nil {
		return Client{}, err
	}
	processes, err := n.Processes(uid)
	if err != nil {
		return Client{}, err
	}
	if len(processes) == 0 {
		return Client{}, fmt.Errorf("pod %s has no process on %s", pod, on)
	}
	return Client{cluster: t.Cluster, node: n, pid: processes[0].PID}, nil
}

// Node is where the pod is.
func (c Client) Node() *cluster.Node { return c.node }

// Output runs a program in the client's network.
func (c Client) Output(ctx context.Context, argv ...string) (string, error) {
	return cluster.Output(c.command(ctx, argv...))
}

// Get is the body of an answer within two seconds.
func (c Client) Get(ctx context.Context, url string) (string, error) {
	return c.Output(ctx, "curl", "-sS", "--max-time", "2", url)
}

// Answers asks a URL n times, each by a connection of its own, and counts the answers, failures by what was wrong.
func (c Client) Answers(ctx context.Context, url string, n int) (map[string]int, error) {
	r, err := c.once(ctx, Load{URL: url, Workers: 1, Requests: n, Bodies: true})
	return r.Bodies, err
}

// once runs a load that has an end to its end.
func (c Client) once(ctx context.Context, l Load) (Result, error) {
	running, err := c.Load(ctx, l)
	if err != nil {
		return Result{}, err
	}
	return running.Wait()
}

// Backends waits until exactly that many different answers come from a URL: a Service's pods, by their names.
func (c Client) Backends(ctx context.Context, url string, want int) error {
	return Eventually(ctx, 10*time.Second, func() error {
		answers, err := c.Answers(ctx, url, 20*want)
		if err == nil && len(answers) != want {
			err = fmt.Errorf("the Service's answers are %v, and %d pods should answer", answers, want)
		}
		return err
	})
}

// A Running is a load that runs in a client's network.
type Running struct {
	cmd    *exec.Cmd
	out    bytes.Buffer
	stderr bytes.Buffer
}

// Load starts a load generator in the client's network.
func (c Client) Load(ctx context.Context, l Load) (*Running, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(l)
	if err != nil {
		return nil, err
	}
	cmd, err := c.command(ctx, program, LoadCommand, string(text))
	if err != nil {
		return nil, err
	}
	r := &Running{cmd: cmd}
	cmd.Stdout, cmd.Stderr = &r.out, &r.stderr
	return r, cmd.Start()
}

// Stop ends the load, and returns what came of it.
func (r *Running) Stop() (Result, error) {
	if err := r.cmd.Process.Signal(unix.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return Result{}, err
	}
	return r.Wait()
}

// Wait waits until a load that has an end has come to it.
func (r *Running) Wait() (Result, error) {
	var result Result
	if err := r.cmd.Wait(); err != nil {
		return result, fmt.Errorf("load: %w: %s", err, strings.TrimSpace(r.stderr.String()))
	}
	return result, json.Unmarshal(r.out.Bytes(), &result)
}

// Measure tells the figures of a load, and is an error where more requests failed than may.
func (t *T) Measure(name string, r Result, may int) error {
	t.Figures[name+" requests"] = float64(r.Requests)
	t.Figures[name+" failed"] = float64(len(r.Failures))
	t.Figures[name+" p50 ms"] = ms(r.P50)
	t.Figures[name+" p99 ms"] = ms(r.P99)
	t.Figures[name+" longest ms"] = ms(r.Longest)
	t.Figures[name+" gap ms"] = ms(r.Gap)
	t.Say("%-20s %6d requests, %d failed; p50 %.1f ms, p99 %.1f ms, longest %.0f ms; %.0f ms without any answer",
		name, r.Requests, len(r.Failures), ms(r.P50), ms(r.P99), ms(r.Longest), ms(r.Gap))
	if len(r.Failures) > may {
		f := r.Failures[0]
		return fmt.Errorf("%s: %d of %d requests failed, the first at %s: %s", name, len(r.Failures), r.Requests, f.At.Format(time.TimeOnly), f.Why)
	}
	return nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
