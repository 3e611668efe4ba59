package node

import (
	"errors"
	"fmt"
	"log"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// restartDelay is how long a component that ended stays away.
const restartDelay = time.Second

// supervisor starts processes and learns of every end in this pid namespace. It alone calls wait4, since a first process has
// children that it never started.
type supervisor struct {
	spec Spec

	mu         sync.Mutex
	components []*component
	waiting    map[int]chan unix.WaitStatus // of processes that run, by their id
	problem    string
	images     bool
}

type component struct {
	Component
	pid      int // 0: it does not run
	restarts int
	stopped  bool          // on order
	gone     chan struct{} // closed when what runs now has ended; nil: it never ran
}

func newSupervisor(s Spec) *supervisor {
	return &supervisor{spec: s, waiting: map[int]chan unix.WaitStatus{}}
}

// reap collects whatever ends, for as long as the node lives. It is called on every SIGCHLD.
func (s *supervisor) reap() {
	for {
		var status unix.WaitStatus
		s.mu.Lock() // so that nobody is between having started a process and waiting for it
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if c, ok := s.waiting[pid]; ok && pid > 0 {
			delete(s.waiting, pid)
			c <- status
		}
		s.mu.Unlock()
		if pid <= 0 && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// startLocked starts a program whose output goes to the end of a log, and returns its id and how it will end.
func (s *supervisor) startLocked(args, env []string, logfile string) (int, <-chan unix.WaitStatus, error) {
	out, err := os.OpenFile(logfile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return 0, nil, err
	}
	defer out.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, nil, err
	}
	defer null.Close()
	pid, err := syscall.ForkExec(args[0], args, &syscall.ProcAttr{
		Dir:   "/",
		Env:   append([]string{"PATH=" + s.spec.Path, "HOME=/root"}, env...),
		Files: []uintptr{null.Fd(), out.Fd(), out.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return 0, nil, fmt.Errorf("start %s: %w", args[0], err)
	}
	end := make(chan unix.WaitStatus, 1)
	s.waiting[pid] = end
	return pid, end, nil
}

// run runs a program to its end.
func (s *supervisor) run(args []string, logfile string) error {
	s.mu.Lock()
	_, end, err := s.startLocked(args, nil, logfile)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if status := <-end; status != 0 {
		return fmt.Errorf("%v ended with status %d; %s:\n%s", args, status.ExitStatus(), logfile, Tail(logfile, 5))
	}
	return nil
}

// add makes a component known and starts it. One of that name that is there is stopped, and becomes what c is.
func (s *supervisor) add(c Component) error {
	if len(c.Args) == 0 || c.Name == "" {
		return errors.New("a component has a name and a program")
	}
	if err := s.stop(c.Name); err != nil && !errors.Is(err, errUnknown) {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	have, err := s.findLocked(c.Name)
	if err != nil {
		have = &component{}
		s.components = append(s.components, have)
	}
	have.Component = c
	return s.launchLocked(have)
}

// launchLocked starts a component and has it started again whenever it ends without having been told to.
func (s *supervisor) launchLocked(c *component) error {
	logfile := s.spec.Log(c.Name)
	pid, end, err := s.startLocked(c.Args, c.Env, logfile)
	if err != nil {
		return err
	}
	gone := make(chan struct{})
	c.pid, c.stopped, c.gone = pid, false, gone
	go func() {
		status := <-end
		s.mu.Lock()
		c.pid = 0
		close(gone)
		again := !c.stopped
		s.mu.Unlock()
		log.Printf("%s ended: exit status %d, signal %d", c.Name, status.ExitStatus(), status.Signal())
		if !again {
			return
		}
		time.Sleep(restartDelay)
		s.mu.Lock()
		defer s.mu.Unlock()
		if c.stopped || c.pid != 0 {
			return
		}
		c.restarts++
		if err := s.launchLocked(c); err != nil {
			s.problem = err.Error()
		}
	}()
	return nil
}

var errUnknown = errors.New("no such component here")

func (s *supervisor) findLocked(name string) (*component, error) {
	i := slices.IndexFunc(s.components, func(c *component) bool { return c.Name == name })
	if i < 0 {
		return nil, fmt.Errorf("%s: %w", name, errUnknown)
	}
	return s.components[i], nil
}

// stop ends a component at once and lets it stay away.
func (s *supervisor) stop(name string) error {
	s.mu.Lock()
	c, err := s.findLocked(name)
	if err != nil {
		s.mu.Unlock()
		return err
	}
	c.stopped = true
	gone := c.gone
	if c.pid != 0 {
		_ = unix.Kill(c.pid, unix.SIGKILL) // it has not been waited for, so the id is still its own
	}
	s.mu.Unlock()
	if gone != nil {
		<-gone
	}
	return nil
}

// resume starts a component that was stopped.
func (s *supervisor) resume(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.findLocked(name)
	if err != nil || c.pid != 0 {
		return err
	}
	return s.launchLocked(c)
}

// kill sends a signal; what ends by it is started again.
func (s *supervisor) kill(name string, signal unix.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.findLocked(name)
	if err != nil {
		return err
	}
	if c.pid == 0 {
		return fmt.Errorf("%s does not run", name)
	}
	return unix.Kill(c.pid, signal)
}

func (s *supervisor) state() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := State{Images: s.images, Problem: s.problem}
	for _, c := range s.components {
		st.Processes = append(st.Processes, Process{Name: c.Name, PID: c.pid, Restarts: c.restarts, Stopped: c.stopped})
	}
	return st
}

func (s *supervisor) fail(err error) {
	log.Print(err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.problem = err.Error()
}
