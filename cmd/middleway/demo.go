package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/lab/demo"
)

const demoHelp = `Makes two nodes and four pods on this machine and shows what the network between them does: ping, HTTP without NAT,
a Service asked by its name with every decision on the way, one packet drawn layer by layer and saved for Wireshark, a daemon killed under a download, and throughput beside the
kernel's own bridge and VXLAN.

Nodes and pods are network namespaces; the machine's own network is not touched, and nothing is left behind, however the
demo ends. It runs as root or as an ordinary user who may open /dev/net/tun and make user namespaces. The exit code is not 0
if something failed.`

func demoCommand() *cobra.Command {
	var c demo.Config
	size := demo.Bytes(256 << 20)
	var output string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show a small cluster at work on this machine",
		Long:  demoHelp,
		Example: `  middleway demo
  middleway demo --download 1GiB --duration 5s
  middleway demo --underlay userspace
  middleway demo -o json | jq '.checks[] | select(.ok | not)'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "text" && output != "json" {
				return fmt.Errorf("demo: -o %q: want text or json", output)
			}
			if c.Duration < 100*time.Millisecond || c.Duration > time.Minute {
				return fmt.Errorf("demo: --duration %v: want 100ms to 1m", c.Duration)
			}
			if err := canBeMade("-w", c.Write); err != nil {
				return fmt.Errorf("demo: %w", err)
			}
			c.Download, c.JSON = int64(size), output == "json"
			c.Color, c.Progress, c.ASCII = wantsColor(cmd.OutOrStdout()), movesCursor(cmd.OutOrStdout()), !utf8Locale()
			c.Width, c.Program = textWidth(cmd.OutOrStdout()), os.Args[0]
			if err := lab.Enter(); err != nil {
				return err
			}
			err := demo.Run(cmd.Context(), c, cmd.OutOrStdout())
			if errors.Is(err, demo.ErrFailed) || cmd.Context().Err() != nil {
				return errSilent // the report says it
			}
			return err
		},
	}
	cmd.Flags().Var(&size, "download", "size of each download, for example 64MiB or 1GiB")
	cmd.Flags().Lookup("download").DefValue = "256MiB" // as one would type it
	cmd.Flags().DurationVar(&c.Duration, "duration", time.Second, "how long the throughput of each is measured")
	addUnderlayFlag(cmd, &c.Underlay)
	cmd.Flags().StringVarP(&c.Write, "write", "w", "demo.pcapng", "file for the packet that is drawn, as pcapng; \"\" for none")
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return cmd
}
