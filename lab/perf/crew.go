package perf

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// crew is the threads of a test at one end and their sockets.
type crew struct {
	inside   func(func() error) error // runs a func on a thread in the right namespace
	stopping atomic.Bool
	failed   chan struct{} // closed at the first error
	running  sync.WaitGroup

	mu   sync.Mutex
	fds  []int
	errs []error
}

func newCrew(inside func(func() error) error) *crew {
	if inside == nil {
		inside = onThread
	}
	return &crew{inside: inside, failed: make(chan struct{})}
}

// onThread runs f on the thread that it has now.
func onThread(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return f()
}

// own makes the crew the owner of a socket.
func (c *crew) own(fd int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fds = append(c.fds, fd)
}

// start runs f on a thread of its own. What it returns after stop is no error.
func (c *crew) start(f func() error) {
	c.running.Go(func() {
		if err := c.inside(f); err != nil && !c.stopping.Load() {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.errs = append(c.errs, err); len(c.errs) == 1 {
				close(c.failed)
			}
		}
	})
}

// interrupt makes the threads end, whatever they wait for.
func (c *crew) interrupt() {
	c.stopping.Store(true)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, fd := range c.fds {
		_ = unix.Shutdown(fd, unix.SHUT_RDWR) // ENOTCONN of a datagram socket that is not connected wakes it all the same
	}
}

// stop ends the threads and closes the sockets. It returns the errors that there were before.
func (c *crew) stop() error {
	c.interrupt()
	c.running.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, fd := range c.fds {
		closeSocket(fd)
	}
	c.fds = nil
	return errors.Join(c.errs...)
}
