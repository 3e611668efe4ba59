package playground

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/lab/logs"
	"github.com/middleway-net/middleway/lab/manifest"
)

// A container has defaultGrace after SIGTERM where its pod says nothing else, and never more than maxGrace.
const (
	defaultGrace = 10 * time.Second
	maxGrace     = manifest.MaxGrace * time.Second
)

// role is what a container is in its pod.
type role int

const (
	regular role = iota
	initial      // an init container, which ends before the next one begins
	sidecar      // an init container that goes on beside the others
)

// container runs a container's command, again and again as restartPolicy says.
type container struct {
	pod  *Pod
	spec *corev1.Container
	role role
	out  *logs.Log
	stop chan struct{} // closed by end
	done chan struct{} // closed when it will not run again; never without begin
	up   chan struct{} // closed when it has started up for the first time

	mu       sync.Mutex
	begun    bool
	ending   bool
	deadline time.Time      // of its end, once that has begun; zero for none
	process  *lab.Process   // the present run, or the last
	facts    manifest.Facts // of which the variables of that run were made
	state    ContainerState
	since    time.Time // when the present run began
	started  bool      // the present run has started up: its postStart hook and its startupProbe are done
	ready    bool
	trouble  string    // what the probe that failed last has said, while it fails
	next     time.Time // of the next run, while it waits for that
	latest   *Termination
	previous *Termination
	restarts int
}

func newContainer(p *Pod, spec *corev1.Container, r role) *container {
	return &container{
		pod: p, spec: spec, role: r, state: ContainerWaiting,
		out:  logs.New(p.cluster.dir.join(outputDir, p.manifest.Namespace, p.manifest.Name, spec.Name)),
		stop: make(chan struct{}), done: make(chan struct{}), up: make(chan struct{}),
	}
}

// begin starts the container, unless its end has come before; it returns when the first start was tried.
func (c *container) begin() {
	c.mu.Lock()
	if c.ending {
		c.mu.Unlock()
		return
	}
	c.begun = true
	c.mu.Unlock()
	tried := make(chan struct{})
	go func() {
		defer close(c.done)
		defer c.out.Finish()
		c.run(sync.OnceFunc(func() { close(tried) }))
	}()
	<-tried
}

func (c *container) run(tried func()) {
	wait := backoff{first: time.Second, most: time.Minute, calm: time.Minute}
	for {
		end := c.once(tried)
		if !c.again(end.ExitCode) {
			c.ended(end)
			return
		}
		delay := wait.after(end.Finished.Sub(end.Started))
		c.pause(end, delay)
		select {
		case <-c.stop:
			c.giveUp()
			return
		case <-time.After(delay):
		}
		c.mu.Lock()
		c.restarts++
		c.mu.Unlock()
		c.pod.event(fmt.Sprintf("container %s starts again (%s)", c.spec.Name, end.Message))
	}
}

// again tells whether the container is started again after an exit code.
func (c *container) again(code int) bool {
	select {
	case <-c.stop:
		return false
	default:
	}
	policy := c.pod.manifest.Spec.RestartPolicy
	if own := c.spec.RestartPolicy; own != nil {
		policy = corev1.RestartPolicy(*own)
	}
	switch policy {
	case corev1.RestartPolicyAlways:
		return code != 0 || c.role != initial
	case corev1.RestartPolicyOnFailure:
		return code != 0
	}
	return false
}

// once runs the command once, and calls tried when that has begun or could not.
func (c *container) once(tried func()) Termination {
	end := Termination{Started: time.Now(), Reason: reasonStartError, ExitCode: exitCannotStart}
	p, out, err := c.launch()
	if err != nil {
		tried()
		end.Message, end.Finished = err.Error(), time.Now()
		return end
	}
	c.mu.Lock()
	c.process, c.state, c.since, c.next = p, ContainerRunning, end.Started, time.Time{}
	c.mu.Unlock()
	c.pod.changed()
	tried()
	why := c.attend(p, end.Started)
	end.Finished, end.ExitCode, end.Reason = time.Now(), exitCode(p.Wait()), reasonCompleted
	out.End()
	end.Message = fmt.Sprintf("exit code %d", end.ExitCode)
	if end.ExitCode != 0 {
		end.Reason = reasonError
		if why == "" {
			why = lastLine(c.out.Tail())
		}
	}
	if why != "" {
		end.Message += ": " + why
	}
	return end
}

// launch starts the command, with its output kept.
func (c *container) launch() (*lab.Process, *logs.Run, error) {
	out, err := c.out.Begin()
	if err != nil {
		return nil, nil, err
	}
	p, err := c.command()
	if err == nil {
		p.Streams = out.Streams()
		err = p.Start()
	}
	out.Started()
	if err != nil {
		out.End()
		return nil, nil, err
	}
	return p, out, nil
}

// Reasons are those of Kubernetes.
const (
	reasonCompleted    = "Completed"
	reasonError        = "Error"
	reasonStartError   = "StartError"
	reasonBackOff      = "CrashLoopBackOff"
	reasonCreating     = "ContainerCreating"
	reasonInitializing = "PodInitializing"
)

// exitCannotStart is the code that Kubernetes gives a container which could not be started.
const exitCannotStart = 128

func (c *container) command() (*lab.Process, error) {
	mounts, err := c.pod.mounts(c.spec)
	if err != nil {
		return nil, err
	}
	facts := c.pod.facts()
	c.mu.Lock()
	c.facts = facts
	c.mu.Unlock()
	argv, env := c.pod.manifest.Command(c.spec, facts)
	p := c.inside(argv, env)
	p.Isolated, p.Mounts, p.Hostname = true, mounts, c.pod.hostname
	return p, nil
}

// inside returns a command of the container, with its variables and in its working directory. The name middleway is this program.
func (c *container) inside(argv, env []string) *lab.Process {
	p := lab.Exec(c.pod.ns, argv...)
	p.Env, p.Bare, p.Dir = c.environment(env), true, c.dir()
	if argv[0] == "middleway" {
		p.Path = selfPath
	}
	return p
}

// beside returns a command that is to run beside the container's own, with further variables.
func (c *container) beside(own *lab.Process, argv []string, further ...string) *lab.Process {
	c.mu.Lock()
	_, env := c.pod.manifest.Command(c.spec, c.facts)
	c.mu.Unlock()
	p := c.inside(argv, append(env, further...))
	p.Beside = own
	return p
}

func (c *container) dir() string {
	if c.spec.WorkingDir != "" {
		return c.spec.WorkingDir
	}
	return "/"
}

// environment adds what a container has besides its own variables.
func (c *container) environment(own []string) []string {
	home := os.Getenv("HOME")
	if home == "" {
		home = "/"
	}
	path := os.Getenv("PATH")
	if path == "" {
		path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	}
	return append([]string{"PATH=" + c.pod.cluster.dir.join(programDir) + ":" + path, "HOME=" + home, "HOSTNAME=" + c.pod.names.host}, own...)
}

// pause notes the end of a run after which another one will follow.
func (c *container) pause(end Termination, delay time.Duration) {
	c.finish(end, ContainerWaiting, time.Now().Add(delay))
}

// ended notes the end of the last run.
func (c *container) ended(end Termination) { c.finish(end, ContainerTerminated, time.Time{}) }

func (c *container) finish(end Termination, state ContainerState, next time.Time) {
	c.mu.Lock()
	c.previous, c.latest = c.latest, &end
	c.state, c.next, c.started, c.ready, c.trouble = state, next, false, false, ""
	c.mu.Unlock()
	c.pod.changed()
}

// giveUp makes the latest run the last one.
func (c *container) giveUp() {
	c.mu.Lock()
	c.state, c.next = ContainerTerminated, time.Time{}
	c.mu.Unlock()
	c.pod.changed()
}

// end ends the container for good, by a deadline unless that is zero.
func (c *container) end(deadline time.Time) {
	c.mu.Lock()
	if !c.ending {
		c.ending, c.deadline = true, deadline
		close(c.stop)
	}
	begun := c.begun
	c.mu.Unlock()
	if begun {
		<-c.done
	}
}

// hasBegun reports whether begin was called in time.
func (c *container) hasBegun() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.begun
}

// succeeded reports whether a container that will not run again has ended well.
func (c *container) succeeded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.latest != nil && c.latest.ExitCode == 0
}

// running returns the process of a container that runs.
func (c *container) running() (*lab.Process, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != ContainerRunning {
		return nil, fmt.Errorf("container %s of pod %s does not run; %s says why", c.spec.Name, c.pod.manifest.Key(), Hint("status", c.pod.cluster.dir.path))
	}
	return c.process, nil
}

func (c *container) status() ContainerStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := ContainerStatus{
		Name: c.spec.Name, Sidecar: c.role == sidecar, State: c.state, StartedUp: c.started, Ready: c.ready, Restarts: c.restarts, Output: c.out.Path(),
		LastState: c.latest,
	}
	if c.latest != nil {
		s.ExitCode, s.Message = &c.latest.ExitCode, c.latest.Message
	}
	switch {
	case c.state == ContainerRunning:
		s.PID, s.Started, s.Message = c.process.PID(), c.since, c.trouble
	case c.state == ContainerTerminated:
		s.Reason, s.Started, s.Finished, s.LastState = c.latest.Reason, c.latest.Started, c.latest.Finished, c.previous
		if c.latest.ExitCode == 0 {
			s.Message = "" // as it should be
		}
	case c.latest != nil:
		s.Reason = reasonBackOff
		s.Message += ", starts again " + in(time.Until(c.next))
	default:
		s.Reason = reasonCreating
	}
	return s
}

// in tells when something happens.
func in(d time.Duration) string {
	if d < time.Second/2 {
		return "at once"
	}
	return "in " + d.Round(time.Second).String()
}

// selfPath is this program for a process that is about to become another one: that is a middleway until then, even where the
// file is gone.
const selfPath = "/proc/self/exe"

// exitCode returns the code of a process that has ended, as shells do.
func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay): // what it left running has its output still
		return 0
	case !errors.As(err, &exit):
		return exitCannotStart
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return exit.ExitCode()
}
