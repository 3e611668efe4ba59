package main

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/middleway-net/middleway/lab/standin"
)

func toolStandInCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "stand-in NAME [ARGUMENT]...",
		Short: "Run what stands in for a well-known image in `middleway up`",
		Long: `Runs what a pod of middleway up has in place of a well-known image, where its container has no command: ` + strings.Join(standin.Names(), ", ") + `.
Arguments are those of the image's own program; docs/playground.md says what of them is known.`,
		Example: `  middleway tool stand-in nginx
  middleway tool stand-in agnhost netexec --http-port=8080`,
		DisableFlagParsing: true, // they are the program's
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return wrong("tool stand-in: want one of %s", strings.Join(standin.Names(), ", "))
			}
			if args[0] == "--help" || args[0] == "-h" {
				return cmd.Help()
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGQUIT) // with which web servers are ended
			defer stop()
			code, err := runStandIn(ctx, cmd, args)
			if err != nil || code != 0 {
				return &exitError{code, err}
			}
			return nil
		},
	}
}

func runStandIn(ctx context.Context, cmd *cobra.Command, args []string) (int, error) {
	code, err := standin.Run(ctx, standin.Config{
		Name: args[0], Args: args[1:], Hostname: standin.Hostname(), Out: cmd.OutOrStdout(),
	})
	if errors.Is(err, context.Canceled) {
		return code, nil
	}
	if err != nil {
		err = fmt.Errorf("tool stand-in: %w", err)
	}
	return code, err
}
