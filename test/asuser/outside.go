//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// outside prepares a home, runs the command in it and removes it, also after a failure or a signal.
func outside(o options) (code int, err error) {
	if os.Geteuid() != 0 {
		return 1, errors.New("only root can become another user: run this as root, or run the command itself as the user you are")
	}
	// A killed `go run` does not pass the signal on.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGTERM), 0, 0, 0); err != nil {
		return 1, fmt.Errorf("ask for a signal when the parent ends: %w", err)
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)

	homeDir, err := os.MkdirTemp(o.dir, "middleway-asuser-")
	if err != nil {
		return 1, fmt.Errorf("make a home: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(homeDir)) }()

	p, err := prepare(o, homeDir)
	if err != nil {
		return 1, err
	}
	return start(p, signals)
}

// prepare fills the home and says what the inside needs to know.
func prepare(o options, homeDir string) (plan, error) {
	vars, err := goVariables()
	if err != nil {
		return plan{}, err
	}
	if err := makeHome(o, homeDir, vars); err != nil {
		return plan{}, err
	}
	var files map[string]string
	if o.minimal {
		if files, err = programFiles(slices.Concat(minimalPrograms, strings.Fields(o.with))...); err != nil {
			return plan{}, err
		}
	}
	return plan{
		UID:         o.uid,
		HomeDir:     homeDir,
		ModuleCache: vars["GOMODCACHE"],
		GoRoot:      vars["GOROOT"],
		Files:       files,
		Env:         userEnviron(vars, o.minimal),
		Command:     o.command,
		Terminal:    isTerminal(os.Stdin),
	}, nil
}

// start runs the inside and passes signals to it until it ends.
func start(p plan, signals <-chan os.Signal) (code int, err error) {
	text, err := json.Marshal(p)
	if err != nil {
		return 1, err
	}
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{insideName, string(text)},
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
			Setpgid:    !p.Terminal,
			Pdeathsig:  syscall.SIGKILL,
		},
	}
	select {
	case s := <-signals:
		return signalled(s.(syscall.Signal)), nil
	default:
	}
	if err := cmd.Start(); err != nil {
		return 1, fmt.Errorf("start in namespaces of its own: %w", err)
	}
	go forward(signals, cmd.Process.Pid, p.Terminal)
	err = cmd.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exitCode(exit.Sys().(syscall.WaitStatus)), nil
	}
	return 0, err
}

// forward passes signals to pid, or to a group if negative. A terminal sends its interrupt to everybody by itself: passed on
// once more it would read as the impatient second one.
func forward(signals <-chan os.Signal, pid int, terminal bool) {
	for s := range signals {
		if terminal && s == syscall.SIGINT {
			continue
		}
		_ = syscall.Kill(pid, s.(syscall.Signal)) // it may just have ended
	}
}

func exitCode(status syscall.WaitStatus) int {
	if status.Signaled() {
		return signalled(status.Signal())
	}
	return status.ExitStatus()
}

// signalled is what a shell reports for a command that a signal ended.
func signalled(s syscall.Signal) int { return 128 + int(s) }

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
