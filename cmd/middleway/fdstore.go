package main

import (
	"github.com/spf13/cobra"

	"github.com/middleway-net/middleway/node/fdstore"
)

const fdstoreHelp = `Keeps the listening sockets of NodePorts and host ports for a node's daemon, until it gets SIGTERM or SIGINT. The daemon gets PATH by
its field fdStore. If it is killed, clients connect all the same, and wait until the next daemon takes the sockets over. Where none
works for a minute they are closed, and clients are refused.

PATH is a unix socket for processes of the same user. Where another store serves it, this one waits for its end. No privilege is needed, and
next to no memory. In a cluster it is a container beside the daemon's.`

func fdstoreCommand() *cobra.Command {
	var logs logFlags
	cmd := &cobra.Command{
		Use:   "fdstore PATH",
		Short: "Keep a daemon's listening sockets while it is started again",
		Long:  fdstoreHelp,
		Example: `  middleway fdstore /run/middleway/fdstore.sock &
  middleway node --config node.yaml                  # in which: fdStore: /run/middleway/fdstore.sock`,
		Args: servedPath,
		RunE: func(cmd *cobra.Command, args []string) error {
			log, err := logs.logger(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			l, err := fdstore.Listen(cmd.Context(), args[0], log)
			if err != nil && cmd.Context().Err() != nil {
				return nil // it waited for another store's end, and was ended itself
			}
			if err != nil {
				return err
			}
			log.Info("descriptors are kept", "path", args[0])
			return fdstore.Serve(cmd.Context(), l, log)
		},
	}
	logs.register(cmd)
	return cmd
}
