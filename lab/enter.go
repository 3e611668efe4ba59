package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// enteredVar tells the re-executed process that it is already inside; it is removed there at once.
	enteredVar = "MIDDLEWAY_LAB_ENTERED"
	// RequireVar, set to 1, makes Main fail where it would skip: a CI must not pass by testing nothing.
	RequireVar = "MIDDLEWAY_REQUIRE_LAB"
)

// The values of enteredVar.
const (
	enteredAsRoot = "root"
	enteredAsUser = "user" // in a user namespace
)

var inUserNamespace bool // set by Enter

// InUserNamespace reports whether Enter had to make a user namespace: this process is an ordinary user's.
func InUserNamespace() bool { return inUserNamespace }

// Main runs the tests of a package inside the lab; a TestMain calls it after RegisterRole. Where the kernel forbids the
// lab it prints why and what to do, and skips all tests, or fails if MIDDLEWAY_REQUIRE_LAB=1. It does not return.
func Main(m interface{ Run() int }) {
	RunRole()
	if slices.ContainsFunc(os.Args, func(a string) bool { return strings.HasPrefix(a, "-test.fuzzworker") }) {
		os.Exit(m.Run()) // it speaks to its parent, which is inside, by inherited descriptors
	}
	err := Enter()
	switch {
	case err == nil:
		os.Exit(m.Run())
	case errors.Is(err, ErrForbidden) && os.Getenv(RequireVar) != "1":
		fmt.Println("skipped:", err)
		os.Exit(0)
	default:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// Enter makes sure that this process may create namespaces and devices and that none of them outlives it. It starts
// this program again, with the same arguments and environment, in a private network and mount namespace (as an
// ordinary user also in a user namespace in which that user is root), and returns nil there with lo up. In the calling
// process it does not return: it passes on signals, hands sockets in for ServeSockets, and ends with the exit status of the
// new one.
//
// Call it early and from the main goroutine: everything done before is done twice. Where the machine forbids the lab
// the error is an ErrForbidden that says what to do.
func Enter() error {
	if way := os.Getenv(enteredVar); way != "" {
		os.Unsetenv(enteredVar)
		inUserNamespace = way == enteredAsUser
		if err := keepBroker(); err != nil {
			return err
		}
		if err := thisMachine().checkProc(); err != nil {
			return err
		}
		return settle()
	}
	mc := thisMachine()
	if err := mc.checkTUN(); err != nil {
		return err
	}
	code, err := reenter(!mc.capable())
	if err != nil {
		return mc.explainNamespaces(err)
	}
	os.Exit(code)
	return nil
}

// settle prepares the new namespaces from the inside: mounts stay private, loopback works.
func settle() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return thisMachine().explainNamespaces(fmt.Errorf("make mounts private: %w", err))
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find loopback device: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return thisMachine().explainNamespaces(fmt.Errorf("set up loopback device: %w", err))
	}
	return nil
}

// reenter runs this program in new namespaces and returns its exit code (128 + signal number if a signal ended it).
func reenter(userNamespace bool) (int, error) {
	runtime.LockOSThread() // Pdeathsig of the child watches this thread
	defer runtime.UnlockOSThread()

	cmd := exec.Command("/proc/self/exe")
	cmd.Args = os.Args
	way := enteredAsRoot
	if userNamespace {
		way = enteredAsUser
	}
	cmd.Env = append(os.Environ(), enteredVar+"="+way)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	broker, inside, err := newBroker()
	if err != nil {
		return 0, err
	}
	defer broker.Close()
	defer inside.Close()
	cmd.ExtraFiles = []*os.File{inside}
	cmd.SysProcAttr = FreshNamespaces(userNamespace)
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	if err := cmd.Start(); err != nil {
		signal.Stop(signals)
		return 0, err
	}
	go passSignals(signals, cmd.Process)
	inside.Close()
	go runBroker(broker)
	err = cmd.Wait()
	signal.Stop(signals)
	close(signals)

	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	switch {
	case !ok:
		return 1, err
	case status.Signaled():
		return 128 + int(status.Signal()), nil
	}
	return status.ExitStatus(), nil
}

// FreshNamespaces returns what starts a process in the namespaces of Enter, such that it ends with the thread that starts it.
// userNamespace is for who is not Capable.
func FreshNamespaces(userNamespace bool) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
	}
	if userNamespace {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	return attr
}

// passSignals hands every signal to the child, except those that a terminal has sent to the whole foreground group
// and thus to the child already: programs take a second interrupt as impatience.
func passSignals(signals <-chan os.Signal, child *os.Process) {
	for sig := range signals {
		typed := sig == syscall.SIGINT || sig == syscall.SIGQUIT
		if typed && inForeground() {
			continue
		}
		child.Signal(sig)
	}
}

// inForeground reports whether this process belongs to the foreground process group of its terminal.
func inForeground() bool {
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer tty.Close()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}
