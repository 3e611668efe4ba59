// Command kube makes real Kubernetes clusters on one machine, for tests: it builds the components once, starts each node in a network
// namespace, and runs Kubernetes' own end-to-end tests.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		var status exitStatus
		if errors.As(err, &status) {
			os.Exit(int(status))
		}
		fmt.Fprintln(os.Stderr, "kube:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:           "kube",
		Short:         "A real Kubernetes cluster on this machine, for tests",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(buildCommand(), upCommand(), downCommand(), statusCommand(), moveCommand(), kubectlCommand(), execCommand(), logsCommand(), e2eCommand(), scenarioCommand())
	root.AddCommand(hiddenCommands()...)
	return root
}
