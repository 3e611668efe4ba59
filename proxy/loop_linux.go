package proxy

import (
	"errors"
	"fmt"
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// loopBatch is how many ready descriptors one wait returns.
const loopBatch = 64

// watcher is told by a loop that its descriptor has something to be taken, and whether there are errors among it, which it has to
// take. It takes what there is, up to a budget of its own: it will be told again.
type watcher interface {
	ready(m *message, failed bool)
}

// loop waits for the descriptors of many watchers in one goroutine, by an epoll instance, level-triggered. The zero loop is ready
// for use.
type loop struct {
	in message // of run alone

	mu          sync.Mutex
	epoll, wake int // valid iff opened
	opened      bool
	closed      bool
	slots       []slot
	free        []uint32
}

// slot is a place for a watcher. Its generation tells the events of one from those of the next.
type slot struct {
	watcher    watcher
	generation uint32
}

// token names a watcher in the kernel's events.
type token struct{ slot, generation uint32 }

// add watches a descriptor until remove.
func (l *loop) add(fd int, w watcher) (token, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.openLocked(); err != nil {
		return token{}, err
	}
	if len(l.free) == 0 {
		l.free = append(l.free, uint32(len(l.slots)))
		l.slots = append(l.slots, slot{})
	}
	at := l.free[len(l.free)-1]
	t := token{at, l.slots[at].generation}
	e := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(t.slot), Pad: int32(t.generation)}
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &e); err != nil {
		return token{}, fmt.Errorf("epoll_ctl: %w", err)
	}
	l.free = l.free[:len(l.free)-1]
	l.slots[at].watcher = w
	return t, nil
}

// remove ends what add began. The descriptor is still open.
func (l *loop) remove(fd int, t token) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.slots[t.slot] = slot{generation: t.generation + 1}
	l.free = append(l.free, t.slot)
	if !l.closed {
		_ = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_DEL, fd, nil)
	}
}

func (l *loop) openLocked() error {
	if l.closed {
		return net.ErrClosed
	}
	if l.opened {
		return nil
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("epoll_create: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		e := unix.EpollEvent{Events: unix.EPOLLIN, Fd: -1}
		if err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, wake, &e); err != nil {
			_ = unix.Close(wake)
		}
	}
	if err != nil {
		_ = unix.Close(epoll)
		return fmt.Errorf("eventfd: %w", err)
	}
	l.epoll, l.wake, l.opened = epoll, wake, true
	return nil
}

// run tells watchers until stop is called, after which nobody is watched any more.
func (l *loop) run() error {
	l.mu.Lock()
	err := l.openLocked()
	l.mu.Unlock()
	if err != nil {
		return err
	}
	defer l.close()
	l.in.init()
	var events [loopBatch]unix.EpollEvent
	var watchers [loopBatch]watcher
	for {
		n, err := unix.EpollWait(l.epoll, events[:], -1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("epoll_wait: %w", err)
		}
		if !l.find(events[:n], watchers[:n]) {
			return nil
		}
		for i, w := range watchers[:n] {
			if w != nil {
				w.ready(&l.in, events[i].Events&unix.EPOLLERR != 0)
			}
		}
	}
}

// find finds those whom events are for, and reports whether the loop goes on.
func (l *loop) find(events []unix.EpollEvent, watchers []watcher) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, e := range events {
		if e.Fd < 0 {
			return false
		}
		watchers[i] = nil
		if s := &l.slots[e.Fd]; s.generation == uint32(e.Pad) {
			watchers[i] = s.watcher
		}
	}
	return true
}

// stop ends run, or keeps it from beginning.
func (l *loop) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.openLocked() == nil {
		_, _ = unix.Write(l.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
}

func (l *loop) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	_ = unix.Close(l.epoll)
	_ = unix.Close(l.wake)
}
