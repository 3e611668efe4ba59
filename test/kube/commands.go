package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/middleway-net/middleway/test/kube/cluster"
	"github.com/middleway-net/middleway/test/kube/components"
	"github.com/middleway-net/middleway/test/kube/scenario"
)

// exitStatus is the end of a command that was run for the caller and has said itself what was wrong.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// clusterName is the flag that all commands about one cluster have.
func clusterName(cmd *cobra.Command) *string {
	return cmd.Flags().StringP("cluster", "c", defaultCluster(), "the cluster's name; default $CLUSTER, else kube")
}

func defaultCluster() string { return cmp.Or(os.Getenv("CLUSTER"), "kube") }

// clusterDir is the folder of a cluster, in the cache.
func clusterDir(name string) (string, error) {
	cache, err := components.Open()
	return filepath.Join(cache.Dir, "clusters", name), err
}

func openCluster(name string) (*cluster.Cluster, error) {
	dir, err := clusterDir(name)
	if err != nil {
		return nil, err
	}
	return cluster.Open(dir)
}

func downCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Take a cluster down, whole or in parts; its logs and results stay",
		Args:  cobra.NoArgs,
	}
	name := clusterName(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		dir, err := clusterDir(*name)
		if err != nil {
			return err
		}
		if err := cluster.Down(dir); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "cluster %s is down\n", *name)
		return nil
	}
	return cmd
}

func kubectlCommand() *cobra.Command {
	return &cobra.Command{
		Use:                "kubectl [--cluster CLUSTER] ARGUMENTS…",
		Short:              "kubectl as the cluster's administrator, from the outside of its nodes",
		Long:               "Runs kubectl as the cluster's administrator, from the outside of its nodes. The cluster, where it is not $CLUSTER or kube, has to be\nnamed before kubectl's own arguments.",
		Example:            "  kube kubectl get pods -A -o wide\n  kube kubectl --cluster other apply -f web.yaml",
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 || args[0] == "--help" {
				return cmd.Help()
			}
			name := defaultCluster()
			switch flag, value, given := strings.Cut(args[0], "="); {
			case flag == "--cluster" && given:
				name, args = value, args[1:]
			case (flag == "--cluster" || flag == "-c") && len(args) > 1:
				name, args = args[1], args[2:]
			}
			c, err := openCluster(name)
			if err != nil {
				return err
			}
			return passThrough(c.OutsideCommand(cmd.Context(), append([]string{c.Program("kubectl")}, args...)...))
		},
	}
}

func execCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "exec NODE|outside -- COMMAND…",
		Short:   "Run a command in the namespaces of a node, or in the network outside of the nodes",
		Example: "  kube exec 2 -- nft list ruleset\n  kube exec kube-1 -- ctr -n k8s.io containers ls\n  kube exec outside -- curl -k https://192.168.254.11:6443/version",
		Args:    cobra.MinimumNArgs(2),
	}
	name := clusterName(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := openCluster(*name)
		if err != nil {
			return err
		}
		if args[0] == "outside" {
			return passThrough(c.OutsideCommand(cmd.Context(), args[1:]...))
		}
		n, err := c.Find(args[0])
		if err != nil {
			return err
		}
		return passThrough(n.Command(cmd.Context(), args[1:]...))
	}
	return cmd
}

// passThrough runs a command with this program's own files, and ends as it ends.
func passThrough(cmd *exec.Cmd, err error) error {
	if err != nil {
		return err
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exitStatus(exit.ExitCode())
	}
	return err
}

func logsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "logs [NODE [COMPONENT]]",
		Short:   "What a component of a node printed, or which components have logs; they stay when the cluster is down",
		Example: "  kube logs\n  kube logs 2 kubelet\n  kube logs outside resolver",
		Args:    cobra.MaximumNArgs(2),
	}
	name := clusterName(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		dir, err := clusterDir(*name)
		if err != nil {
			return err
		}
		node, component := "*", "*"
		if len(args) > 0 {
			node = args[0]
			if strings.Trim(node, "0123456789") == "" {
				node = *name + "-" + node
			}
		}
		if len(args) > 1 {
			component = args[1]
		}
		files, err := filepath.Glob(filepath.Join(dir, "logs", node, component+".log"))
		if err != nil {
			return err
		}
		if len(files) == 0 {
			return fmt.Errorf("no such log in %s: kube logs -c %s lists those that there are", filepath.Join(dir, "logs"), *name)
		}
		if len(args) < 2 {
			return listLogs(cmd.OutOrStdout(), files)
		}
		f, err := os.Open(files[0])
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(cmd.OutOrStdout(), f)
		return err
	}
	return cmd
}

func listLogs(out io.Writer, files []string) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tCOMPONENT\tKB\tFILE")
	for _, f := range files {
		st, err := os.Stat(f)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\n", filepath.Base(filepath.Dir(f)), strings.TrimSuffix(filepath.Base(f), ".log"), (st.Size()+999)/1000, f)
	}
	return w.Flush()
}

func statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Which processes each node of a cluster has",
		Args:  cobra.NoArgs,
	}
	name := clusterName(cmd)
	output := cmd.Flags().StringP("output", "o", "table", "table or json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *output != "table" && *output != "json" {
			return fmt.Errorf("--output is table or json, not %q", *output)
		}
		c, err := openCluster(*name)
		if err != nil {
			return err
		}
		s := c.Status(cmd.Context())
		if *output == "json" {
			return writeJSON(cmd.OutOrStdout(), s)
		}
		out := cmd.OutOrStdout()
		fmt.Fprintf(out, "cluster %s: %d nodes, %s, network %s; the API server %s\n", s.Name, len(s.Nodes), s.Family, s.Network, s.API)
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "NODE\tADDRESSES\tCOMPONENT\tPID\tRESTARTS")
		for _, n := range s.Nodes {
			for _, p := range n.Processes {
				pid := fmt.Sprint(p.PID)
				if p.Stopped {
					pid = "stopped"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\n", n.Name, strings.Join(n.Addresses, ","), p.Name, pid, p.Restarts)
			}
			if n.Problem != "" {
				fmt.Fprintf(w, "%s\t%s\t\t\t%s\n", n.Name, strings.Join(n.Addresses, ","), n.Problem)
			}
		}
		return w.Flush()
	}
	return cmd
}

// hiddenCommands are those by which the program starts itself again.
func hiddenCommands() []*cobra.Command {
	one := func(name string, f func(cmd *cobra.Command, arg string) error) *cobra.Command {
		return &cobra.Command{Use: name, Hidden: true, RunE: func(cmd *cobra.Command, args []string) error {
			return f(cmd, strings.Join(args, " "))
		}}
	}
	return []*cobra.Command{
		one(cluster.EnterCommand, func(_ *cobra.Command, arg string) error {
			status, err := cluster.Enter(arg)
			if err == nil && status != 0 {
				return exitStatus(status)
			}
			return err
		}),
		one(cluster.BirthCommand, func(cmd *cobra.Command, arg string) error { return cluster.Birth(arg, cmd.OutOrStdout()) }),
		one(cluster.InitCommand, func(_ *cobra.Command, arg string) error { return cluster.Init(arg) }),
		one(scenario.LoadCommand, func(cmd *cobra.Command, arg string) error {
			return scenario.RunLoad(cmd.Context(), arg, cmd.OutOrStdout())
		}),
		one(cluster.ResolverCommand, func(cmd *cobra.Command, _ string) error { return cluster.Resolve(cmd.Context()) }),
	}
}
