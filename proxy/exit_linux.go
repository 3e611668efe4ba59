package proxy

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/packet"
)

// tick is how often connections that wait for time to pass are looked at.
const tick = 20 * time.Millisecond

// mostPassed is how many segments that came to another worker wait for a connection's own.
const mostPassed = 256

// Exit is one worker's part of the way out: the TCP connections whose segments the worker reads, and their sockets. All but tell and
// pass belongs to the worker's goroutine, so that a connection's state has no lock.
type Exit struct {
	p      *Proxy
	inject Inject
	conns  map[packet.Flow]*relayed
	dirty  []*relayed // have something to do at the end of the batch
	timed  []*relayed // wait for time to pass
	now    time.Duration
	kept   int  // bytes that connections hold for their pod, or that wait for their socket
	over   bool // Stop was called

	flushed []*relayed // empty; the next dirty

	epoll, timer, event int
	ticking             bool
	looked              time.Duration // when idle connections were looked after
	slots               []exitSlot
	free                []uint32
	events              [loopBatch]unix.EpollEvent
	head                [maxTCPHeaders]byte

	mu     sync.Mutex
	told   []func()
	closed bool
}

// exitSlot is a connection's place in the kernel's events. Its generation tells the events of one from those of the next.
type exitSlot struct {
	conn       *relayed
	generation uint32
}

// Slots of an exit's own descriptors.
const (
	slotTimer int32 = -1 - iota
	slotEvent
)

// Exit makes a worker's part of the way out.
func (p *Proxy) Exit(inject func(packet.Offload, ...[]byte)) (*Exit, error) {
	e := &Exit{p: p, inject: inject, conns: map[packet.Flow]*relayed{}}
	if err := e.open(); err != nil {
		return nil, fmt.Errorf("way out: %w", err)
	}
	return e, nil
}

func (e *Exit) open() (err error) {
	if e.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("epoll_create: %w", err)
	}
	e.event, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(e.epoll)
		return fmt.Errorf("eventfd: %w", err)
	}
	e.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(e.epoll)
		_ = unix.Close(e.event)
		return fmt.Errorf("timerfd_create: %w", err)
	}
	for fd, slot := range map[int]int32{e.event: slotEvent, e.timer: slotTimer} {
		if err := unix.EpollCtl(e.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: slot}); err != nil {
			e.closeDescriptors()
			return fmt.Errorf("epoll_ctl: %w", err)
		}
	}
	e.setTimer(lookEvery)
	return nil
}

// FD is the descriptor of all others.
func (e *Exit) FD() int { return e.epoll }

// Deliver takes a packet that leaves the cluster, see Proxy.Deliver.
func (e *Exit) Deliver(b []byte, h *packet.Parsed, o packet.Offload) {
	if h.Proto != packet.TCP {
		e.p.Deliver(b, h, o)
		return
	}
	if h.Fragment {
		if b, h = e.p.tcp.relays.pieces.add(b, h); b == nil {
			return
		}
		h.Fragment, o = false, packet.Offload{}
	}
	c := e.conns[h.Flow]
	if c != nil && c.phase == lingering && opens(h) {
		c.end() // it begins anew (RFC 9293, section 3.6.1)
		c = nil
	}
	if c != nil {
		c.hear(readSegment(b, h))
		return
	}
	e.stray(b, h, o)
}

// opens reports whether a segment asks for a connection.
func opens(h *packet.Parsed) bool {
	return h.Flags&(packet.SYN|packet.ACK|packet.RST|packet.FIN) == packet.SYN
}

// stray takes a segment of no connection of this worker's: one that opens a connection, or one of another worker's, since the kernel has
// moved the flow to another queue, or one that is answered by the netstack, as what came in through a listener is.
func (e *Exit) stray(b []byte, h *packet.Parsed, o packet.Offload) {
	switch c := e.p.tcp.relays.by(&h.Flow); {
	case c != nil && c.e != e:
		again, head := append([]byte(nil), b[:h.Len]...), *h
		c.e.pass(func() { c.e.Deliver(again, &head, o) })
	case !opens(h):
		e.p.Deliver(b, h, o)
	case !e.over:
		e.begin(b, h)
	}
}

// Ready takes what sockets and the clock have to say.
func (e *Exit) Ready() {
	n, err := unix.EpollWait(e.epoll, e.events[:], 0)
	if err != nil {
		return // interrupted: it will be called again
	}
	e.now = e.p.tcp.clock()
	for i := range e.events[:n] {
		switch ev := &e.events[i]; ev.Fd {
		case slotTimer:
			e.takeTicks()
		case slotEvent:
			e.takeTold()
		default:
			if s := &e.slots[ev.Fd]; s.generation == uint32(ev.Pad) && s.conn != nil {
				s.conn.ready(ev.Events)
			}
		}
	}
}

// Flush says what there is to be said after a batch: of a train of segments that a pod sent one acknowledgment.
func (e *Exit) Flush() {
	if len(e.dirty) == 0 {
		return
	}
	e.now = e.p.tcp.clock()
	dirty := e.dirty
	e.dirty = e.flushed
	for _, c := range dirty {
		c.dirty = false
		c.speak()
	}
	clear(dirty)
	e.flushed = dirty[:0]
}

// touch has a connection speak at the end of the batch.
func (e *Exit) touch(c *relayed) {
	if !c.dirty {
		c.dirty = true
		e.dirty = append(e.dirty, c)
	}
}

// tell has the worker call f, soon. Any goroutine may call it. It is false if f is not called, since the worker has stopped.
func (e *Exit) tell(f func()) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.tellLocked(f)
}

// pass is tell, as long as there is room.
func (e *Exit) pass(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.told) < mostPassed {
		e.tellLocked(f)
	}
}

func (e *Exit) tellLocked(f func()) bool {
	if e.closed {
		return false
	}
	e.told = append(e.told, f)
	if len(e.told) == 1 {
		e.wake()
	}
	return true
}

// wake has Ready called. Precondition: mu is held, or it is the worker that calls.
func (e *Exit) wake() { _, _ = unix.Write(e.event, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }

func (e *Exit) takeTold() {
	var b [8]byte
	_, _ = unix.Read(e.event, b[:])
	e.mu.Lock()
	told := e.told
	e.told = nil
	e.mu.Unlock()
	for _, f := range told {
		f()
	}
}

// time has a connection looked at from the next tick on, as long as it waits for something.
func (e *Exit) time(c *relayed) {
	if c.timed {
		return
	}
	c.timed = true
	e.timed = append(e.timed, c)
	if !e.ticking {
		e.ticking = true
		e.setTimer(tick)
	}
}

func (e *Exit) setTimer(every time.Duration) {
	spec := unix.NsecToTimespec(every.Nanoseconds())
	_ = unix.TimerfdSettime(e.timer, 0, &unix.ItimerSpec{Interval: spec, Value: spec}, nil)
}

func (e *Exit) takeTicks() {
	var b [8]byte
	_, _ = unix.Read(e.timer, b[:])
	kept := e.timed[:0]
	for _, c := range e.timed {
		if c.deadline != 0 && c.deadline <= e.now {
			c.expire()
		}
		if c.timed = c.deadline != 0; c.timed {
			kept = append(kept, c)
		}
	}
	clear(e.timed[len(kept):])
	e.timed = kept
	if len(kept) == 0 {
		e.ticking = false
		e.setTimer(lookEvery)
	}
	if e.now-e.looked >= lookEvery {
		e.looked = e.now
		for _, c := range e.conns {
			c.lookAfter()
		}
	}
}

// watch has the events of a connection's socket taken, each change once.
func (e *Exit) watch(c *relayed) error {
	if len(e.free) == 0 {
		e.free = append(e.free, uint32(len(e.slots)))
		e.slots = append(e.slots, exitSlot{})
	}
	at := e.free[len(e.free)-1]
	s := &e.slots[at]
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLPRI | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET&(1<<32-1), Fd: int32(at), Pad: int32(s.generation)}
	if err := unix.EpollCtl(e.epoll, unix.EPOLL_CTL_ADD, c.fd, &ev); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	e.free = e.free[:len(e.free)-1]
	s.conn, c.slot = c, int32(at)
	return nil
}

// unwatch ends what watch began. The kernel forgets a socket that is closed.
func (e *Exit) unwatch(c *relayed) {
	s := &e.slots[c.slot]
	*s = exitSlot{generation: s.generation + 1}
	e.free = append(e.free, uint32(c.slot))
	c.slot = -1
}

// Stop resets all connections: the worker stops.
func (e *Exit) Stop() {
	e.over = true
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.takeTold() // some bring sockets
	for _, c := range e.conns {
		c.abort()
	}
	e.Flush()
}

// Close closes the descriptors. The worker has stopped, or never ran.
func (e *Exit) Close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	e.closeDescriptors()
}

func (e *Exit) closeDescriptors() {
	_ = unix.Close(e.epoll)
	_ = unix.Close(e.event)
	_ = unix.Close(e.timer)
}

// say sends a segment to a pod.
func (e *Exit) say(f *packet.Flow, s *said) {
	n, o := s.put(e.head[:], f)
	e.inject(o, e.head[:n], s.data)
}
