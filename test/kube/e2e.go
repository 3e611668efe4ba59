package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/middleway-net/middleway/test/kube/components"
	"github.com/middleway-net/middleway/test/kube/e2e"
)

func e2eCommand() *cobra.Command {
	var about strings.Builder
	for _, s := range e2e.Suites() {
		fmt.Fprintf(&about, "  %-12s %s\n", s.Name, s.About)
	}
	cmd := &cobra.Command{
		Use:   "e2e",
		Short: "Run Kubernetes' own tests against a cluster, and lay the results beside the reference's",
		Long: "Runs tests of Kubernetes' e2e.test from the outside of the cluster's nodes. Afterwards no node of a cluster with middleway alone may hold a rule\n" +
			"of iptables, nft or ipvs, or a device, that it had not at first. Suites:\n\n" + about.String(),
		Example: `  kube e2e
  kube e2e --suite rest --cluster three
  kube e2e --focus 'DNS should provide DNS for services'
  kube e2e --suite conformance --cluster reference --save-reference`,
		Args: cobra.NoArgs,
	}
	name := clusterName(cmd)
	f := cmd.Flags()
	suite := f.String("suite", "", "a suite by its name; conformance, without --focus")
	focus := f.String("focus", "", "regular expression: tests whose names it matches")
	skip := f.String("skip", "", "regular expression: tests to leave out")
	procs := f.Int("procs", max(2, runtime.NumCPU()*5/2), "tests at the same time")
	timeout := f.Duration("timeout", time.Hour, "of the whole run")
	output := f.StringP("output", "o", "table", "table or json")
	save := f.Bool("save-reference", false, "keep the results in this checkout as the reference's, which others are compared with")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := e2e.Choose(*suite, *focus, *skip)
		if err != nil {
			return err
		}
		c, err := openCluster(*name)
		if err != nil {
			return err
		}
		said := os.Stderr // so that JSON stands alone
		o := e2e.Options{Procs: *procs, Timeout: *timeout, Version: components.KubernetesVersion, Terminal: term.IsTerminal(int(said.Fd()))}
		r, err := e2e.Run(cmd.Context(), c, s, o, said)
		if err != nil {
			return err
		}
		if err := writeReport(cmd, r, *output); err != nil {
			return err
		}
		if *save {
			return saveReference(cmd, r)
		}
		return r.Problem()
	}
	return cmd
}

func writeReport(cmd *cobra.Command, r e2e.Report, output string) error {
	reference, known, err := e2e.Reference(r.Suite, r.Family)
	if err != nil {
		return err
	}
	beside := &reference
	if !known {
		beside = nil
	}
	if output == "json" {
		return writeJSON(cmd.OutOrStdout(), struct {
			e2e.Report
			Reference *e2e.Report `json:"reference,omitempty"`
		}{r, beside})
	}
	return r.WriteTable(cmd.OutOrStdout(), beside)
}

func saveReference(cmd *cobra.Command, r e2e.Report) error {
	root, err := repository()
	if err != nil {
		return err
	}
	file, err := r.SaveReference(root)
	if err == nil {
		fmt.Fprintf(cmd.OutOrStdout(), "kept in %s\n", file)
	}
	return err
}
