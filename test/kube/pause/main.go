// Command pause is the first process of a pod's sandbox: it keeps the sandbox's namespaces until SIGTERM or SIGINT, and takes in the
// processes that lose their parent where containers share its process namespace.
package main

import (
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

func main() {
	signals := make(chan os.Signal, 1) // one SIGCHLD that waits stands for all
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM)
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	for {
		select {
		case <-signals:
			return
		case <-children:
			reap()
		}
	}
}

// reap takes the exit status of every child that has ended.
func reap() {
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if pid <= 0 && err != unix.EINTR {
			return
		}
	}
}
