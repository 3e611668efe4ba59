package doctor

import (
	"context"
	"fmt"
	"os"
	"syscall"

	"github.com/middleway-net/middleway/lab"
)

// holdFile is a cluster's process in short: it has a network namespace open, which a child opens in its turn.
func holdFile(say func(outcome)) {
	untried := func(err error) { say(judge(procFD, "", fmt.Errorf("%w: %w", errUntried, err))) }
	held, err := os.Open("/proc/self/ns/net")
	if err != nil {
		untried(err)
		return
	}
	defer held.Close()
	ctx := context.Background()
	path := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), held.Fd())
	err = assist(ctx, lab.RoleCommand(ctx, roleName, argOpener, path), &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}, say)
	if err != nil {
		untried(err)
	}
}

// openHeld opens what the holder holds.
func openHeld(path string) error {
	held, err := os.Open(path)
	if err != nil {
		return lab.ExplainProc(err)
	}
	return held.Close()
}
