package playground

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/middleway-net/middleway/unixsock"
)

// PodPort is a port of a pod.
type PodPort struct {
	Namespace string `json:"namespace"`
	Pod       string `json:"pod"`
	UID       string `json:"uid,omitempty"`  // of that pod and none of the same name; default whichever there is
	Port      uint16 `json:"port,omitempty"` // not 0 for Connect
}

// ErrPodEnded is the error of a pod that is not there any more, or whose containers have ended.
var ErrPodEnded = errors.New("the pod has ended")

// Attend returns when ctx ends, or with an ErrPodEnded by errors.Is when none of a pod's containers runs any more.
func Attend(ctx context.Context, dir string, p PodPort) error {
	err := converse(ctx, dir, request{Verb: verbAttend, PodPort: &p}, func(reply) error { return nil })
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err == nil:
		return ErrPodEnded
	}
	return err
}

// Connect connects to a port of a pod from inside the pod's network namespace, at 127.0.0.1, or at ::1 where nobody answers there.
// The connection lies in that namespace, whoever has it: no process is in between.
func Connect(ctx context.Context, dir string, p PodPort) (*net.TCPConn, error) {
	conn, err := dial(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := sendRequest(conn, request{Verb: verbConnect, PodPort: &p}); err != nil {
		return nil, fmt.Errorf("ask the cluster in %s: %w", dir, err)
	}
	r := unixsock.NewReader(conn, 1)
	defer r.Close()
	if _, err := receiveReply(r, dir); err != nil {
		return nil, err
	}
	fds := r.Take()
	if len(fds) != 1 {
		return nil, errProtocol
	}
	f := os.NewFile(uintptr(fds[0]), "connection")
	defer f.Close()
	made, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("take over the connection to the pod: %w", err)
	}
	tcp, ok := made.(*net.TCPConn)
	if !ok {
		made.Close()
		return nil, errProtocol
	}
	return tcp, nil
}
