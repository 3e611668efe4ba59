package playground

import (
	"context"
	"errors"
	"net"
	"os"
	ossignal "os/signal"
	"syscall"
)

// Exec runs a command in a pod of the cluster of a state directory, with this process's standard streams, and passes on its
// signals. It returns the command's exit code; 126 and 127 with an error are those of a command that could not be run.
func Exec(ctx context.Context, dir string, req ExecRequest) (int, error) {
	conn, err := dial(ctx, dir)
	if err != nil {
		return 1, err
	}
	defer conn.Close()
	streams := [streams]*os.File{os.Stdin, os.Stdout, os.Stderr}
	if term := os.Getenv("TERM"); isTerminal(os.Stdin) && isTerminal(os.Stdout) {
		tty, err := openTerminal()
		if err != nil {
			return 1, err
		}
		defer tty.close()
		if req.Terminal = term; term == "" {
			req.Terminal = "dumb"
		}
		streams = tty.streams()
	}
	signals := make(chan os.Signal, 16)
	ossignal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	defer ossignal.Stop(signals)
	if err := sendRequest(conn, request{Verb: verbExec, Exec: &req}, streams[:]...); err != nil {
		return 1, err
	}
	r, err := receiveReply(conn, dir)
	if err != nil {
		if r.Exit != nil {
			return *r.Exit, err
		}
		return 1, err
	}
	go passSignals(conn, signals)
	r, err = receiveReply(conn, dir)
	if err == nil && r.Exit == nil {
		err = errProtocol
	}
	if err != nil {
		return 1, errors.Join(errors.New("the command was cut off; was the cluster taken down?"), err)
	}
	return *r.Exit, nil
}

func passSignals(conn net.Conn, signals <-chan os.Signal) {
	for s := range signals {
		if number, ok := s.(syscall.Signal); ok {
			_ = writeFrame(conn, signal{int(number)}) // a command that has ended needs none
		}
	}
}
