package lab

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// A child starts in two steps, told apart by these variables. First it is this program in its parent's namespaces with
// namespaceVar set: one thread moves into the namespace and replaces the whole process, so that no thread of a Go
// runtime is ever outside. Then it is this program again with roleVar set, or the program named by execVar.
const (
	namespaceVar = "MIDDLEWAY_LAB_NETNS" // number of the inherited descriptor of the network namespace
	roleVar      = "MIDDLEWAY_LAB_ROLE"  // the role to run
	execVar      = "MIDDLEWAY_LAB_EXEC"  // path of the program to become
	procVar      = "MIDDLEWAY_LAB_PROC"  // set in a new PID namespace, which wants a /proc
	mountVar     = "MIDDLEWAY_LAB_MNTNS" // number of the inherited descriptor of a mount namespace
	dirVar       = "MIDDLEWAY_LAB_DIR"   // working directory there
)

// stepVars are the variables of the first step.
var stepVars = []string{namespaceVar, execVar, procVar, mountVar, dirVar}

// Exit codes of a child that did not get as far as its program, as shells have them.
const (
	exitRole         = 125 // it could not take on its role
	exitNoExecutable = 126 // the program cannot be executed
	exitNotFound     = 127 // the program, or what interprets it, is missing
)

var roles = struct {
	mu   sync.Mutex
	main map[string]func(args []string) int
}{main: map[string]func([]string) int{}}

// ranRole tells that RunRole was called, without which a child would run its parent's main again, and so on.
var ranRole atomic.Bool

// RegisterRole makes main the program of all children started by Command with this name. Its result is the exit code.
// Call it before RunRole or Main, in parent and child alike. It panics if the name is taken.
func RegisterRole(name string, main func(args []string) int) {
	roles.mu.Lock()
	defer roles.mu.Unlock()
	if _, taken := roles.main[name]; taken {
		panic("lab: role " + name + " registered twice")
	}
	roles.main[name] = main
}

// RunRole must be the first call in main. In a process started by Command it runs the role and does not return.
func RunRole() {
	ranRole.Store(true)
	if fd, ok := os.LookupEnv(namespaceVar); ok {
		err := enterAndExec(fd)
		fmt.Fprintln(os.Stderr, "lab:", err)
		switch {
		case errors.Is(err, unix.ENOENT):
			os.Exit(exitNotFound)
		case errors.Is(err, unix.EACCES), errors.Is(err, unix.ENOEXEC):
			os.Exit(exitNoExecutable)
		}
		os.Exit(exitRole)
	}
	name, ok := os.LookupEnv(roleVar)
	if !ok {
		return
	}
	os.Unsetenv(roleVar)
	roles.mu.Lock()
	main := roles.main[name]
	roles.mu.Unlock()
	if main == nil {
		fmt.Fprintf(os.Stderr, "lab: role %q is not registered in this program\n", name)
		os.Exit(exitRole)
	}
	os.Exit(main(os.Args[1:]))
}

// enterAndExec is a child's first step; it returns only on error. fdText is "" for a child that stays in its parent's
// namespace.
func enterAndExec(fdText string) error {
	runtime.LockOSThread()
	if fdText != "" {
		fd, err := strconv.Atoi(fdText)
		if err != nil {
			return fmt.Errorf("read %s: %w", namespaceVar, err)
		}
		unix.CloseOnExec(fd)
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
	}
	if err := enterMounts(); err != nil {
		return err
	}
	// Pdeathsig belongs to a thread, and only the thread that calls exec stays.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("set parent death signal: %w", err)
	}
	program, ok := os.LookupEnv(execVar)
	if !ok {
		program = "/proc/self/exe"
	}
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains(stepVars, name)
	})
	if err := syscall.Exec(program, os.Args, env); err != nil {
		return fmt.Errorf("execute %s: %w", program, err)
	}
	return nil
}

var errNoRunRole = errors.New("this program must call lab.RunRole first in main before it starts children")

// spawner is a thread that starts all children and lives as long as the process: the kernel sends Pdeathsig when the
// thread that started the child ends, and Go ends threads as it likes.
var spawner = sync.OnceValue(func() chan<- func() {
	calls := make(chan func())
	go func() {
		runtime.LockOSThread()
		for call := range calls {
			call()
		}
	}()
	return calls
})

// onSpawner runs f on the spawner's thread and returns its error.
func onSpawner(f func() error) error {
	result := make(chan error, 1)
	spawner() <- func() { result <- f() }
	return <-result
}
