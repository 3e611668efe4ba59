package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// isolate asks for PID and mount namespaces of the process's own.
func (p *Process) isolate() error {
	p.cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWPID | syscall.CLONE_NEWNS
	mounts, err := json.Marshal(p.Mounts)
	if err != nil {
		return err
	}
	p.enterHostname(p.Hostname)
	p.cmd.Env = append(p.cmd.Env, mountsVar+"="+string(mounts), dirVar+"="+p.Dir)
	p.cmd.Dir = "" // it may be in what is mounted
	return nil
}

// enterHostname lets the process enter a UTS namespace, if there is one.
func (p *Process) enterHostname(h *Hostname) {
	if h != nil {
		p.cmd.Env = append(p.cmd.Env, utsVar+"="+p.extraFile(h.file))
	}
}

// join returns what starts the process in the PID namespace of an isolated one. The child enters its mount namespace by
// itself, by one of the files, which are to be closed when it has started.
func (p *Process) join() (inside func(start func() error, done <-chan struct{}) error, files []*os.File, err error) {
	for _, kind := range []string{"pid", "mnt"} {
		f, err := p.Beside.openNamespace(kind)
		if err != nil {
			closeFiles(files)
			return nil, nil, err
		}
		files = append(files, f)
	}
	p.cmd.Env = append(p.cmd.Env, mountVar+"="+p.extraFile(files[1]), dirVar+"="+p.Dir)
	p.enterHostname(p.Beside.Hostname)
	p.cmd.Dir = "" // it is one of the other mount namespace
	// Go would take a parent in another PID namespace for a dead one. The child sets the signal by itself in its first step, and
	// ends with the isolated process in any case.
	p.cmd.SysProcAttr.Pdeathsig = 0
	inside = func(start func() error, done <-chan struct{}) error { return startInside(files[0], start, done) }
	return inside, files, nil
}

// startInside runs start, which makes a child, such that the child is born into a PID namespace: on a thread that has entered it,
// from which an ordinary user could not come back. The thread stays until the child is done, since its end would be the parent's
// death to the child.
func startInside(pidNamespace *os.File, start func() error, done <-chan struct{}) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() { // the main thread cannot end; while it is locked, the next attempt gets another
			result <- startInside(pidNamespace, start, done)
			runtime.UnlockOSThread()
			return
		}
		if err := unix.Setns(int(pidNamespace.Fd()), unix.CLONE_NEWPID); err != nil {
			result <- fmt.Errorf("enter PID namespace: %w", err)
			return
		}
		err := start()
		result <- err
		if err == nil {
			<-done
		}
	}()
	return <-result
}

// openNamespace opens a namespace of the process, which must be running.
func (p *Process) openNamespace(kind string) (*os.File, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running {
		return nil, fmt.Errorf("%s: %w", p.name, os.ErrProcessDone)
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", p.cmd.Process.Pid, kind))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) { // it has ended, and was not waited for yet
		err = os.ErrProcessDone
	}
	return f, err
}

// Catches reports whether the process has a handler for a signal. An isolated process does not get one that it has no handler
// for, SIGKILL excepted.
func (p *Process) Catches(sig syscall.Signal) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running {
		return false
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return false
	}
	_, mask, _ := strings.Cut(string(status), "\nSigCgt:")
	mask, _, _ = strings.Cut(mask, "\n")
	caught, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
	return err == nil && caught&(1<<(sig-1)) != 0
}

// enterOthers is the part of a child's first step that is about namespaces other than the network's: those of an isolated
// process, or mounts of its own.
func enterOthers() error {
	if err := enter(utsVar, unix.CLONE_NEWUTS, "UTS"); err != nil {
		return err
	}
	if os.Getenv(mountVar) != "" {
		if err := unix.Unshare(unix.CLONE_FS); err != nil { // a thread that shares its working directory may not move
			return fmt.Errorf("leave the file system context: %w", err)
		}
		if err := enter(mountVar, unix.CLONE_NEWNS, "mount"); err != nil {
			return err
		}
	}
	if text, ok := os.LookupEnv(mountsVar); ok {
		if err := ownMounts(text); err != nil {
			return err
		}
	}
	if dir := os.Getenv(dirVar); dir != "" {
		if err := unix.Chdir(dir); err != nil {
			return fmt.Errorf("working directory %s: %w", dir, err)
		}
	}
	return nil
}

// enter moves this thread into the namespace whose descriptor a variable tells; without the variable it stays where it is.
func enter(variable string, kind int, name string) error {
	text := os.Getenv(variable)
	if text == "" {
		return nil
	}
	fd, err := strconv.Atoi(text)
	if err != nil {
		return fmt.Errorf("read %s: %w", variable, err)
	}
	unix.CloseOnExec(fd)
	if err := unix.Setns(fd, kind); err != nil {
		return fmt.Errorf("enter %s namespace: %w", name, err)
	}
	return nil
}

// ownMounts makes a /proc of the new PID namespace, and the mounts that a variable lists.
func ownMounts(list string) error {
	var all []Mount
	if err := json.Unmarshal([]byte(list), &all); err != nil {
		return fmt.Errorf("read %s: %w", mountsVar, err)
	}
	ms, err := newMounts(all) // a Directory is seen in the machine's /proc
	if err != nil {
		return err
	}
	defer ms.close()
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	// Where parts of /proc are covered, as in many containers, the kernel refuses an uncovered one; then the machine's stays.
	err = unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	if err != nil && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return ms.make()
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
