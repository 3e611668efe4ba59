package proxy

import (
	"context"
	"math"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/icmp"
	"github.com/middleway-net/middleway/stack/packet"
)

// Bounds of what waits for sockets to be opened.
const (
	maxOpening      = 1024    // flows
	maxWaiting      = 16      // packets of a flow
	maxWaitingBytes = 4 << 20 // of all flows
)

// maxTold bounds the errors that workers leave to be told to pods.
const maxTold = 64

// sweepEvery is how often idle flows are looked for.
const sweepEvery = 5 * time.Second

// FlowStats are counters of flows over connected sockets.
type FlowStats struct {
	// Open are the flows that are open.
	Open int `json:"open"`
	// Opened flows since the start, of which Evicted made room for others, and Failed had no socket.
	Opened  uint64 `json:"opened"`
	Evicted uint64 `json:"evicted"`
	Failed  uint64 `json:"failed"`
	// Sent are packets to the outside, Received those from there. A train counts as one.
	Sent     uint64 `json:"sent"`
	Received uint64 `json:"received"`
	// Dropped are packets of pods that no socket took.
	Dropped uint64 `json:"dropped"`
	// Told are ICMP errors sent to pods.
	Told uint64 `json:"told"`
}

// flowCounters are what FlowStats is read from.
type flowCounters struct{ opened, evicted, failed, sent, received, dropped, told atomic.Uint64 }

// protocol is what egress has to know of what it carries.
type protocol struct {
	name string
	// number is the socket's protocol for IPv4, or for IPv6.
	number func(is4 bool) int
	// send sends a packet on a flow's socket. It may be called by any worker.
	send func(f *egressFlow, b []byte, h *packet.Parsed, o packet.Offload) unix.Errno
	// answer sends what a flow's socket received to the pod.
	answer func(f *egressFlow, m *message)
	// quote writes the transport part of the packet of a flow that an error is about, of which the socket returns the data, and
	// returns it.
	quote func(f *egressFlow, dst, data []byte) []byte
	// advice says what a person has to do who is not allowed such sockets.
	advice string
	// trains: sockets take trains of datagrams.
	trains bool
	// limit is how many flows there are at most; idle, and answered, how long they are kept without a packet.
	limit          int
	idle, answered time.Duration
}

// egress carries pods' packets to the outside over a connected socket for each flow: then the kernel tells, by the socket's error
// queue, what became of them.
type egress struct {
	protocol
	p       *Proxy
	loop    *loop
	table   flowTable
	opening chan *egressFlow
	told    chan refusal
	errors  icmp.Limit // of what open tells
	local   icmp.Limit // of what the loop tells that the kernel knew by itself
	started time.Time
	waiting atomic.Int64
	now     atomic.Uint32 // seconds
	count   flowCounters
	warned  warned // of sockets that cannot be had
}

// refusal is an error that a pod is to be told about a packet of its.
type refusal struct {
	queued
	err icmp.Error
}

func (e *egress) init(p *Proxy, l *loop, proto protocol) {
	e.p, e.loop, e.protocol = p, l, proto
	e.table.init(e.limit)
	e.opening, e.told = make(chan *egressFlow, maxOpening), make(chan refusal, maxTold)
	e.now.Store(1)
	e.started = time.Now()
}

// run opens sockets and closes those that are idle, until ctx ends. The loop runs beside it.
func (e *egress) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return e.open(ctx) })
	g.Go(func() error { return e.sweep(ctx) })
	err := g.Wait()
	e.closeAll()
	return err
}

// deliver takes a packet to the outside, which is borrowed. Only a flow's first packets, until its socket is open, take a lock.
func (e *egress) deliver(b []byte, h *packet.Parsed, o packet.Offload) {
	f := e.table.find(&h.Flow)
	if f == nil {
		if f = e.enter(b, h, o); f == nil {
			return
		}
	}
	if !f.acquire() {
		if e.wait(f, b, h, o) {
			return
		}
		if !f.acquire() { // it was closed this moment
			e.count.dropped.Add(1)
			return
		}
	}
	f.seen.Store(e.now.Load())
	e.sendOn(f, b, h, o)
	e.release(f)
}

// sendOn sends a packet and says what became of it.
func (e *egress) sendOn(f *egressFlow, b []byte, h *packet.Parsed, o packet.Offload) {
	e.setDontCut(f, !mayCut(b, h))
	errno := e.send(f, b, h, o)
	if errno == 0 {
		e.count.sent.Add(1)
		return
	}
	e.count.dropped.Add(1)
	if kind := refusedBy(errno); kind != 0 {
		e.tell(b, h, o, kind)
	}
}

// mayCut reports whether the kernel may cut a packet on its way, since its sender allows it or has done so: one that was put
// together is no fragment any more, and over IPv6 only larger than its way if it was.
func mayCut(b []byte, h *packet.Parsed) bool {
	if h.Version == 4 {
		return packet.MayFragment(b, h)
	}
	return h.Fragment
}

// refusedBy returns what a packet's sender is told of an error of a socket, 0 for nothing. What an ICMP message or a known MTU is
// behind, the error queue tells.
func refusedBy(errno unix.Errno) icmp.Kind {
	switch errno {
	case unix.ENETUNREACH:
		return icmp.NetUnreachable
	case unix.EHOSTUNREACH, unix.EHOSTDOWN:
		return icmp.HostUnreachable
	case unix.EACCES, unix.EPERM:
		return icmp.Prohibited
	}
	return 0
}

// tell has a packet's sender told an error, later: workers must not wait.
func (e *egress) tell(b []byte, h *packet.Parsed, o packet.Offload, kind icmp.Kind) {
	if len(e.told) == cap(e.told) {
		return
	}
	select {
	case e.told <- refusal{queue(b, h, o), icmp.Error{Kind: kind}}:
	default:
	}
}

// queue copies a packet.
func queue(b []byte, h *packet.Parsed, o packet.Offload) queued {
	return queued{append([]byte(nil), b[:h.Len]...), *h, o}
}

// remove ends a flow.
func (e *egress) remove(f *egressFlow) {
	e.table.mu.Lock()
	in := e.table.removeLocked(f)
	e.table.mu.Unlock()
	if in {
		e.shut(f)
	}
}

// shut closes the socket of a flow that is not in the table any more, as soon as nobody uses it.
func (e *egress) shut(f *egressFlow) {
	f.mu.Lock()
	was := f.state
	f.state = closed
	for i := range f.waiting {
		e.waiting.Add(-int64(len(f.waiting[i].b)))
	}
	f.waiting = nil
	f.mu.Unlock()
	if was == open {
		e.release(f)
	}
}

// release ends what acquire began.
func (e *egress) release(f *egressFlow) {
	if f.refs.Add(-1) == 0 {
		e.loop.remove(f.fd, f.token)
		_ = unix.Close(f.fd)
	}
}

// sweep ends flows that are idle, until ctx ends.
func (e *egress) sweep(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for seconds := 1; ; seconds++ {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			e.now.Store(1 + uint32(now.Sub(e.started)/time.Second))
		}
		if seconds%int(sweepEvery/time.Second) == 0 {
			e.sweepIdle()
		}
	}
}

func (e *egress) sweepIdle() {
	now := e.now.Load()
	var idle []*egressFlow
	e.table.mu.Lock()
	for _, f := range e.table.all {
		if e.isIdle(f, now) {
			idle = append(idle, f)
		}
	}
	e.table.mu.Unlock()
	for _, f := range idle {
		e.remove(f)
	}
}

func (e *egress) isIdle(f *egressFlow, now uint32) bool {
	most := e.idle
	if f.answered.Load() {
		most = e.answered
	}
	return time.Duration(int32(now-f.seen.Load()))*time.Second > most
}

func (e *egress) forget(pod netip.Addr) {
	for _, f := range e.table.ofPod(pod) {
		e.remove(f)
	}
}

func (e *egress) closeAll() {
	e.table.mu.Lock()
	all := append([]*egressFlow(nil), e.table.all...)
	e.table.mu.Unlock()
	for _, f := range all {
		e.remove(f)
	}
}

// clock returns the time since the start.
func (e *egress) clock() time.Duration { return time.Since(e.started) }

func (e *egress) stats() FlowStats {
	return FlowStats{
		Open: e.table.count(), Opened: e.count.opened.Load(), Evicted: e.count.evicted.Load(), Failed: e.count.failed.Load(),
		Sent: e.count.sent.Load(), Received: e.count.received.Load(), Dropped: e.count.dropped.Load(), Told: e.count.told.Load(),
	}
}

// limitFlows returns how many flows of a kind there may be, at most wanted: each takes a descriptor.
func limitFlows(wanted int) int {
	var files unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &files) != nil || files.Cur > math.MaxInt32 {
		return wanted
	}
	return min(wanted, max(int(files.Cur)/2, 16))
}
