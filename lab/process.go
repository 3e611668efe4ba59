package lab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNotStarted is returned by methods of a Process that need a running or ended one.
var ErrNotStarted = errors.New("process was not started")

// tailSize bounds what a Process remembers of its output, in bytes: enough for a stack dump of a small program.
const tailSize = 64 << 10

// Process is a child of the lab in a namespace. The kernel kills it when the lab ends. The exported fields may be set
// before Start; the methods may be called by several goroutines.
type Process struct {
	Env    []string   // added to the lab's own environment
	Dir    string     // working directory; default the lab's
	Files  []*os.File // become descriptors 3, 4, … of the child; borrowed until Start returns
	Input  io.Reader  // standard input; default none
	Output io.Writer  // gets a copy of standard output and error as they come; calls come one at a time
	// Streams, if set, are standard input, output and error themselves, borrowed until Start returns; then Tail is empty.
	Streams *[3]*os.File
	// Terminal makes Streams[0] the controlling terminal of the process, in a session of its own.
	Terminal bool
	// Path of the program of Exec. Default: its name, looked up in PATH; an isolated process, and one beside it, looks among what it
	// sees itself.
	Path string
	// Bare: Env is the whole environment.
	Bare bool
	// Isolated gives the process PID and mount namespaces of its own, with a /proc that shows them: it is process 1 there, and
	// all that it starts ends with it.
	Isolated bool
	// Mounts are made in the mount namespace of an isolated process.
	Mounts []Mount
	// Hostname is the UTS namespace of an isolated process. Default: the lab's.
	Hostname *Hostname
	// Beside runs the process in the PID, mount and UTS namespaces of an isolated one that runs.
	Beside *Process

	name  string
	ns    *Namespace
	execs bool // a program, not a role
	cmd   *exec.Cmd
	tail  tail
	done  chan struct{} // closed when the process has ended and err is set; nil before Start
	err   error

	mu      sync.Mutex
	running bool          // the process has not been waited for, so its pid is still its own
	cpuTime time.Duration // at the end
}

// Command returns a process that will run the registered role with args inside ns, or in the lab's own namespace if ns
// is nil.
func Command(ns *Namespace, role string, args ...string) *Process {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = append([]string{"lab-" + role}, args...)
	cmd.Env = []string{roleVar + "=" + role}
	return &Process{name: role, ns: ns, cmd: cmd}
}

// Exec returns a process that will run a program of the machine, looked up in PATH, inside ns, or in the lab's own
// namespace if ns is nil.
func Exec(ns *Namespace, argv ...string) *Process {
	p := &Process{name: argv[0], ns: ns, cmd: exec.Command("/proc/self/exe")}
	p.cmd.Args, p.execs = argv, true
	return p
}

// Start starts the process. It is in the namespace as a whole from its first instruction on. An isolated process, or one beside
// it, has become its program when Start returns; the error is a *StartError by errors.As if it could not.
func (p *Process) Start() error {
	if !ranRole.Load() {
		return fmt.Errorf("start %s: %w", p.name, errNoRunRole)
	}
	if p.execs {
		path, err := p.Path, error(nil)
		if path == "" && !p.Isolated && p.Beside == nil {
			if path, err = exec.LookPath(p.name); err != nil {
				return fmt.Errorf("start %s: %w", p.name, err)
			}
		}
		p.cmd.Env = []string{execVar + "=" + path}
	}
	namespace := ""
	p.cmd.ExtraFiles = append([]*os.File(nil), p.Files...)
	if p.ns != nil {
		namespace = p.extraFile(p.ns.handle.File())
	}
	p.cmd.Env = append(p.cmd.Env, namespaceVar+"="+namespace)
	p.cmd.Dir = p.Dir
	// In a group of its own it does not get the terminal's Ctrl-C, upon which the lab ends things in their order.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: !p.Terminal}
	var report, reported *os.File
	if p.Isolated || p.Beside != nil {
		var err error
		if reported, report, err = os.Pipe(); err != nil {
			return fmt.Errorf("start %s: %w", p.name, err)
		}
		defer closeFiles([]*os.File{reported, report})
		p.cmd.Env = append(p.cmd.Env, reportVar+"="+p.extraFile(report))
	}
	if p.Isolated {
		if err := p.isolate(); err != nil {
			return fmt.Errorf("start %s: %w", p.name, err)
		}
	}
	onThread := func(start func() error, _ <-chan struct{}) error { return onSpawner(start) }
	if p.Beside != nil {
		inside, files, err := p.join()
		if err != nil {
			return fmt.Errorf("start %s: %w", p.name, err)
		}
		defer closeFiles(files)
		onThread = inside
	}
	p.connect()
	if p.Bare {
		p.cmd.Env = append(append([]string(nil), p.Env...), p.cmd.Env...)
	} else {
		p.cmd.Env = append(append(os.Environ(), p.Env...), p.cmd.Env...)
	}
	done := make(chan struct{})
	if err := onThread(p.cmd.Start, done); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	p.running = true
	p.done = done
	go p.reap()
	if reported == nil {
		return nil
	}
	report.Close()
	err := awaitProgram(reported)
	if err != nil {
		<-p.done
	}
	return err
}

// extraFile hands a file to the child and returns the number of its descriptor there.
func (p *Process) extraFile(f *os.File) string {
	p.cmd.ExtraFiles = append(p.cmd.ExtraFiles, f)
	return strconv.Itoa(2 + len(p.cmd.ExtraFiles)) // they start at descriptor 3
}

// connect sets the standard streams.
func (p *Process) connect() {
	if p.Streams != nil {
		p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = p.Streams[0], p.Streams[1], p.Streams[2]
		p.cmd.SysProcAttr.Setsid, p.cmd.SysProcAttr.Setctty = p.Terminal, p.Terminal
		return
	}
	p.cmd.Stdin = p.Input
	p.tail.copyTo = p.Output
	p.cmd.Stdout, p.cmd.Stderr = &p.tail, &p.tail
	// A grandchild that keeps the output open must not keep Wait from returning.
	p.cmd.WaitDelay = 2 * time.Second
}

// reap waits for the end of the process and publishes it.
func (p *Process) reap() {
	var info unix.Siginfo
	for { // wait without reaping: until running is false the pid must stay valid for CPUTime
		err := unix.Waitid(unix.P_PID, p.cmd.Process.Pid, &info, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			break
		}
	}
	p.mu.Lock()
	p.cpuTime, _ = cpuTime(p.cmd.Process.Pid)
	p.running = false
	p.mu.Unlock()
	if err := p.cmd.Wait(); err != nil {
		p.err = fmt.Errorf("%s: %w", p.name, err)
	}
	close(p.done)
}

// PID returns the process id, 0 before Start.
func (p *Process) PID() int {
	if p.cmd.Process == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// Done returns a channel that is closed when the process has ended; nil before Start.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the end of the process. The error is an *exec.ExitError by errors.As if its exit code is not 0 or a
// signal ended it.
func (p *Process) Wait() error {
	if p.done == nil {
		return ErrNotStarted
	}
	<-p.done
	return p.err
}

// Signal sends a signal; os.ErrProcessDone if the process has ended.
func (p *Process) Signal(sig os.Signal) error {
	if p.done == nil {
		return ErrNotStarted
	}
	return p.cmd.Process.Signal(sig)
}

// Kill ends the process the hard way (SIGKILL) and waits until it is gone. Killing an ended process is no error.
func (p *Process) Kill() error {
	if err := p.Signal(os.Kill); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", p.name, err)
	}
	<-p.done
	return nil
}

// Stop asks the process to end (SIGTERM) and waits for it; after timeout it kills it and returns an error. A process
// that ends with another code than 0, or by the signal itself, returns the error of Wait.
func (p *Process) Stop(timeout time.Duration) error {
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	select {
	case <-p.done:
		return p.err
	case <-time.After(timeout):
	}
	if err := p.Kill(); err != nil {
		return err
	}
	return fmt.Errorf("stop %s: still running %s after SIGTERM, killed", p.name, timeout)
}

// Tail returns the last 64 KiB of what the process wrote to standard output and error.
func (p *Process) Tail() string { return p.tail.String() }

// CPUTime returns the processor time, user and system, that all threads of the process together have used so far, or
// did use if it has ended. Children of the process do not count.
func (p *Process) CPUTime() (time.Duration, error) {
	if p.done == nil {
		return 0, ErrNotStarted
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running {
		return p.cpuTime, nil
	}
	used, err := cpuTime(p.cmd.Process.Pid)
	if err != nil {
		return 0, fmt.Errorf("read processor time of %s: %w", p.name, err)
	}
	return used, nil
}

// cpuTime reads the processor clock of a process, to the nanosecond where /proc counts in hundredths of a second.
func cpuTime(pid int) (time.Duration, error) {
	clock := ^int32(pid)<<3 | 2 // as clock_getcpuclockid(3) computes it: CPUCLOCK_SCHED
	var ts unix.Timespec
	err := unix.ClockGettime(clock, &ts)
	return time.Duration(ts.Nano()), err
}

// tail is a writer that keeps the end of what is written.
type tail struct {
	copyTo io.Writer // nil for none

	mu  sync.Mutex
	buf []byte // up to twice tailSize, so that trimming is rare
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if over := len(t.buf) - tailSize; over > tailSize {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	if t.copyTo != nil {
		return t.copyTo.Write(b)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf[max(0, len(t.buf)-tailSize):])
}
