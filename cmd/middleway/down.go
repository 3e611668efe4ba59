package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/middleway-net/middleway/lab/playground"
)

func downCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Take down the cluster of `middleway up`",
		Long: `Takes down the cluster that middleway up has made, and returns when nothing of it is left. It also clears up after a cluster
that crashed or was killed. It is no error if there is none.`,
		Example: `  middleway down
  middleway down --dir /tmp/second`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			done, err := playground.Down(cmd.Context(), dir)
			if err == nil {
				fmt.Fprintf(cmd.OutOrStdout(), "%s in %s\n", done, dir)
			}
			return err
		},
	}
	addDirFlag(cmd, &dir)
	return cmd
}
