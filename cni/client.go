package cni

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/middleway-net/middleway/unixsock"
)

// deadline is how long the plugin lives at most. A runtime gives a pod's sandbox minutes, and asks again.
const deadline = 30 * time.Second

// dial connects to the daemon.
func dial(socket string, until time.Time) (conn, error) {
	d := net.Dialer{Deadline: until}
	c, err := d.Dial("unix", socket)
	if err != nil {
		return conn{}, noDaemon(socket, err)
	}
	_ = c.SetDeadline(until)
	return conn{c.(*net.UnixConn)}, nil
}

// errNoDaemon is joined by errors that mean that the daemon is down or starting, and not that asking it is wrong.
var errNoDaemon = errors.New("the node daemon does not answer")

// noDaemon says why the daemon could not be asked.
func noDaemon(socket string, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fail(codeIO, "the node daemon may not be asked", fmt.Sprintf("uid %d may not connect to %s; run the container runtime as root or as the daemon's user: %v", os.Geteuid(), socket, err))
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w: %w", errNoDaemon, fail(codeTryAgain, "the node daemon does not run",
			fmt.Sprintf("nothing listens on %s; start `middleway node`, or set \"socket\" in the network configuration to its cni.socket: %v", socket, err)))
	}
	return fmt.Errorf("%w: %w", errNoDaemon, fail(codeTryAgain, "the node daemon does not answer",
		fmt.Sprintf("it may be starting or ending; the container runtime asks again (%s: %v)", socket, err)))
}

// ask sends a request and returns the daemon's answer, whose error is returned as one.
func ask(c conn, socket string, r *request, fds ...int) (*grant, error) {
	if err := c.send(r, fds...); err != nil {
		return nil, noDaemon(socket, err)
	}
	var answer response
	got, err := c.receive(&answer)
	unixsock.Close(got...)
	switch {
	case errors.Is(err, errVersion):
		return nil, fail(codeInternal, "the node daemon is of another release", err)
	case err != nil:
		return nil, noDaemon(socket, err)
	case answer.Error != nil:
		return nil, answer.Error
	}
	return &answer.grant, nil
}

// askOnce connects, asks and hangs up.
func askOnce(socket string, until time.Time, r *request) (*grant, error) {
	c, err := dial(socket, until)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return ask(c, socket, r)
}
