// Command middleway is a Kubernetes network in one process per node: the node daemon, and what shows it at work.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/middleway-net/middleway/cni"
	"github.com/middleway-net/middleway/lab"
)

// version is set by the linker.
var version = "devel"

func main() {
	// Under a plugin's name this program is the plugin, so that a symbolic link installs it.
	if cni.IsPlugin(os.Args[0]) {
		os.Exit(cni.Main(version))
	}
	lab.RunRole()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := called(os.Args).ExecuteContext(ctx); err != nil {
		exit := &exitError{1, err}
		errors.As(err, &exit)
		if exit.err != nil && !errors.Is(err, errSilent) {
			fmt.Fprintln(os.Stderr, "middleway:", withDoctor(err))
		}
		os.Exit(exit.code)
	}
}

// errSilent ends the program with exit code 1 where everything was said already.
var errSilent = errors.New("failed")

// called returns what the program is under the name by which it was called.
func called(args []string) *cobra.Command {
	switch filepath.Base(args[0]) {
	case pluginName:
		return pluginCommand()
	case pluginCompletion:
		root := pluginCommand()
		root.SetArgs(append([]string{cobra.ShellCompRequestCmd}, args[1:]...))
		return root
	}
	return command()
}

func command() *cobra.Command {
	root := newRoot("middleway", "A Kubernetes network in one ordinary process per node")
	root.AddCommand(
		demoCommand(), doctorCommand(),
		upCommand(), downCommand(), statusCommand(reach{}), logsCommand(), execCommand(), portForwardCommand(), captureCommand(reach{}), flowsCommand(reach{}), traceCommand(reach{}),
		getCommand(), applyCommand(), deleteCommand(), scaleCommand(),
		toolCommand(), nodeCommand(), installCommand(), socketsCommand(), fdstoreCommand(),
		relayCommand(), attachedCommand(),
		checkCommand(reach{}), perfCommand(reach{}), reportCommand(reach{}),
	)
	return root
}

// newRoot is a command that has others.
func newRoot(name, short string) *cobra.Command {
	root := &cobra.Command{
		Use:           name,
		Short:         short,
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		// An unknown command is one sentence.
		DisableSuggestions: true,
		Args:               noArgs,
		RunE:               func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if unknown := unknownCommand(cmd); unknown != nil {
			return unknown
		}
		return fmt.Errorf("%w; `%s --help` lists the flags", inWords(err), cmd.CommandPath())
	})
	return root
}

// unknownCommand is the mistake behind an unknown flag that stands after a command which there is not.
func unknownCommand(cmd *cobra.Command) error {
	if !cmd.HasSubCommands() {
		return nil
	}
	return noArgs(cmd, cmd.Flags().Args())
}

// noArgs refuses arguments with a sentence that says where to look.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		return fmt.Errorf("unknown command %q; `%s --help` lists the commands", args[0], cmd.CommandPath())
	}
	return fmt.Errorf("%s takes no argument like %q, only flags; `%s --help` lists them", cmd.CommandPath(), args[0], cmd.CommandPath())
}
