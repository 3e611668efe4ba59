package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/middleway-net/middleway/lab/playground"
)

func execCommand() *cobra.Command {
	var dir string
	var req playground.ExecRequest
	cmd := &cobra.Command{
		Use:   "exec [flags] [NAMESPACE/]POD -- COMMAND [ARGUMENT]...",
		Short: "Run a command in a pod of `middleway up`",
		Long: `Runs a command of this machine in the namespaces of a pod, with the container's environment and working directory. Standard
streams are handed over as they are, signals are passed on, and the exit code is the command's: 126 if it cannot be executed, 127
if there is no such command, 128 and the signal's number if a signal ended it. At a terminal the command gets one of its own;
-i and -t, which kubectl needs for that, are accepted and change nothing.`,
		Example: `  middleway exec pod-1-1 -- ip address
  middleway exec pod-1-1 -- middleway tool get 10.244.2.2:8080
  middleway exec -c sidecar prod/db -- sh
  tar c . | middleway exec web -- tar t`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.ArgsLenAtDash() != 1 || len(args) < 2 {
				return errors.New("exec: want a pod and a command, as in `middleway exec pod-1-1 -- ip address`")
			}
			req.Command = args[1:]
			if err := namePod(cmd, args[0], &req.Namespace, &req.Pod); err != nil {
				return err
			}
			code, err := playground.Exec(cmd.Context(), dir, req)
			if err != nil || code != 0 {
				return &exitError{code, err}
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&req.Namespace, "namespace", "n", "default", "namespace of the pod")
	cmd.Flags().StringVarP(&req.Container, "container", "c", "", "container of the pod; default the first")
	cmd.Flags().BoolP("stdin", "i", false, "for those who are used to kubectl: standard input is always handed over")
	cmd.Flags().BoolP("tty", "t", false, "for those who are used to kubectl: at a terminal the command always gets one")
	addDirFlag(cmd, &dir)
	return cmd
}

// podKinds are the words for pods before a slash.
var podKinds = []string{"pod", "pods", "po"}

// namesNamespace reports whether what namePod takes has a namespace.
func namesNamespace(arg string) bool {
	before, _, found := strings.Cut(arg, "/")
	return found && !slices.Contains(podKinds, before)
}

// namePod takes [NAMESPACE/]POD beside --namespace, and pod/POD as kubectl does.
func namePod(cmd *cobra.Command, arg string, namespace, pod *string) error {
	before, after, found := strings.Cut(arg, "/")
	switch {
	case !found:
		*pod = arg
		return nil
	case slices.Contains(podKinds, before):
		*pod = after
		return nil
	}
	if cmd.Flags().Changed("namespace") && *namespace != before {
		return fmt.Errorf("%s: %s is a pod %s of namespace %s here, but --namespace is %s; want a pod's name after -n, or NAMESPACE/POD",
			cmd.Name(), arg, after, before, *namespace)
	}
	*namespace, *pod = before, after
	return nil
}

// exitError ends the program with an exit code, silently if err is nil.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return "the command failed"
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }
