package proxy

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/icmp"
	"github.com/middleway-net/middleway/stack/packet"
)

// enter opens the flow of a packet, which waits for the socket, or is dropped if no further flow may be opened now. It returns the
// flow if another worker has entered it before.
func (e *egress) enter(b []byte, h *packet.Parsed, o packet.Offload) *egressFlow {
	f := &egressFlow{flow: h.Flow, ttl: h.TTL, tos: packet.TOS(b)}
	f.dontCut.Store(!mayCut(b, h))
	f.seen.Store(e.now.Load())
	f.waiting = []queued{queue(b, h, o)}
	e.waiting.Add(int64(h.Len))

	e.table.mu.Lock()
	other := e.table.find(&h.Flow)
	entered := other == nil && e.insertLocked(f)
	e.table.mu.Unlock()
	if !entered {
		e.shut(f)
		if other == nil {
			e.count.dropped.Add(1)
		}
	}
	return other
}

// insertLocked has a flow opened, in place of another one where there are as many as there may be. It is false if too many are being
// opened.
func (e *egress) insertLocked(f *egressFlow) bool {
	pod := f.flow.SrcKey()
	var worst *egressFlow
	switch {
	case e.table.pods[pod] >= e.limit/2: // one pod does not take what others need
		worst = e.table.worstLocked(&pod)
	case len(e.table.all) >= e.limit:
		worst = e.table.worstLocked(nil)
	}
	select {
	case e.opening <- f:
		e.table.insertLocked(f)
	default:
		return false
	}
	if worst != nil && e.table.removeLocked(worst) {
		e.count.evicted.Add(1)
		e.shut(worst)
	}
	return true
}

// wait queues a packet until its flow's socket is open, or drops it. It is false if the socket is open.
func (e *egress) wait(f *egressFlow, b []byte, h *packet.Parsed, o packet.Offload) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.state == open:
		return false
	case f.state == closed, len(f.waiting) == maxWaiting, e.waiting.Load()+int64(h.Len) > maxWaitingBytes:
		e.count.dropped.Add(1)
	default:
		f.waiting = append(f.waiting, queue(b, h, o))
		e.waiting.Add(int64(h.Len))
	}
	return true
}

// open opens sockets, and tells pods what workers left to be told, until ctx ends.
func (e *egress) open(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case f := <-e.opening:
			e.openFlow(f)
		case r := <-e.told:
			e.refuse(&r.queued, r.err)
		}
	}
}

func (e *egress) openFlow(f *egressFlow) {
	if f.ended() {
		return
	}
	fd, err := e.connect(f)
	if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EAGAIN) {
		if e.evict() {
			fd, err = e.connect(f)
		}
	}
	if err != nil {
		e.fail(f, err)
		return
	}
	f.mu.Lock()
	if f.state == closed {
		f.mu.Unlock()
		_ = unix.Close(fd)
		return
	}
	f.fd = fd
	if f.token, err = e.loop.add(fd, watchedFlow{e, f}); err != nil {
		f.mu.Unlock()
		_ = unix.Close(fd)
		e.fail(f, err)
		return
	}
	e.count.opened.Add(1)
	for i := range f.waiting {
		w := &f.waiting[i]
		e.waiting.Add(-int64(len(w.b)))
		e.sendOn(f, w.b, &w.h, w.o)
	}
	f.waiting, f.state = nil, open
	f.refs.Store(1)
	f.mu.Unlock()
}

// evict closes the flow that is missed least, so that its socket is another's.
func (e *egress) evict() bool {
	e.table.mu.Lock()
	worst := e.table.worstLocked(nil)
	if worst != nil {
		e.table.removeLocked(worst)
	}
	e.table.mu.Unlock()
	if worst == nil {
		return false
	}
	e.count.evicted.Add(1)
	e.shut(worst)
	return true
}

// fail gives up a flow whose socket cannot be had, and tells the pod.
func (e *egress) fail(f *egressFlow, err error) {
	e.count.failed.Add(1)
	var errno unix.Errno
	errors.As(err, &errno)
	kind := refusedBy(errno)
	if kind == 0 {
		kind = icmp.Prohibited
	}
	if errors.Is(err, errNoSocket) {
		e.warn(f, err)
	}
	f.mu.Lock()
	waiting := f.waiting
	f.mu.Unlock()
	e.remove(f)
	e.count.dropped.Add(uint64(len(waiting)))
	if len(waiting) > 0 {
		e.refuse(&waiting[0], icmp.Error{Kind: kind})
	}
}

// warn says that a flow has no socket, if that was not said a moment ago.
func (e *egress) warn(f *egressFlow, err error) {
	if e.warned.due() {
		e.p.log.Warn("no socket for a pod's packets to the outside", "proto", e.name, "dst", f.flow.Dst(), "err", err)
	}
}
