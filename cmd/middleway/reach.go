package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/middleway-net/middleway/k8s/remote"
	"github.com/middleway-net/middleway/node"
)

// reach is how a command reaches the nodes that it is about: of the playground, of one daemon's run directory, or of a real cluster. The
// last is meant where a flag says so that makes no sense else, or the program is kubectl's plugin; $KUBECONFIG alone means nothing.
type reach struct {
	config      *remote.Config
	plugin      bool
	dir, runDir string
}

// clusterHelp is what --help of such a command says about it.
const clusterHelp = `

With --kubeconfig, --context or --middleway-namespace it asks a real cluster, through its API server (docs/kubectl-plugin.md), as
the program does always that is called kubectl-middleway.`

// register adds the flags that choose. As kubectl's plugin the program has those of a cluster before its commands.
func (r *reach) register(cmd *cobra.Command) {
	if r.plugin {
		return
	}
	r.config = &remote.Config{Agent: "middleway/" + version}
	r.config.AddFlags(cmd.Flags())
	cmd.Long += clusterHelp
	cmd.Flags().StringVar(&r.runDir, "run-dir", node.DefaultRunDir(), "run directory of a node daemon")
	addDirFlag(cmd, &r.dir)
	r.complete(cmd)
}

// registerCluster is register of a command that is about real clusters alone.
func (r *reach) registerCluster(cmd *cobra.Command) {
	if r.plugin {
		return
	}
	r.config = &remote.Config{Agent: "middleway/" + version}
	r.config.AddFlags(cmd.Flags())
	r.complete(cmd)
}

// meansCluster reports whether a real cluster is meant; more are further flags that say so.
func (r *reach) meansCluster(cmd *cobra.Command, more ...string) bool {
	return r.plugin || slices.ContainsFunc(append(more, remote.FlagNames...), cmd.Flags().Changed)
}

// check refuses flags that mean different things.
func (r *reach) check(cmd *cobra.Command, more ...string) error {
	var said []string
	for _, f := range slices.Concat([]string{"dir", "run-dir"}, remote.FlagNames, more) {
		if cmd.Flags().Changed(f) {
			said = append(said, f)
		}
	}
	switch {
	case r.plugin || len(said) == 0:
	case slices.Contains(said, "dir") && slices.Contains(said, "run-dir"):
		return fmt.Errorf("--dir is the directory of a cluster, --run-dir that of a node daemon; give one of them")
	case (said[0] == "dir" || said[0] == "run-dir") && len(said) > 1:
		return fmt.Errorf("--%s is of this machine, --%s of a real cluster; give one of them", said[0], said[1])
	}
	return nil
}

// open reads the kubeconfig. namespace, where it was not given, becomes the context's.
func (r *reach) open(cmd *cobra.Command, namespace *string) (*remote.Cluster, error) {
	c, err := remote.New(*r.config)
	if err == nil && namespace != nil && !cmd.Flags().Changed("namespace") {
		*namespace = c.Namespace()
	}
	return c, err
}

// nobody is what err, that the playground is not running, means where the run directory has no daemon either.
func (r *reach) nobody(err error) error {
	return fmt.Errorf("%w; and no node daemon answers in %s, `middleway node` starts one, --run-dir names its directory; --context or --kubeconfig ask a real cluster", err, r.runDir)
}

// nodePrefix is what kubectl puts before a node's name.
const nodePrefix = "node/"

// daemon is one that is asked.
type daemon struct {
	node   string
	client *node.Client
}

func daemonOf(c *remote.Cluster, d remote.Daemon) daemon {
	return daemon{d.Node, node.Over(d.Words(), c.Dialer(d))}
}

// atOnce is how many daemons of a cluster are asked at the same time: each is a connection to the API server.
const atOnce = 16

// daemonsOf returns the daemons of a cluster that can be asked, or one node's alone. It says which others cannot, and missing is true then.
func daemonsOf(ctx context.Context, c *remote.Cluster, name string, stderr io.Writer) (all []daemon, missing bool, err error) {
	if name != "" {
		d, err := c.Daemon(ctx, name)
		return []daemon{daemonOf(c, d)}, false, err
	}
	daemons, err := c.Daemons(ctx)
	for _, d := range daemons {
		if d.Problem != "" {
			missing = true
			fmt.Fprintf(stderr, "middleway: node %s is left out: pod %s %s\n", d.Node, d.Pod, d.Problem)
			continue
		}
		all = append(all, daemonOf(c, d))
	}
	return all, missing, err
}

// askEach asks so many at the same time, 0 for all, and goes on with the others where one does not answer. It says which, and returns
// whether that was so.
func askEach(ctx context.Context, daemons []daemon, limit int, stderr io.Writer, ask func(int, daemon) error) (failed bool) {
	problems := make(chan error, len(daemons))
	slots := make(chan struct{}, cmp.Or(limit, len(daemons)))
	for i, d := range daemons {
		go func() {
			slots <- struct{}{}
			problems <- ask(i, d)
			<-slots
		}()
	}
	for range daemons {
		if err := <-problems; err != nil && ctx.Err() == nil {
			failed = true
			fmt.Fprintln(stderr, "middleway:", err)
		}
	}
	return failed
}
