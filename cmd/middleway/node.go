package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/middleway-net/middleway/node"
)

const nodeHelp = `Runs the daemon of one node until it gets SIGTERM or SIGINT.

The configuration is a YAML file:

  name: node-1                    required
  address: 192.168.254.11         this node on the underlay; required
  podCIDRs: [10.244.1.0/24, "fd00:10:244:1::/64"]   required; the first address of each is the pods' gateway
  mtu: 1450                       of the pods, bytes; default: the underlay's less 50 (70 with IPv6 outside)
  workers: 2                      default: the number of processors, at most 8
  spin: 50us                      how long a worker polls before it sleeps; negative: not at all
  flowEntries: 65536              size of the flow table, two entries a flow, 128 bytes each
  runDir: /run/middleway          state that a restarted daemon takes up again
  portableDevices: false          true: devices with one queue and without super-packets, slower
  echoPort: 7                     echo service on the gateway addresses; -1 turns it off
  vxlan: {vni: 1, port: 8472, mac: "02:…"}          the MAC is made from the address by default
  peers:
  - name: node-2
    address: 192.168.254.12       required
    podCIDRs: [10.244.2.0/24]     required
    kernel: false                 true for a kernel's VXLAN device, for example flannel's
    trains: false                 true for a kernel peer that is known to take trains of datagrams
    mac: "02:…"                   default as the peer makes it
  pods:
  - name: default/web
    netns: /proc/4711/ns/net      required
    addresses: [10.244.1.2]       required

It needs CAP_NET_ADMIN and CAP_SYS_ADMIN in the user namespace of the network namespaces (root, or a user namespace of its
own), and /dev/net/tun. The pods' devices outlive it: the next daemon on the same runDir takes them and the flows up again.`

func nodeCommand() *cobra.Command {
	var file, level string
	cmd := &cobra.Command{
		Use:   "node --config FILE",
		Short: "Run the daemon of one node",
		Long:  nodeHelp,
		Example: `  middleway node --config /etc/middleway/node.yaml
  middleway node --config node.yaml --log-level debug`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return errors.New("node: --config FILE is needed; `middleway node --help` shows what stands in it")
			}
			var l slog.Level
			if err := l.UnmarshalText([]byte(level)); err != nil {
				return fmt.Errorf("node: --log-level %q: want debug, info, warn or error", level)
			}
			c, err := node.ReadConfig(file)
			if err != nil {
				return err
			}
			log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: l}))
			return node.Run(cmd.Context(), c, log)
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "configuration file (YAML)")
	cmd.Flags().StringVar(&level, "log-level", "info", "least level of the log lines: debug, info, warn, error")
	return cmd
}
