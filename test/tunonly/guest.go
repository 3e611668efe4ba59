//go:build linux

package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// guestMode is what the kernel's command line gives /sbin/init as its argument.
const guestMode = "guest"

// Where a machine sees what it may see beside the files of the host. All that it writes is in memory, or below guestWork.
const (
	guestWork   = "/run/tunonly/work"
	guestSource = "/run/tunonly/source" // read-only
	guestHome   = "/tmp/home"
	userHome    = "/tmp/user"
	userRun     = "/run/user"
	userID      = 20210 // needs no account
	searchPath  = "/usr/sbin:/usr/bin:/sbin:/bin"
)

// guestConfig is the arguments of guest.
type guestConfig struct {
	number       int    // of this machine, from 1
	work, source string // on the host
	modules      string // files of modules to load, separated by commas
	ipv6         bool   // whether there shall be one
}

// guest is /sbin/init of the machine: it never returns. What it prints is the console.
func guest(args []string) error {
	var c guestConfig
	flags := flag.NewFlagSet(guestMode, flag.ContinueOnError)
	flags.IntVar(&c.number, "number", 1, "")
	flags.StringVar(&c.work, "work", "", "")
	flags.StringVar(&c.source, "source", "", "")
	flags.StringVar(&c.modules, "modules", "", "")
	flags.BoolVar(&c.ipv6, "ipv6", true, "")
	err := flags.Parse(args)
	if err == nil {
		err = serve(c)
	}
	fmt.Println("tunonly guest:", err)
	unix.Sync()
	return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// serve makes the machine ready, tells what it is, and works off the queue.
func serve(c guestConfig) error {
	if err := os.Setenv("PATH", searchPath); err != nil { // where this program looks
		return err
	}
	if err := mountAll(c); err != nil {
		return err
	}
	if err := loadModules(c.modules); err != nil {
		return err
	}
	if err := upLoopback(); err != nil {
		return err
	}
	if err := os.Chmod("/dev/net/tun", 0o666); err != nil { // as udev does
		return err
	}
	if err := writeJSON(filepath.Join(guestWork, upDir, strconv.Itoa(c.number)), examine(c.ipv6)); err != nil {
		return err
	}
	for {
		if err := next(); err != nil {
			return err
		}
		time.Sleep(poll)
	}
}

// mountAll mounts memory wherever programs write, so that the host's files are only read.
func mountAll(c guestConfig) error {
	const nosuidNodev = unix.MS_NOSUID | unix.MS_NODEV
	for _, m := range []struct {
		kind, target, data string
		flags              uintptr
	}{
		{"proc", "/proc", "", nosuidNodev | unix.MS_NOEXEC},
		{"sysfs", "/sys", "", nosuidNodev | unix.MS_NOEXEC},
		{"devtmpfs", "/dev", "mode=0755", unix.MS_NOSUID},
		{"devpts", "/dev/pts", "mode=0620,ptmxmode=0666", unix.MS_NOSUID | unix.MS_NOEXEC},
		{"tmpfs", "/dev/shm", "mode=1777", nosuidNodev},
		{"tmpfs", "/run", "mode=0755", nosuidNodev},
		{"tmpfs", "/tmp", "mode=1777", nosuidNodev},
		{"tmpfs", "/var/tmp", "mode=1777", nosuidNodev},
		{"hostfs", guestWork, c.work, nosuidNodev},
		{"hostfs", guestSource, c.source, nosuidNodev | unix.MS_RDONLY},
	} {
		if err := os.MkdirAll(m.target, 0o755); err != nil && !errors.Is(err, unix.EROFS) {
			return err
		}
		if err := unix.Mount(m.kind, m.target, m.kind, m.flags, m.data); err != nil && !errors.Is(err, unix.EBUSY) { // the kernel has mounted /dev
			return fmt.Errorf("mount %s at %s: %w", m.kind, m.target, err)
		}
	}
	for _, dir := range []string{userHome, userRun} {
		if err := errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, userID, userID)); err != nil {
			return err
		}
	}
	return os.Mkdir(guestHome, 0o700)
}

// loadModules loads the modules given and takes the kernel the means to load others.
func loadModules(files string) error {
	if err := os.WriteFile("/proc/sys/kernel/modprobe", nil, 0); err != nil {
		return err
	}
	for file := range strings.SplitSeq(files, ",") {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil {
			return fmt.Errorf("load %s: %w", file, err)
		}
	}
	return os.WriteFile("/proc/sys/kernel/modules_disabled", []byte("1"), 0)
}

func upLoopback() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

// next runs the first job in the queue that no other machine takes.
func next() error {
	entries, err := os.ReadDir(filepath.Join(guestWork, queueDir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		id := e.Name()
		if strings.HasPrefix(id, ".") { // is being written
			continue
		}
		taken := filepath.Join(guestWork, takenDir, id)
		if os.Rename(filepath.Join(guestWork, queueDir, id), taken) != nil {
			continue
		}
		var j job
		if err := readJSON(taken, &j); err != nil {
			return err
		}
		var r result
		if r.Code, err = work(j, filepath.Join(guestWork, outputDir, id)); err != nil {
			r.Error = err.Error()
		}
		return writeJSON(filepath.Join(guestWork, doneDir, id), r)
	}
	return nil
}

// work runs a job, with its output in a file, and ends what it left running.
func work(j job, output string) (code int, err error) {
	f, err := os.OpenFile(output, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, f.Sync(), f.Close()) }()
	cmd := &exec.Cmd{Path: j.Argv[0], Args: j.Argv, Dir: j.Dir, Env: environ(j), Stdout: f, Stderr: f}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if j.User {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: userID, Gid: userID}
	}
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	var late atomic.Bool
	watchdog := time.AfterFunc(j.Limit, func() {
		late.Store(true)
		unix.Kill(everybody, unix.SIGKILL)
	})
	defer watchdog.Stop()
	status, err := reapUntil(cmd.Process.Pid)
	endOthers(f)
	switch {
	case err != nil:
		return 1, err
	case late.Load():
		return 1, fmt.Errorf("killed after %v", j.Limit)
	case status.Signaled():
		return 128 + int(status.Signal()), nil
	}
	return status.ExitStatus(), nil
}

// reapUntil waits for pid and, being the first process, for every orphan that ends before it.
func reapUntil(pid int) (status unix.WaitStatus, err error) {
	for {
		ended, err := unix.Wait4(-1, &status, 0, nil)
		if err != nil && !errors.Is(err, unix.EINTR) || ended == pid {
			return status, err
		}
	}
}

// environ is the whole environment of a job.
func environ(j job) []string {
	env := []string{
		"PATH=" + searchPath, "LANG=C.UTF-8",
		"MIDDLEWAY_REQUIRE_LAB=1", "MIDDLEWAY_PROGRAM=" + filepath.Join(guestWork, middlewayName),
	}
	home := guestHome
	if j.User {
		home = userHome
		env = append(env, "XDG_RUNTIME_DIR="+userRun)
	}
	return slices.Concat(env, []string{"HOME=" + home}, j.Env)
}

// everybody is the target of a signal of the first process to all others.
const everybody = -1

// endOthers ends all processes but this first one, names them, and waits until they are gone.
func endOthers(log *os.File) {
	for _, line := range otherProcesses() {
		fmt.Fprintf(log, "tunonly: ended, for it was left running: %s\n", line)
	}
	unix.Kill(everybody, unix.SIGKILL)
	for {
		if _, err := unix.Wait4(-1, nil, 0, nil); err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

func otherProcesses() (lines []string) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err == nil && len(line) > 0 { // neither ended nor one of the kernel's
			lines = append(lines, strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return lines
}
