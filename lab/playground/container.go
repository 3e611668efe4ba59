package playground

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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

// container runs a container's command, again and again as the pod's restartPolicy says.
type container struct {
	pod  *Pod
	spec *corev1.Container
	out  *logs.Log
	stop chan struct{} // closed by end
	done chan struct{} // closed when run has ended; nil before begin
	once sync.Once

	mu       sync.Mutex
	process  *lab.Process // the present run, or the last
	output   *logs.Run    // of process
	state    ContainerState
	reason   string    // why it does not run
	next     time.Time // of the next run, while it waits for that
	exitCode *int      // of the last run
	restarts int
}

func newContainer(p *Pod, spec *corev1.Container) *container {
	out := logs.New(p.cluster.dir.join(outputDir, p.manifest.Namespace, p.manifest.Name, spec.Name))
	return &container{pod: p, spec: spec, out: out, stop: make(chan struct{}), state: ContainerWaiting}
}

// begin starts the container; it returns when the first start was tried.
func (c *container) begin() {
	c.done = make(chan struct{})
	started := make(chan struct{})
	go func() {
		defer close(c.done)
		defer c.out.Finish()
		c.run(started)
	}()
	<-started
}

func (c *container) run(started chan struct{}) {
	wait := backoff{first: time.Second, most: time.Minute, calm: time.Minute}
	for {
		since := time.Now()
		code, reason := c.start()
		if started != nil {
			close(started)
			started = nil
		}
		if reason == "" {
			code, reason = c.wait()
		}
		if !c.again(code) {
			c.ended(code, reason, time.Time{})
			return
		}
		delay := wait.after(time.Since(since))
		c.ended(code, reason, time.Now().Add(delay))
		select {
		case <-c.stop:
			c.ended(code, reason, time.Time{})
			return
		case <-time.After(delay):
		}
		c.mu.Lock()
		c.restarts++
		c.mu.Unlock()
		c.pod.event(fmt.Sprintf("container %s starts again (%s)", c.spec.Name, reason))
	}
}

// again tells whether the container is started again after an exit code.
func (c *container) again(code int) bool {
	select {
	case <-c.stop:
		return false
	default:
	}
	switch c.pod.manifest.Spec.RestartPolicy {
	case corev1.RestartPolicyAlways:
		return true
	case corev1.RestartPolicyOnFailure:
		return code != 0
	}
	return false
}

// start starts the command; reason says why it could not be.
func (c *container) start() (code int, reason string) {
	p, out, err := c.launch()
	if err != nil {
		var missing *commandError
		if errors.As(err, &missing) {
			return missing.code, err.Error()
		}
		return exitCannotStart, err.Error()
	}
	c.mu.Lock()
	c.process, c.output, c.state, c.reason, c.next = p, out, ContainerRunning, "", time.Time{}
	c.mu.Unlock()
	c.pod.changed()
	return 0, ""
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

// exitCannotStart is the code that Kubernetes gives a container which could not be started.
const exitCannotStart = 128

func (c *container) command() (*lab.Process, error) {
	argv, env := c.pod.manifest.Command(c.spec, c.pod.facts())
	env = c.environment(env)
	dir := c.dir()
	path, err := c.pod.cluster.program(argv[0], dir, env)
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("workingDir: there is no directory %s on this machine", dir)
	}
	p := lab.Exec(c.pod.ns, argv...)
	p.Path, p.Env, p.Bare, p.Dir, p.Isolated = path, env, true, dir, true
	return p, nil
}

func (c *container) dir() string {
	if c.spec.WorkingDir != "" {
		return c.spec.WorkingDir
	}
	return "/"
}

// environment adds what a container has besides its own variables.
func (c *container) environment(own []string) []string {
	host := c.pod.manifest.Name
	if c.pod.manifest.Spec.HostNetwork {
		host = c.pod.node.Name()
	}
	home := os.Getenv("HOME")
	if home == "" {
		home = "/"
	}
	path := os.Getenv("PATH")
	if path == "" {
		path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	}
	return append([]string{"PATH=" + c.pod.cluster.dir.join(programDir) + ":" + path, "HOME=" + home, "HOSTNAME=" + host}, own...)
}

// wait waits for the end of the run and returns its exit code, 128 + signal if a signal ended it.
func (c *container) wait() (code int, reason string) {
	p := c.process // set by start, on this goroutine
	select {
	case <-p.Done():
	case <-c.stop:
		terminate(p, c.grace())
	}
	code = exitCode(p.Wait())
	c.output.End()
	reason = fmt.Sprintf("exit code %d", code)
	if line := lastLine(c.out.Tail()); line != "" && code != 0 {
		reason += ": " + line
	}
	return code, reason
}

func (c *container) grace() time.Duration {
	s := c.pod.manifest.Spec.TerminationGracePeriodSeconds
	if s == nil {
		return defaultGrace
	}
	return time.Duration(min(*s, manifest.MaxGrace)) * time.Second
}

// terminate ends a process as Kubernetes does, but does not wait for what cannot happen: process 1 gets no signal for which it
// has no handler.
func terminate(p *lab.Process, grace time.Duration) {
	if p.Catches(syscall.SIGTERM) && p.Signal(syscall.SIGTERM) == nil {
		select {
		case <-p.Done():
			return
		case <-time.After(grace):
		}
	}
	_ = p.Kill() // it has ended otherwise
}

// ended notes the end of a run, and when the next one begins; never, if that is zero.
func (c *container) ended(code int, reason string, next time.Time) {
	c.mu.Lock()
	c.exitCode, c.reason, c.next, c.state = &code, reason, next, ContainerWaiting
	if next.IsZero() {
		c.state = ContainerTerminated
	}
	c.mu.Unlock()
	c.pod.changed()
}

// end ends the container for good.
func (c *container) end() {
	c.once.Do(func() { close(c.stop) })
	if c.done != nil {
		<-c.done
	}
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
	s := ContainerStatus{Name: c.spec.Name, State: c.state, Message: c.reason, ExitCode: c.exitCode, Restarts: c.restarts, Output: c.out.Path()}
	switch {
	case c.state == ContainerRunning:
		s.PID = c.process.PID()
	case !c.next.IsZero():
		s.Message += ", starts again " + in(time.Until(c.next))
	case c.state == ContainerTerminated && *c.exitCode == 0:
		s.Message = "" // as it should be
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

// commandError is the error of a command that cannot be run, with the exit code that shells give it.
type commandError struct {
	code int
	text string
}

func (e *commandError) Error() string { return e.text }

// selfPath is this program for a process that is about to become another one: that is a middleway until then, even where the
// file is gone.
const selfPath = "/proc/self/exe"

// program finds a container's program. The name middleway is this program.
func (c *Cluster) program(name, dir string, env []string) (string, error) {
	if name == "middleway" {
		return selfPath, nil
	}
	return lookPath(name, dir, env)
}

// lookPath finds a program as execvp(3) does, with the PATH of a container.
func lookPath(name, dir string, env []string) (string, error) {
	var candidates []string
	if strings.Contains(name, "/") {
		candidates = []string{name}
	} else {
		for _, folder := range filepath.SplitList(lookup(env, "PATH")) {
			candidates = append(candidates, filepath.Join(folder, name))
		}
	}
	denied := ""
	for _, path := range candidates {
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		info, err := os.Stat(path)
		switch {
		case err != nil:
		case info.IsDir() || info.Mode()&0o111 == 0:
			denied = path
		default:
			return path, nil
		}
	}
	if denied != "" {
		return "", &commandError{126, fmt.Sprintf("%s is no program that may be executed", denied)}
	}
	return "", &commandError{127, fmt.Sprintf("there is no program %s on this machine, whose files stand in for the image", name)}
}

// lookup returns the last value of a variable.
func lookup(env []string, name string) (value string) {
	for _, pair := range env {
		if v, ok := strings.CutPrefix(pair, name+"="); ok {
			value = v
		}
	}
	return value
}

// exitCode returns the code of a process that has ended, as shells do.
func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case !errors.As(err, &exit):
		return exitCannotStart
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return exit.ExitCode()
}
