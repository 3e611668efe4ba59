package playground

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/lab/manifest"
)

// unwell is why a run is to be ended, and the time that it has for that.
type unwell struct {
	why   string
	grace time.Duration
}

// attend stays with a run until it has ended: it asks the probes, and ends it where they or the pod's end want that. why is "" if
// the run has ended by itself, or with its pod.
func (c *container) attend(p *lab.Process, since time.Time) (why string) {
	ctx, cancel := context.WithCancel(context.Background())
	var looking sync.WaitGroup
	found := make(chan unwell, 1) // one is the last
	looking.Go(func() { c.look(ctx, p, since, found) })
	defer looking.Wait()
	defer cancel()
	select {
	case <-p.Done():
	case <-c.stop:
		cancel()
		c.terminate(p, c.timeLeft())
	case u := <-found:
		cancel()
		select {
		case <-p.Done(): // by itself, which is why a hook or a probe in it failed
			return ""
		default:
		}
		why = u.why
		c.pod.event(fmt.Sprintf("container %s is ended: %s", c.spec.Name, why))
		c.terminate(p, u.grace)
	}
	return why
}

// look runs the postStart hook, waits for the startupProbe to succeed, and then asks the other probes until ctx ends.
func (c *container) look(ctx context.Context, p *lab.Process, since time.Time, found chan<- unwell) {
	if hooks := c.spec.Lifecycle; hooks != nil && hooks.PostStart != nil {
		if err := c.hook(ctx, p, hooks.PostStart); err != nil && ctx.Err() == nil {
			found <- unwell{"postStart hook: " + err.Error(), c.grace()}
			return
		}
	}
	up := true
	if probe := c.spec.StartupProbe; probe != nil {
		up = false
		c.ask(ctx, p, "startup probe", probe, since, func(err error) (goOn bool) {
			if up = err == nil; !up {
				found <- c.fails("startup probe", probe, err)
			}
			return false
		})
	}
	if !up || ctx.Err() != nil {
		return
	}
	c.startedUp(p)
	var asking sync.WaitGroup
	if probe := c.spec.LivenessProbe; probe != nil {
		asking.Go(func() {
			c.ask(ctx, p, "liveness probe", probe, since, func(err error) (goOn bool) {
				if err != nil {
					found <- c.fails("liveness probe", probe, err)
				}
				return err == nil
			})
		})
	}
	if probe := c.spec.ReadinessProbe; probe != nil {
		asking.Go(func() {
			c.ask(ctx, p, "readiness probe", probe, since, func(err error) (goOn bool) {
				c.setReady(p, err)
				return true
			})
		})
	}
	asking.Wait()
}

func (c *container) fails(name string, probe *corev1.Probe, err error) unwell {
	u := unwell{fmt.Sprintf("%s failed: %v", name, err), c.grace()}
	if s := probe.TerminationGracePeriodSeconds; s != nil {
		u.grace = seconds(*s)
	}
	return u
}

// ask asks a probe until ctx ends or turned returns false. turned gets each answer, nil for a good one, that has come often enough in
// a row to count.
func (c *container) ask(ctx context.Context, p *lab.Process, name string, probe *corev1.Probe, since time.Time, turned func(error) (goOn bool)) {
	if !sleep(ctx, time.Until(since.Add(time.Duration(probe.InitialDelaySeconds)*time.Second))) {
		return
	}
	ticker := time.NewTicker(time.Duration(probe.PeriodSeconds) * time.Second)
	defer ticker.Stop()
	good, bad := int32(0), int32(0)
	for {
		err := c.probe(ctx, p, probe)
		if ctx.Err() != nil || errors.Is(err, os.ErrProcessDone) {
			return
		}
		if err == nil {
			good, bad = good+1, 0
		} else {
			good, bad = 0, bad+1
		}
		c.setTrouble(name, err)
		if (good >= probe.SuccessThreshold || bad >= probe.FailureThreshold) && !turned(err) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// sleep waits; false if ctx ended before.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// setTrouble keeps what a probe said that failed.
func (c *container) setTrouble(name string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.trouble = fmt.Sprintf("%s: %v", name, err)
	} else if strings.HasPrefix(c.trouble, name+":") {
		c.trouble = ""
	}
}

// startedUp notes that a run has started up. Without a readinessProbe it is ready too.
func (c *container) startedUp(p *lab.Process) {
	c.mu.Lock()
	if c.process == p && c.state == ContainerRunning {
		c.started, c.ready = true, c.spec.ReadinessProbe == nil && c.role != initial
	}
	c.mu.Unlock()
	select {
	case <-c.up: // in an earlier run
	default:
		close(c.up)
	}
	c.pod.changed()
}

// setReady notes the answer of the readinessProbe.
func (c *container) setReady(p *lab.Process, err error) {
	c.mu.Lock()
	was := c.ready
	if c.process == p && c.state == ContainerRunning {
		c.ready = err == nil
	}
	is := c.ready
	c.mu.Unlock()
	if is != was {
		c.pod.changed()
	}
	switch {
	case is && !was:
		c.pod.event(fmt.Sprintf("container %s is ready", c.spec.Name))
	case was && !is:
		c.pod.event(fmt.Sprintf("container %s is not ready: %v", c.spec.Name, err))
	}
}

// hook runs a lifecycle hook.
func (c *container) hook(ctx context.Context, p *lab.Process, h *corev1.LifecycleHandler) error {
	switch {
	case h.Exec != nil:
		return c.exec(ctx, p, h.Exec.Command)
	case h.HTTPGet != nil:
		_, err := c.get(ctx, h.HTTPGet)
		return err
	case h.Sleep != nil:
		sleep(ctx, time.Duration(h.Sleep.Seconds)*time.Second)
	}
	return ctx.Err()
}

// leastGrace is what a container has after SIGTERM, whatever its preStop hook took (minimumGracePeriodInSeconds of kubelet).
const leastGrace = 2 * time.Second

// terminate ends a run as Kubernetes does, but does not wait for what cannot happen: process 1 gets no signal for which it has no
// handler.
func (c *container) terminate(p *lab.Process, grace time.Duration) {
	end := time.Now().Add(grace)
	if hooks := c.spec.Lifecycle; hooks != nil && hooks.PreStop != nil && grace > 0 {
		ctx, cancel := context.WithDeadline(context.Background(), end)
		if err := c.untilDone(ctx, p, hooks.PreStop); err != nil {
			c.pod.event(fmt.Sprintf("container %s: preStop hook: %v", c.spec.Name, err))
		}
		cancel()
		grace = max(time.Until(end), leastGrace)
	}
	if p.Catches(syscall.SIGTERM) && p.Signal(syscall.SIGTERM) == nil {
		select {
		case <-p.Done():
			return
		case <-time.After(grace):
		}
	}
	_ = p.Kill() // it has ended otherwise
}

// untilDone runs a hook as long as its container runs.
func (c *container) untilDone(ctx context.Context, p *lab.Process, h *corev1.LifecycleHandler) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-p.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	err := c.hook(ctx, p, h)
	if errors.Is(err, context.Canceled) || errors.Is(err, os.ErrProcessDone) {
		return nil // the container has ended
	}
	return err
}

// grace is what the pod gives its containers after SIGTERM.
func (c *container) grace() time.Duration {
	s := c.pod.manifest.Spec.TerminationGracePeriodSeconds
	if s == nil {
		return defaultGrace
	}
	return seconds(*s)
}

// seconds is a grace period, cut to what a person waits for.
func seconds(s int64) time.Duration {
	return time.Duration(min(s, manifest.MaxGrace)) * time.Second
}

// timeLeft is the grace of the pod's end.
func (c *container) timeLeft() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.deadline.IsZero() {
		return c.grace()
	}
	return max(0, min(c.grace(), time.Until(c.deadline)))
}
