package main

import (
	"context"
	"net"
	"time"

	"github.com/spf13/cobra"

	"github.com/middleway-net/middleway/lab/kubectl"
	"github.com/middleway-net/middleway/lab/playground"
)

var _ kubectl.PodConnector = controlPlane{}

func (c controlPlane) Attend(ctx context.Context, pod kubectl.PodRef) error {
	return playground.Attend(ctx, c.dir, portOf(pod, 0))
}

func (c controlPlane) Connect(ctx context.Context, pod kubectl.PodRef, port uint16) (*net.TCPConn, error) {
	return playground.Connect(ctx, c.dir, portOf(pod, port))
}

func portOf(pod kubectl.PodRef, port uint16) playground.PodPort {
	return playground.PodPort{Namespace: pod.Namespace, Pod: pod.Name, UID: pod.UID, Port: port}
}

func portForwardCommand() *cobra.Command {
	var f kubectl.PortForward
	var c controlPlane
	cmd := &cobra.Command{
		Use:   "port-forward [TYPE/]NAME [LOCAL:]REMOTE...",
		Short: "Forward ports of this machine to a pod of `middleway up`",
		Long: `Listens on ports of this machine and passes each TCP connection on to a port of a pod, to which it comes from inside the pod: also to
what listens on the pod's 127.0.0.1 alone. A type is pod (the default), service, deployment or replicaset; of these one pod is chosen,
and of a service its port's targetPort. It ends with Ctrl-C, or with the pod. Flags and messages are kubectl's.`,
		Example: `  middleway port-forward web 8080:80
  middleway port-forward svc/front 8080:http 8443:443
  middleway port-forward deploy/front :80           # a free port of this machine
  middleway port-forward --address 0.0.0.0 pod/web 8080:80`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return saidBy(cmd, f.Run(cmd.Context(), c, args, cmd.OutOrStdout(), cmd.ErrOrStderr()))
		},
	}
	addNamespaceFlag(cmd, &f.Namespace)
	cmd.Flags().StringSliceVar(&f.Addresses, "address", []string{"localhost"}, "addresses to listen on, with commas between several; localhost is 127.0.0.1 and ::1, of which one is enough")
	cmd.Flags().DurationVar(&f.Timeout, "pod-running-timeout", time.Minute, "how long a first pod of a service or a deployment is waited for")
	addDirFlag(cmd, &c.dir)
	return cmd
}
