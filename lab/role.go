package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
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
	namespaceVar = "MIDDLEWAY_LAB_NETNS"  // number of the inherited descriptor of the network namespace
	roleVar      = "MIDDLEWAY_LAB_ROLE"   // the role to run
	execVar      = "MIDDLEWAY_LAB_EXEC"   // path of the program to become
	mountsVar    = "MIDDLEWAY_LAB_MOUNTS" // in a new mount namespace: what to mount there, in JSON
	mountVar     = "MIDDLEWAY_LAB_MNTNS"  // number of the inherited descriptor of a mount namespace
	utsVar       = "MIDDLEWAY_LAB_UTSNS"  // number of the inherited descriptor of a UTS namespace
	dirVar       = "MIDDLEWAY_LAB_DIR"    // working directory there
	reportVar    = "MIDDLEWAY_LAB_REPORT" // number of the inherited descriptor to which a failure of the first step is told
)

// stepVars are the variables of the first step.
var stepVars = []string{namespaceVar, execVar, mountsVar, mountVar, utsVar, dirVar, reportVar}

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
	if _, ok := os.LookupEnv(namespaceVar); ok {
		os.Exit(tell(startError(enterAndExec())))
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

// RoleCommand returns a command that runs this program in a role, in the caller's namespaces or those that the command's SysProcAttr
// asks for. It is for those who look after the process themselves; Command is for all others.
func RoleCommand(ctx context.Context, role string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = append([]string{"lab-" + role}, args...)
	cmd.Env = append(os.Environ(), roleVar+"="+role)
	if !ranRole.Load() {
		cmd.Err = errNoRunRole
	}
	return cmd
}

// tell reports why the first step failed, to the parent if that waits for it, and returns the exit code.
func tell(e *StartError) int {
	fd, err := strconv.Atoi(os.Getenv(reportVar))
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", e)
		return e.Code
	}
	_ = json.NewEncoder(os.NewFile(uintptr(fd), "report")).Encode(e) // a parent that has gone needs none
	return e.Code
}

// enterAndExec is a child's first step; it returns only on error. A child without a network namespace stays in its parent's.
func enterAndExec() error {
	runtime.LockOSThread()
	if fd, err := strconv.Atoi(os.Getenv(reportVar)); err == nil {
		unix.CloseOnExec(fd)
	}
	if err := enter(namespaceVar, unix.CLONE_NEWNET, "network"); err != nil {
		return err
	}
	if err := enterOthers(); err != nil {
		return err
	}
	// Pdeathsig belongs to a thread, and only the thread that calls exec stays.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("set parent death signal: %w", err)
	}
	program, ok := os.LookupEnv(execVar)
	switch {
	case !ok:
		program = "/proc/self/exe"
	case program == "":
		var err error
		if program, err = lookPath(os.Args[0]); err != nil {
			return err
		}
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
