package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/middleway-net/middleway/test/kube/components"
	"github.com/middleway-net/middleway/test/kube/scenario"
)

func scenarioCommand() *cobra.Command {
	about := map[string]scenario.Scenario{}
	var long strings.Builder
	for _, s := range scenario.All {
		about[s.Name] = s
		fmt.Fprintf(&long, "  %-12s %s\n", s.Name, s.About)
	}
	cmd := &cobra.Command{
		Use:       "scenario NAME…",
		Short:     "Put a cluster through something while somebody uses it, and count what fails",
		Long:      "Puts a cluster through something while somebody uses it, and counts every request that fails. There are:\n\n" + long.String(),
		Example:   "  kube scenario deployment\n  kube scenario outage --cluster other",
		Args:      cobra.MinimumNArgs(1),
		ValidArgs: slices.Sorted(maps.Keys(about)),
	}
	name := clusterName(cmd)
	output := cmd.Flags().StringP("output", "o", "text", "text, or json for the figures")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		for _, a := range args {
			if _, ok := about[a]; !ok {
				return fmt.Errorf("no scenario is named %q: take some of %s", a, strings.Join(slices.Sorted(maps.Keys(about)), ", "))
			}
		}
		c, err := openCluster(*name)
		if err != nil {
			return err
		}
		figures := map[string]map[string]float64{}
		for _, a := range args {
			t, err := scenario.Run(cmd.Context(), about[a], c, components.AgnhostImage, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			figures[a] = t.Figures
		}
		if *output == "json" {
			return writeJSON(cmd.OutOrStdout(), figures)
		}
		return nil
	}
	return cmd
}
