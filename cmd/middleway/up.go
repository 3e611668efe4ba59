package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/lab/manifest"
	"github.com/middleway-net/middleway/lab/playground"
)

const upHelp = `Makes a cluster on this machine: every node a network namespace with a daemon of its own, and pods from ordinary
Kubernetes manifests. A pod's command runs in the pod's namespaces, with this machine's files in place of an image; so a
container needs a command, unless its image is nginx, httpd, busybox, agnhost, curl or pause, which have stand-ins. The CNI
plugin attaches the pods; it is this program under another name.

Without -f two pods a node run a small HTTP server on port 8080, behind the Service web. A pod's spec.nodeName (node-1, node-2, …)
chooses its node, else pods are spread. Files and directories of -f are followed while the cluster runs: pods are added, replaced and
deleted with them, and a mistake, which is told, changes nothing. Fields and kinds that are not honoured are named in a warning. A pod has namespaces of
its own, with the host name, /etc/hosts, /etc/resolv.conf and emptyDir volumes that a kubelet would give it; init containers, probes
and restartPolicy are honoured.

What containers print is kept in the state directory; middleway logs shows it, and middleway status says why a pod is not well.

In the foreground the cluster runs until Ctrl-C or SIGTERM, then everything is taken down. With -d the command returns when
all is up. The machine's own network is not touched. It runs as root or as an ordinary user who may open /dev/net/tun and make
user namespaces. docs/playground.md is the manual.`

// upFlags are what up is told.
type upFlags struct {
	config playground.Config
	files  []string
	detach bool
	named  bool // --dir is given
}

func upCommand() *cobra.Command {
	var f upFlags
	cmd := &cobra.Command{
		Use:   "up [-f FILE|DIR]... [-d]",
		Short: "Make a cluster on this machine, with pods from manifests",
		Long:  upHelp,
		Example: `  middleway up
  middleway up --nodes 3 -f pods.yaml -f more/
  middleway up -d -f pods/               # follows the files there
  middleway up -d && middleway status && middleway down
  middleway up --underlay userspace -f - <pods.yaml`,
		Args: noFiles,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.named = cmd.Flags().Changed("dir")
			if err := f.check(); err != nil {
				return fmt.Errorf("up: %w", err)
			}
			if f.detach {
				return f.startDetached(cmd)
			}
			return f.run(cmd)
		},
	}
	cmd.Flags().IntVar(&f.config.Nodes, "nodes", 2, fmt.Sprintf("number of nodes, 1 to %d", playground.MaxNodes))
	cmd.Flags().StringArrayVarP(&f.files, "file", "f", nil, "manifest `file`, directory of such files, or - for standard input; may be given several times")
	cmd.Flags().StringSliceVar(&f.config.Zones, "zones", nil, "zones in which the nodes are, one after another, for example a,b; default none")
	cmd.Flags().BoolVarP(&f.detach, "detach", "d", false, "return when all is up; middleway down takes it down")
	addUnderlayFlag(cmd, &f.config.Underlay)
	addDirFlag(cmd, &f.config.Dir)
	return cmd
}

// addDirFlag adds the flag by which all commands of the playground find the cluster.
func addDirFlag(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "dir", playground.DefaultDir(), "state directory of the cluster; default $"+playground.DirVar+" if that is set")
}

// addUnderlayFlag adds the flag that says what joins the nodes.
func addUnderlayFlag(cmd *cobra.Command, u *playground.Underlay) {
	*u = playground.Auto
	cmd.Flags().Var(u, "underlay", "what joins the nodes: kernel (veth; userspace where it has none), userspace, machine (the machine's loopback, by sockets handed in), or auto (machine for an ordinary user, else kernel)")
}

func (f *upFlags) check() error {
	if f.config.Nodes < 1 || f.config.Nodes > playground.MaxNodes {
		return fmt.Errorf("--nodes %d: want 1 to %d", f.config.Nodes, playground.MaxNodes)
	}
	var err error
	if f.config.Dir, err = filepath.Abs(f.config.Dir); err != nil {
		return err
	}
	for i, path := range f.files {
		if path == "-" {
			continue
		}
		if f.files[i], err = manifestPath(path); err != nil {
			return err
		}
	}
	if f.named {
		return nil
	}
	// As an ordinary user a process of the cluster is root of a user namespace, and its default would be another one.
	return os.Setenv(playground.DirVar, f.config.Dir)
}

// noFiles refuses arguments, and says how a manifest is given.
func noFiles(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if _, err := manifestPath(args[0]); err != nil {
		return err
	}
	if _, err := os.Stat(args[0]); err == nil || slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(args[0])) {
		return fmt.Errorf("%s takes no argument like %q; manifests are given by -f, once for each file or directory: -f %[2]s", cmd.CommandPath(), args[0])
	}
	return noArgs(cmd, args)
}

// manifestPath returns the absolute path of a manifest, which is a file or directory of this machine.
func manifestPath(path string) (string, error) {
	if strings.Contains(path, "://") {
		return "", fmt.Errorf("-f %s: addresses are not fetched; fetch it first, for example: curl -fsSL %[1]s | middleway up -f -", path)
	}
	return filepath.Abs(path)
}

// read reads the manifests, if there are any.
func (f *upFlags) read() error {
	var err error
	if len(f.files) > 0 {
		f.config.Follow = f.files
		f.config.Pods, err = manifest.Read(os.Stdin, f.files...)
	}
	if err != nil {
		return err
	}
	return f.config.Check()
}

// run brings the cluster up, waits, and takes it down.
func (f *upFlags) run(cmd *cobra.Command) error {
	f.config.Out, f.config.Color = cmd.OutOrStdout(), wantsColor(cmd.OutOrStdout())
	if err := lab.Enter(); err != nil {
		return err
	}
	f.config.Owner = os.Getppid()
	ctx := cmd.Context()
	if !signal.Ignored(syscall.SIGHUP) { // else it was started by nohup
		var stop context.CancelFunc
		ctx, stop = signal.NotifyContext(ctx, syscall.SIGHUP)
		defer stop()
	}
	if err := f.read(); err != nil {
		return err
	}
	c, err := playground.New(ctx, f.config)
	if errors.Is(err, playground.ErrInterrupted) {
		return &exitError{exitInterrupted, playground.ErrInterrupted}
	}
	if err != nil {
		return err
	}
	if !c.Detached() {
		f.printHints("Ctrl-C or " + playground.Hint("down", f.config.Dir))
	}
	c.Wait(ctx)
	fmt.Fprintln(f.config.Out, "taking it down")
	if err := c.Close(); err != nil {
		return err
	}
	fmt.Fprintln(f.config.Out, "taken down; nothing is left")
	return nil
}

// exitInterrupted is the exit code of a start that was interrupted, as of a program that SIGINT ended.
const exitInterrupted = 128 + int(syscall.SIGINT)

// printHints tells what to do with a cluster that is up.
func (f *upFlags) printHints(end string) {
	dir := f.config.Dir
	fmt.Fprintf(f.config.Out, "up; %s shows it, %s runs something in a pod, %s takes it down\n",
		playground.Hint("status", dir), playground.Hint("exec POD -- COMMAND", dir), end)
}

// startDetached brings the cluster up in the background.
func (f *upFlags) startDetached(cmd *cobra.Command) error {
	stdin := slices.Contains(f.files, "-")
	if !stdin { // else only one process can read them
		if err := f.read(); err != nil {
			return err
		}
	}
	args := []string{"up", "--nodes", fmt.Sprint(f.config.Nodes), "--underlay", f.config.Underlay.String()}
	if f.named {
		args = append(args, "--dir", f.config.Dir)
	}
	if len(f.config.Zones) > 0 {
		args = append(args, "--zones", strings.Join(f.config.Zones, ","))
	}
	for _, path := range f.files {
		args = append(args, "-f", path)
	}
	f.config.Out = cmd.OutOrStdout()
	c := playground.DetachConfig{Dir: f.config.Dir, Args: args, Out: f.config.Out}
	if stdin {
		c.Stdin = os.Stdin
	}
	err := playground.Detach(cmd.Context(), c)
	if cmd.Context().Err() != nil {
		return &exitError{exitInterrupted, playground.ErrInterrupted}
	}
	if err == nil {
		f.printHints(playground.Hint("down", f.config.Dir))
		f.printUnready(cmd.Context())
	}
	return err
}

// printUnready tells how many pods a Service would not lead to yet, as a probe has to succeed first.
func (f *upFlags) printUnready(ctx context.Context) {
	s, err := playground.ReadStatus(ctx, f.config.Dir)
	if err != nil {
		return // somebody has taken it down
	}
	unready := 0
	for i := range s.Pods {
		p := &s.Pods[i]
		if ready, of := p.ReadyContainers(); ready < of && (p.Phase == "Pending" || p.Phase == "Running") {
			unready++
		}
	}
	if unready > 0 {
		fmt.Fprintf(f.config.Out, "%d of %d pods are not ready yet, and Services refuse without a ready one; %s shows when they are\n",
			unready, len(s.Pods), playground.Hint("get pods -A -w", f.config.Dir))
	}
}
