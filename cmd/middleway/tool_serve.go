package main

import (
	"fmt"
	"net"

	"github.com/spf13/cobra"

	"github.com/middleway-net/middleway/lab/tool"
)

func toolServeCommand() *cobra.Command {
	var addr string
	cmd := &cobra.Command{
		Use:     "serve",
		Short:   "Answer HTTP with the address from which the request came, and /blob?size=BYTES&rate=BYTES/S with random bytes",
		Example: `  middleway tool serve --listen :8080`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := net.Listen("tcp", addr)
			if err != nil {
				return fmt.Errorf("tool serve: %w", err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "serving on %v\n", l.Addr())
			s := tool.Serve(l)
			<-cmd.Context().Done()
			return s.Close()
		},
	}
	cmd.Flags().StringVar(&addr, "listen", ":8080", "address and port")
	return cmd
}
