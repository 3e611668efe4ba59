package bench

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// source is a descriptor that a relay's worker reads.
type source interface {
	fd() int
	// drain takes what is there without blocking, drainBudget packets at most.
	drain()
}

// drainBudget is how many packets a worker takes from one source before it looks at the next.
const drainBudget = 8

const (
	// spin is how long a worker polls before it sleeps.
	spin = 50 * time.Microsecond
	// After maxCredit spins in vain a worker sleeps at once, and tries to spin again every probe-th time.
	maxCredit, probe = 32, 16
)

// loop drains the sources for ever.
func loop(sources []source) error {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("epoll_create: %w", err)
	}
	defer unix.Close(epoll)
	for i, s := range sources {
		e := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}
		if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, s.fd(), &e); err != nil {
			return fmt.Errorf("epoll_ctl: %w", err)
		}
	}
	p := &poller{epoll: epoll, credit: maxCredit, spinTime: spin}
	for {
		n, err := p.wait()
		if err != nil {
			return err
		}
		for _, e := range p.events[:n] {
			sources[e.Fd].drain()
		}
	}
}

type poller struct {
	epoll    int
	credit   int
	spinTime time.Duration
	events   [8]unix.EpollEvent
}

// wait returns how many events there are, after polling and then sleeping.
func (p *poller) wait() (int, error) {
	if n := p.spin(); n > 0 {
		return n, nil
	}
	for {
		n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.epoll), uintptr(unsafe.Pointer(&p.events)), uintptr(len(p.events)), ^uintptr(0), 0, 0)
		if errno == 0 {
			return int(n), nil
		}
		if !errors.Is(errno, unix.EINTR) {
			return 0, fmt.Errorf("epoll_wait: %w", errno)
		}
	}
}

func (p *poller) spin() int {
	if n := p.poll(); n > 0 {
		return n
	}
	if p.credit <= 0 {
		if p.credit--; p.credit > -probe {
			return 0
		}
		p.credit = 1
	}
	for start := time.Now(); time.Since(start) < p.spinTime; {
		_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
		if n := p.poll(); n > 0 {
			p.credit = min(p.credit+1, maxCredit)
			return n
		}
	}
	p.credit--
	return 0
}

// poll returns how many events there are now.
func (p *poller) poll() int {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.epoll), uintptr(unsafe.Pointer(&p.events)), uintptr(len(p.events)), 0, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}
