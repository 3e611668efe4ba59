package main

import (
	"errors"
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
	var list bool
	cmd := &cobra.Command{
		Use:     "scenario NAME…",
		Short:   "Put a cluster through something while somebody uses it, and count what fails",
		Long:    "Puts a cluster through something while somebody uses it, and counts every request that fails. There are:\n\n" + long.String(),
		Example: "  kube scenario deployment\n  kube scenario outage --for 10m --cluster other\n  kube scenario update crash restart -o json",
		Args: func(cmd *cobra.Command, args []string) error {
			if list {
				return cobra.NoArgs(cmd, args)
			}
			return cobra.MinimumNArgs(1)(cmd, args)
		},
		ValidArgs: slices.Sorted(maps.Keys(about)),
	}
	name := clusterName(cmd)
	length := cmd.Flags().Duration("for", 0, "how long the API server is away in outage (default 1m0s)")
	output := cmd.Flags().StringP("output", "o", "text", "text, or json for verdicts and figures")
	cmd.Flags().BoolVar(&list, "list", false, "say which there are, and end")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if list {
			_, err := fmt.Fprint(cmd.OutOrStdout(), long.String())
			return err
		}
		for _, a := range args {
			if _, ok := about[a]; !ok {
				return fmt.Errorf("no scenario is named %q: take some of %s", a, strings.Join(slices.Sorted(maps.Keys(about)), ", "))
			}
		}
		c, err := openCluster(*name)
		if err != nil {
			return err
		}
		verdicts := map[string]verdict{}
		var errs []error
		for _, a := range args {
			t, err := scenario.Run(cmd.Context(), about[a], c, scenario.Options{Image: components.AgnhostImage, For: *length}, cmd.ErrOrStderr())
			errs = append(errs, err)
			verdicts[a] = verdict{Passed: err == nil, Error: text(err), Figures: t.Figures}
			if cmd.Context().Err() != nil {
				break
			}
		}
		if *output == "json" {
			errs = append(errs, writeJSON(cmd.OutOrStdout(), verdicts))
		}
		return errors.Join(errs...)
	}
	return cmd
}

// verdict is what came of a scenario, as JSON.
type verdict struct {
	Passed  bool               `json:"passed"`
	Error   string             `json:"error,omitempty"`
	Figures map[string]float64 `json:"figures"`
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
