package stack

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pollBatch is how many ready descriptors one wait returns.
const pollBatch = 64

// poller waits for a worker's descriptors: an epoll instance, level-triggered, and an eventfd by which others wake it.
// Only add, remove and wake may be called by other goroutines.
type poller struct {
	epoll, eventfd int
	spin           time.Duration
	credit         int
	events         [pollBatch]event
}

// event is struct epoll_event.
type event unix.EpollEvent

func (e *event) token() int32 { return e.Fd }

// A spin that finds nothing costs its full time. After maxCredit misses in a row the worker sleeps at once, and tries again
// to spin every probe-th time.
const (
	maxCredit = 32
	probe     = 16
)

func newPoller(spin time.Duration) (poller, error) {
	p := poller{spin: spin, credit: maxCredit}
	var err error
	if p.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return p, fmt.Errorf("epoll_create: %w", err)
	}
	if p.eventfd, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		_ = unix.Close(p.epoll)
		return p, fmt.Errorf("eventfd: %w", err)
	}
	if err := p.add(p.eventfd, tokenWake); err != nil {
		p.close()
		return p, err
	}
	return p, nil
}

func (p *poller) close() {
	_ = unix.Close(p.epoll)
	_ = unix.Close(p.eventfd)
}

func (p *poller) add(fd int, token int32) error {
	e := unix.EpollEvent{Events: unix.EPOLLIN, Fd: token}
	if err := unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, fd, &e); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

func (p *poller) remove(fd int) { _ = unix.EpollCtl(p.epoll, unix.EPOLL_CTL_DEL, fd, nil) }

func (p *poller) wake() { _, _ = unix.Write(p.eventfd, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }

func (p *poller) clearWake() {
	var b [8]byte
	_, _ = unix.Read(p.eventfd, b[:])
}

// wait returns the descriptors that are ready, at least one. It polls for the spin time first, giving the processor to
// others between polls, and then sleeps.
func (p *poller) wait() ([]event, error) {
	if n := p.spinWait(); n > 0 {
		return p.events[:n], nil
	}
	for {
		// Syscall, not RawSyscall: the scheduler has to know that this one may sleep.
		n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.epoll), uintptr(unsafe.Pointer(&p.events)), pollBatch, ^uintptr(0), 0, 0)
		if errno == 0 {
			return p.events[:n], nil
		}
		if !errors.Is(errno, unix.EINTR) {
			return nil, errno
		}
	}
}

// poll returns how many descriptors are ready now.
func (p *poller) poll() int {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.epoll), uintptr(unsafe.Pointer(&p.events)), pollBatch, 0, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

func (p *poller) spinWait() int {
	n := p.poll()
	if n > 0 || p.spin < 0 {
		return n
	}
	if p.credit <= 0 {
		if p.credit--; p.credit > -probe {
			return 0
		}
		p.credit = 1
	}
	for start := time.Now(); time.Since(start) < p.spin; {
		_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
		if n := p.poll(); n > 0 {
			p.credit = min(p.credit+1, maxCredit)
			return n
		}
	}
	p.credit--
	return 0
}
