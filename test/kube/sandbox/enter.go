package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Entry says where a command runs.
type Entry struct {
	Cgroup Cgroup
	Netns  string // name of a network namespace; empty: that of PID
	PID    int    // of a node's first process, whose mount, uts, ipc, pid and cgroup namespaces are entered; 0: only Netns
	Inner  int    // a process of a pod of that node, whose network namespace is entered instead of the node's; 0: none
}

// Run runs a command there with this program's standard files and returns what it ended with. It leaves the calling
// process itself in the cgroup: only a process of its own is to call it.
func (e Entry) Run(argv, env []string) (int, error) {
	if err := e.Cgroup.Join(); err != nil {
		return 0, err
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	defer signal.Stop(signals)

	var cmd *exec.Cmd
	err := onDisposableThread(func() error {
		if err := e.enter(); err != nil {
			return err
		}
		path, err := exec.LookPath(argv[0])
		if err != nil {
			return err
		}
		cmd = exec.Command(path, argv[1:]...)
		cmd.Args[0] = argv[0]
		cmd.Env = env
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		return cmd.Start()
	})
	if err != nil {
		return 0, err
	}
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		for {
			select {
			case s := <-signals:
				if s == unix.SIGTERM || s == unix.SIGHUP { // the others come from a terminal, to both
					_ = cmd.Process.Signal(s) // it may have ended meanwhile
				}
			case <-ended:
				return
			}
		}
	}()
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if status, ok := exit.Sys().(interface{ Signal() unix.Signal }); ok && exit.ExitCode() < 0 {
			return 128 + int(status.Signal()), nil // as a shell has it
		}
		return exit.ExitCode(), nil
	}
	return 0, err
}

// enter moves the calling thread, and what it starts from then on.
func (e Entry) enter() error {
	if e.PID == 0 {
		return enterFile(Netns(e.Netns), unix.CLONE_NEWNET)
	}
	if err := unix.Unshare(unix.CLONE_FS); err != nil { // a thread that shares its root may not change its mounts
		return err
	}
	network := e.PID
	if e.Inner != 0 {
		network = e.Inner
	}
	if err := enterFile(filepath.Join("/proc", strconv.Itoa(network), "ns/net"), unix.CLONE_NEWNET); err != nil {
		return err
	}
	proc := filepath.Join("/proc", strconv.Itoa(e.PID), "ns")
	for _, ns := range []struct {
		file string
		flag int
	}{{"cgroup", unix.CLONE_NEWCGROUP}, {"ipc", unix.CLONE_NEWIPC}, {"uts", unix.CLONE_NEWUTS}, {"pid", unix.CLONE_NEWPID}, {"mnt", unix.CLONE_NEWNS}} {
		if err := enterFile(filepath.Join(proc, ns.file), ns.flag); err != nil {
			return err
		}
	}
	return os.Chdir("/")
}

func enterFile(path string, flag int) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, flag); err != nil {
		return fmt.Errorf("enter %s: %w", path, err)
	}
	return nil
}

// StartInit starts a command as the first process of a new node: in the cgroup and network namespace, and in mount, uts, ipc,
// pid and cgroup namespaces of its own. It returns the process id outside. As Run, it leaves the calling process in the
// cgroup.
func (e Entry) StartInit(argv []string) (int, error) {
	if err := e.Cgroup.Join(); err != nil {
		return 0, err
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{
		Setsid:     true,
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWPID | unix.CLONE_NEWCGROUP,
	}
	err := onDisposableThread(func() error {
		if err := enterFile(Netns(e.Netns), unix.CLONE_NEWNET); err != nil {
			return err
		}
		return cmd.Start()
	})
	if err != nil {
		return 0, fmt.Errorf("start the node's first process: %w", err)
	}
	return cmd.Process.Pid, nil
}
