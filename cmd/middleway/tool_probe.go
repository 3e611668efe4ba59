package main

import (
	"github.com/spf13/cobra"

	"github.com/middleway-net/middleway/cluster/probe"
)

// toolProbeCommand is what `middleway check` runs in its pods. People have the other tools.
func toolProbeCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "probe",
		Short:  "Ask what standard input says, as JSON, and print the answers",
		Hidden: true,
		Args:   noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := probe.Serve(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout()); err != nil {
				return wrong("tool probe: %w", err)
			}
			return nil
		},
	}
}
