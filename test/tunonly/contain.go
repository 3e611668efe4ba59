//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// containMode makes this program contain a machine.
const containMode = "contain"

// container returns the command that runs a kernel with its arguments on one processor, in a process namespace and a mount namespace.
// The kernel lends each of its processes one of the host's, which must not outlive it for a moment: let go, they would
// execute the guest's system calls on the host.
func container(work string, cpu int, argv ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", append([]string{containMode, work, strconv.Itoa(cpu)}, argv...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS,
		Setpgid:    true,
		Pdeathsig:  syscall.SIGKILL,
	}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	return cmd
}

// contain is the first process of a process namespace: when it ends, so does all that is in it.
func contain(args []string) error {
	work, argv := args[0], args[2:]
	cpu, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	// The kernel and its processes take turns. On one processor a turn costs a tenth of what it costs between two.
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("run on processor %d: %w", cpu, err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts from the machine: %w", err)
	}
	// Debian's kernel keeps its memory in a file, which shall neither be on a disk nor in a /dev/shm that a container has made small.
	memory := filepath.Join(work, memoryDir)
	if err := unix.Mount("tmpfs", memory, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0700,size="+memorySize); err != nil {
		return fmt.Errorf("mount memory: %w", err)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = []string{"HOME=" + memory, "TMPDIR=" + memory, "PATH=" + os.Getenv("PATH"), "LD_PRELOAD=" + filepath.Join(work, xstateName)}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // in trouble it signals its whole group
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return fmt.Errorf("the kernel ended: %v", exit)
	}
	return err
}
