package main

import (
	"github.com/spf13/cobra"

	"github.com/middleway-net/middleway/test/kube/components"
)

func buildCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "build [NAME…]",
		Short: "Build the cluster's components and images into the cache",
		RunE: func(cmd *cobra.Command, names []string) error {
			cache, err := components.Open()
			if err != nil {
				return err
			}
			return cache.Build(cmd.Context(), cmd.OutOrStdout(), names...)
		},
	}
}
