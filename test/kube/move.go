package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/middleway-net/middleway/test/kube/network"
)

func moveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "move NODE flannel|middleway",
		Short: "Give a node of a mixed cluster the other network",
		Long: "Gives a node of a cluster that was made with --network mixed the other network, as docs/kubernetes.md tells its owner to. The pods of the node\n" +
			"are evicted; the other nodes work on.",
		Example:   "  kube move 3 middleway\n  kube move 3 flannel",
		Args:      cobra.ExactArgs(2),
		ValidArgs: []string{"flannel", "middleway"},
	}
	name := clusterName(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := openCluster(*name)
		if err != nil {
			return err
		}
		n, err := c.Find(args[0])
		if err != nil {
			return err
		}
		begin := time.Now()
		say := func(format string, args ...any) {
			fmt.Fprintf(cmd.OutOrStdout(), "%6.1f s  %s\n", time.Since(begin).Seconds(), fmt.Sprintf(format, args...))
		}
		if err := network.Move(cmd.Context(), c, n, args[1], say); err != nil {
			return err
		}
		say("%s has %s", n.Name, args[1])
		return nil
	}
	return cmd
}
