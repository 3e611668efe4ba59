//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// insideName as name of the program tells it that it is the first process of the namespaces made for it.
const insideName = "asuser-inside"

// plan is what the outside tells the inside, as JSON in its first argument.
type plan struct {
	UID         int    // user and group
	HomeDir     string // becomes $HOME
	ModuleCache string // becomes $HOME/go/pkg/mod, read-only
	GoRoot      string // becomes /home/go, read-only
	// Files are those of the minimal root, by their path in it, with the machine's. Without any the machine's root is kept.
	Files    map[string]string
	Env      []string // whole environment of the command
	Command  []string
	Terminal bool // stdin is a terminal: stay in its process group
}

// inside makes the namespaces what the user shall see, runs the command there, and ends with its exit code.
func inside(text string) (code int, err error) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	var p plan
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return 1, fmt.Errorf("read the plan: %w", err)
	}
	build := arrange
	if p.Files != nil {
		build = arrangeMinimal
	}
	if err := build(p); err != nil {
		return 1, err
	}
	pid, err := startCommand(p)
	if err != nil {
		return 126, err
	}
	target := -pid // its whole group
	if p.Terminal {
		target = pid
	}
	go forward(signals, target, p.Terminal)
	status, err := reapUntil(pid)
	if err != nil {
		return 1, err
	}
	reportLeftovers()
	return exitCode(status), nil
}

// startCommand starts the command as the user. The caller's thread loses the right to gain privileges, and must stay this
// process's only one to start others.
func startCommand(p plan) (pid int, err error) {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return 0, fmt.Errorf("set no_new_privs: %w", err)
	}
	for _, pair := range p.Env {
		if path, ok := strings.CutPrefix(pair, "PATH="); ok {
			os.Setenv("PATH", path) // where exec.Command looks
		}
	}
	cmd := exec.Command(p.Command[0], p.Command[1:]...)
	cmd.Dir = filepath.Join(home, checkoutName)
	cmd.Env = p.Env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: uint32(p.UID), Gid: uint32(p.UID)},
		Setpgid:    !p.Terminal,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start the command as uid %d: %w", p.UID, err)
	}
	return cmd.Process.Pid, nil
}

// reapUntil waits for pid and, being the first process, for every orphan that ends before it.
func reapUntil(pid int) (syscall.WaitStatus, error) {
	for {
		var status syscall.WaitStatus
		ended, err := syscall.Wait4(-1, &status, 0, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || ended == pid {
			return status, err
		}
	}
}

// reportLeftovers names the processes that outlived the command. They end with this one.
func reportLeftovers() {
	entries, _ := os.ReadDir("/proc") // the one of this process namespace
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil || len(line) == 0 { // ended meanwhile
			continue
		}
		fmt.Fprintf(os.Stderr, "asuser: ended, for the command left it running: %s\n", strings.ReplaceAll(string(line), "\x00", " "))
	}
}
