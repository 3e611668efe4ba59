package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/middleway-net/middleway/capture"
	"github.com/middleway-net/middleway/k8s/remote"
	"github.com/middleway-net/middleway/node"
)

// source is a daemon, and what is wanted of it; all for none.
type source struct {
	client     *node.Client
	interfaces []string
}

// sources returns where what a person named is. missing is true where a node of a real cluster cannot be asked, which was said.
func (f *captureFlags) sources(cmd *cobra.Command, what string) (all []source, missing bool, err error) {
	if f.meansCluster(cmd) {
		return f.remoteSources(cmd, what)
	}
	targets, err := f.targets(cmd, what)
	for _, t := range targets {
		all = append(all, source{node.In(t.runDir), t.interfaces})
	}
	return all, false, err
}

// remoteSources finds it in a real cluster: a node, else a pod, unless it is node/NODE or pod/POD.
func (f *captureFlags) remoteSources(cmd *cobra.Command, what string) (all []source, missing bool, err error) {
	c, err := f.open(cmd, &f.namespace)
	if err != nil {
		return nil, false, err
	}
	name, isNode := strings.CutPrefix(what, nodePrefix)
	if what == "" || what == tunnel || isNode {
		var interfaces []string
		if what == tunnel {
			interfaces = []string{tunnel}
		}
		if !isNode {
			name = ""
		}
		daemons, missing, err := daemonsOf(cmd.Context(), c, name, cmd.ErrOrStderr())
		for _, d := range daemons {
			all = append(all, source{d.client, interfaces})
		}
		return all, missing, err
	}
	nodes, err := c.Daemons(cmd.Context())
	if err != nil {
		return nil, false, err
	}
	if slices.ContainsFunc(nodes, func(d remote.Daemon) bool { return d.Node == what }) {
		d, err := c.Daemon(cmd.Context(), what)
		return []source{{daemonOf(c, d).client, nil}}, false, err
	}
	at, pod, err := f.podSource(cmd, c, what)
	return []source{{at.client, []string{pod}}}, false, err
}

// podSource returns the daemon of a pod's node, and the pod's interface.
func (f *captureFlags) podSource(cmd *cobra.Command, c *remote.Cluster, what string) (at daemon, pod string, err error) {
	namespace, name := f.namespace, ""
	if err := namePod(cmd, what, &namespace, &name); err != nil {
		return at, "", err
	}
	p, err := c.Pod(cmd.Context(), namespace, name)
	switch {
	case err != nil:
		return at, "", saidBy(cmd, err)
	case p.Spec.HostNetwork:
		return at, "", fmt.Errorf("capture: pod %s/%s has the network of %s and no interface of its own; `%s node/%[3]s` shows the node's", namespace, name, p.Spec.NodeName, cmd.CommandPath())
	case p.Spec.NodeName == "":
		return at, "", fmt.Errorf("capture: pod %s/%s is on no node yet; `kubectl -n %[1]s describe pod %s` says why", namespace, name)
	}
	d, err := c.Daemon(cmd.Context(), p.Spec.NodeName)
	return daemonOf(c, d), namespace + "/" + name, saidBy(cmd, err)
}

// begin begins captures, all or none.
func begin(ctx context.Context, sources []source, req capture.Request) ([]*capture.Stream, error) {
	streams := make([]*capture.Stream, len(sources))
	g := errgroup.Group{}
	g.SetLimit(atOnce)
	for i, s := range sources {
		req := req
		req.Interfaces = s.interfaces
		g.Go(func() (err error) {
			streams[i], err = s.client.Capture(ctx, req)
			return err
		})
	}
	err := g.Wait()
	if err == nil {
		return streams, nil
	}
	for _, s := range streams {
		if s != nil {
			err = errors.Join(err, s.Close())
		}
	}
	return nil, err
}
