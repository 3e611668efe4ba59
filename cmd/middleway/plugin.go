package main

import (
	"github.com/spf13/cobra"

	"github.com/middleway-net/middleway/k8s/remote"
)

// Names of this program, as symbolic links give them to it.
const (
	// pluginName is how kubectl finds a plugin: `kubectl middleway` runs it.
	pluginName = "kubectl-middleway"
	// pluginCompletion is what kubectl asks, from 1.26 on, how the plugin's words go on.
	pluginCompletion = "kubectl_complete-middleway"
)

// pluginCommand is what the program is as kubectl's plugin: the commands that are about a real cluster, with kubectl's flags.
func pluginCommand() *cobra.Command {
	root := newRoot(pluginName, "See what middleway does in a cluster")
	root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl middleway"}
	root.Long = `Asks middleway's daemons in a cluster, through its API server and with what the kubeconfig allows; docs/kubectl-plugin.md names the RBAC.
kubectl's flags that choose a cluster and a user, which ` + "`kubectl options`" + ` lists, work here too.`
	r := reach{config: &remote.Config{Agent: "kubectl-middleway/" + version}, plugin: true}
	flags := root.PersistentFlags()
	r.config.AddFlags(flags)
	r.config.AddKubectlFlags(flags)
	r.complete(root)
	root.AddCommand(statusCommand(r), traceCommand(r), flowsCommand(r), captureCommand(r), checkCommand(r), perfCommand(r), reportCommand(r))
	return root
}
