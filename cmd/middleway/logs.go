package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/middleway-net/middleway/lab/playground"
)

func logsCommand() *cobra.Command {
	var dir string
	var req playground.LogsRequest
	var tail int
	var since time.Duration
	cmd := &cobra.Command{
		Use:   "logs [-f] [-p] [-c CONTAINER] [flags] [NAMESPACE/]POD",
		Short: "Print what a pod of `middleway up` has printed",
		Long: `Prints what a pod's container has printed in its present run, or in the last one, standard output and error alike. With -f it
goes on with what comes, over restarts of the container, until the pod ends for good or is deleted. Flags have kubectl's meanings.`,
		Example: `  middleway logs pod-1-1
  middleway logs -f --tail 10 --timestamps pod-1-1
  middleway logs -p web                  # the run before, of a container that was started again
  middleway logs --all-containers --prefix --since 5m prod/db`,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) != 1:
				return errors.New("logs: want one pod, as in `middleway logs pod-1-1`")
			case tail < -1:
				return fmt.Errorf("logs: --tail %d: want a number of lines, or -1 for all", tail)
			case since < 0:
				return fmt.Errorf("logs: --since %v: want a time like 10s or 5m, back from now", since)
			case req.AllContainers && req.Container != "":
				return errors.New("logs: --all-containers takes all, -c one; give one of them")
			}
			if err := namePod(cmd, args[0], &req.Namespace, &req.Pod); err != nil {
				return err
			}
			if tail >= 0 {
				req.Tail = &tail
			}
			if since > 0 {
				req.Since = time.Now().Add(-since)
			}
			err := playground.Logs(cmd.Context(), dir, req, cmd.OutOrStdout(), cmd.ErrOrStderr())
			if cmd.Context().Err() != nil {
				return &exitError{exitInterrupted, nil}
			}
			return err
		},
	}
	cmd.Flags().BoolVarP(&req.Follow, "follow", "f", false, "go on with what is printed from now on")
	cmd.Flags().BoolVarP(&req.Previous, "previous", "p", false, "the run before the present one, or the last one while the next is waited for")
	cmd.Flags().StringVarP(&req.Container, "container", "c", "", "container of the pod; default the first")
	cmd.Flags().BoolVar(&req.AllContainers, "all-containers", false, "all containers of the pod")
	cmd.Flags().IntVar(&tail, "tail", -1, "number of lines from the end to begin with; -1 for all")
	cmd.Flags().DurationVar(&since, "since", 0, "only what was printed within this time, like 10s or 5m")
	cmd.Flags().BoolVar(&req.Timestamps, "timestamps", false, "begin each line with its time")
	cmd.Flags().BoolVar(&req.Prefix, "prefix", false, "begin each line with the pod and the container")
	cmd.Flags().StringVarP(&req.Namespace, "namespace", "n", "default", "namespace of the pod")
	addDirFlag(cmd, &dir)
	return cmd
}
