package main

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/middleway-net/middleway/k8s/remote"
	"github.com/middleway-net/middleway/lab/playground"
)

// completionPatience is how long somebody waits who has pressed the tab key.
const completionPatience = 2 * time.Second

// complete registers what the flags of a cluster may be.
func (r *reach) complete(cmd *cobra.Command) {
	_ = cmd.RegisterFlagCompletionFunc("context", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		names, _ := r.config.Contexts()
		return names, cobra.ShellCompDirectiveNoFileComp
	})
}

// known are the names of nodes and of pods, NAMESPACE/NAME but in the namespace that is meant. What cannot be asked has none.
func (r *reach) known(cmd *cobra.Command) (nodes, pods []string) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completionPatience)
	defer cancel()
	if r.meansCluster(cmd, "node") {
		return r.knownRemote(ctx, cmd)
	}
	st, err := playground.ReadStatus(ctx, r.dir)
	if err != nil {
		return nil, nil
	}
	for _, n := range st.Nodes {
		nodes = append(nodes, n.Name)
	}
	namespace, _ := cmd.Flags().GetString("namespace")
	for _, p := range st.Pods {
		pods = append(pods, inNamespace(p.Namespace, p.Name, namespace))
	}
	return nodes, pods
}

func (r *reach) knownRemote(ctx context.Context, cmd *cobra.Command) (nodes, pods []string) {
	var namespace string
	c, err := r.open(cmd, nil)
	if err != nil {
		return nil, nil
	}
	if namespace = c.Namespace(); cmd.Flags().Changed("namespace") {
		namespace, _ = cmd.Flags().GetString("namespace")
	}
	daemons := make(chan []remote.Daemon, 1)
	go func() {
		all, _ := c.Daemons(ctx)
		daemons <- all
	}()
	all, _ := c.Pods(ctx, namespace)
	for _, p := range all {
		if !p.Spec.HostNetwork {
			pods = append(pods, p.Name)
		}
	}
	for _, d := range <-daemons {
		nodes = append(nodes, d.Node)
	}
	return nodes, pods
}

func inNamespace(namespace, name, meant string) string {
	if namespace == meant {
		return name
	}
	return namespace + "/" + name
}

func (r *reach) completeNodes(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	nodes, _ := r.known(cmd)
	return nodes, cobra.ShellCompDirectiveNoFileComp
}

func (r *reach) completePods(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 1 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	_, pods := r.known(cmd)
	return pods, cobra.ShellCompDirectiveNoFileComp
}

func (r *reach) completeCapture(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	nodes, pods := r.known(cmd)
	return slices.Concat(pods, nodes, []string{tunnel}), cobra.ShellCompDirectiveNoFileComp
}
