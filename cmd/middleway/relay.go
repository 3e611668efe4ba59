package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/middleway-net/middleway/k8s/remote"
	"github.com/middleway-net/middleway/node"
)

// relayCommand is what asks a daemon for those who dial it through an API server.
func relayCommand() *cobra.Command {
	var runDir string
	cmd := &cobra.Command{
		Use:    "relay",
		Short:  "Join standard input and output with the socket of this node's daemon",
		Hidden: true,
		Args:   noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			socket, err := node.In(runDir).Dial(cmd.Context())
			if err != nil {
				return err
			}
			return remote.Relay(socket, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&runDir, "run-dir", node.DefaultRunDir(), "run directory of the daemon")
	return cmd
}

// attachedCommand runs another command for as long as its client is there.
func attachedCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "attached -- COMMAND [ARGUMENT]...",
		Short:  "Run a command of this program until it ends, or its client at standard input does",
		Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.ArgsLenAtDash() != 0 || len(args) == 0 {
				return errors.New("attached: want a command, as in `middleway attached -- status -o json`")
			}
			ctx, cancel := remote.Attended(cmd.Context(), cmd.InOrStdin())
			defer cancel()
			run := command()
			run.SetArgs(args)
			run.SetOut(cmd.OutOrStdout())
			run.SetErr(cmd.ErrOrStderr())
			return run.ExecuteContext(ctx)
		},
	}
}
