package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/middleway-net/middleway/test/kube/components"
)

func buildCommand() *cobra.Command {
	var force, list bool
	var output string
	cmd := &cobra.Command{
		Use:   "build [NAME…]",
		Short: "Build the cluster's components and images into the cache",
		Long: fmt.Sprintf(`Build what is missing of the components of a cluster, from Go modules, into the cache: ~/.cache/middleway-kube, or
$MIDDLEWAY_KUBE_DIR. NAME is a component, or a group of them: %s. Without names it is everything.

The first build takes about 20 minutes of two processors and 10 GB of disk, most of it Go's own caches. Later ones build what
has another version or other flags. The programs that are packed into images are taken from this machine; as root, and with apt-get, those
that are not here are installed.`, strings.Join(components.Groups(), ", ")),
		Example: `  kube build
  kube build server                  # etcd and kube-apiserver
  kube build --force kubelet
  kube build --list
  kube build --list -o json | jq -r '.[] | select(.state != "built").name'`,
		ValidArgs: append(components.Groups(), components.Names()...),
		RunE: func(cmd *cobra.Command, names []string) error {
			if output != "text" && output != "json" {
				return fmt.Errorf("-o %s: take text or json", output)
			}
			if output == "json" && !list {
				return errors.New("-o json is for --list")
			}
			cache, err := components.Open()
			switch {
			case err != nil:
				return err
			case list && len(names) > 0:
				return errors.New("--list takes no names: it shows all components")
			case list:
				return writeList(cmd.OutOrStdout(), cache, output)
			case force:
				return cache.Rebuild(cmd.Context(), cmd.OutOrStdout(), names...)
			}
			if err := cache.Build(cmd.Context(), cmd.OutOrStdout(), names...); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "all is in %s\n", cache.Dir)
			return nil
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&force, "force", false, "build what is there as well")
	flags.BoolVar(&list, "list", false, "show the components, and build nothing")
	flags.StringVarP(&output, "output", "o", "text", "with --list: text or json")
	return cmd
}

func writeList(w io.Writer, cache components.Cache, output string) error {
	entries := cache.List()
	if output == "json" {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(entries)
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "NAME\tVERSION\tSTATE\tSIZE\tBUILT IN")
	for _, e := range entries {
		size, took := "-", "-"
		if e.State != components.Missing {
			size, took = fmt.Sprintf("%.1f MB", float64(e.Size)/1e6), fmt.Sprintf("%.0f s", e.Seconds)
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\n", e.Name, cmp.Or(e.Version, "-"), e.State, size, took)
	}
	return tw.Flush()
}
