package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/middleway-net/middleway/node/parent"
)

const socketsHelp = `Hands sockets of this network namespace to the daemon of a rootless node, which lives in a user and network namespace of its
own, until it gets SIGTERM or SIGINT. The daemon gets PATH by its field sockets, sends to the other nodes by these sockets, and
has this machine's address among them. What was handed over stays open when this process ends, and the daemon asks the next one.

PATH is a unix socket for processes of the same user, in a directory that both sides see. TCP, UDP and ICMP echo sockets are
handed out, unbound; no privilege is needed. docs/rootless.md shows a whole rootless node.`

// servedPath wants the path of a unix socket as the only argument.
func servedPath(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%s takes one argument, the path of the unix socket to serve; `%s --help` shows an example", cmd.CommandPath(), cmd.CommandPath())
	}
	return nil
}

func socketsCommand() *cobra.Command {
	var logs logFlags
	cmd := &cobra.Command{
		Use:   "sockets PATH",
		Short: "Hand sockets of this network to a rootless node's daemon",
		Long:  socketsHelp,
		Example: `  middleway sockets "$XDG_RUNTIME_DIR/middleway-sockets" &
  unshare --user --map-root-user --net --mount middleway node --config node.yaml   # in which: sockets: /run/user/1000/middleway-sockets`,
		Args: servedPath,
		RunE: func(cmd *cobra.Command, args []string) error {
			log, err := logs.logger(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			l, err := parent.Listen(args[0])
			if err != nil {
				return err
			}
			log.Info("sockets are served", "path", args[0])
			return parent.Serve(cmd.Context(), l, log)
		},
	}
	logs.register(cmd)
	return cmd
}
