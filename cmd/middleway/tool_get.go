package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/middleway-net/middleway/lab/tool"
)

func toolGetCommand() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:     "get [http://]ADDRESS:PORT",
		Short:   "Ask a `middleway tool serve` whom it sees",
		Example: `  middleway tool get 10.244.2.2:8080`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("tool get: want one ADDRESS:PORT, as in `%s 10.244.2.2:8080`", cmd.CommandPath())
			}
			server, err := netip.ParseAddrPort(strings.TrimSuffix(strings.TrimPrefix(args[0], "http://"), "/"))
			if err != nil {
				return fmt.Errorf("tool get: %q is no address and port like 10.244.2.2:8080 or [fd00:10:244:2::2]:8080", args[0])
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			v, err := tool.Get(ctx, (&net.Dialer{}).DialContext, server)
			if err != nil {
				return fmt.Errorf("tool get: %w", err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "asked from %v, %v saw %v, %v\n", v.Client, server, v.Seen, v.Took.Round(time.Microsecond))
			return nil
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Second, "how long to wait for the answer")
	return cmd
}
