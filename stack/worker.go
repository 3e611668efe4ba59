package stack

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/flow"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/tap"
)

// drainBudget is how many frames of one device a worker takes before it looks at the next: 16 super-packets are a
// megabyte, enough to fill a batch toward peers and little enough to be fair.
const drainBudget = 16

// Tokens of descriptors in a worker's poller; others are numbers of attachments.
const (
	tokenPort int32 = -1 - iota
	tokenWake
	tokenExit
)

// worker owns a queue of every device and a port of the tunnel, and runs each packet to its end.
type worker struct {
	forwarder
	id    int
	poll  poller
	exit  Exit        // nil: the way out has no part in the worker
	queue [][]watched // by number of the attachment: what this worker reads

	mu      sync.Mutex // guards calls, running and stopped
	calls   []func()
	running bool
	stopped bool
}

// watched is a queue that the worker reads.
type watched struct {
	att   *attachment
	queue Queue
}

func newWorker(s *Stack, id int, c Config) (*worker, error) {
	poll, err := newPoller(c.Spin)
	if err != nil {
		return nil, fmt.Errorf("make worker %d: %w", id, err)
	}
	w := &worker{id: id, poll: poll}
	w.forwarder.init(s, id, c.Ports)
	if err := w.openExit(c.Outside); err != nil {
		w.close()
		return nil, fmt.Errorf("make worker %d: %w", id, err)
	}
	if w.port == nil || w.port.FD() < 0 {
		return w, nil
	}
	if err := w.poll.add(w.port.FD(), tokenPort); err != nil {
		w.close()
		return nil, fmt.Errorf("watch the tunnel in worker %d: %w", id, err)
	}
	return w, nil
}

// openExit makes the worker's part of the way out, if that has one.
func (w *worker) openExit(o Outside) error {
	exits, ok := o.(Exits)
	if !ok {
		return nil
	}
	exit, err := exits.Exit(w.injectOwn)
	if err != nil {
		return err
	}
	w.exit, w.outside = exit, exit
	return w.poll.add(exit.FD(), tokenExit)
}

// close closes the worker's descriptors.
func (w *worker) close() {
	w.poll.close()
	if w.exit != nil {
		w.exit.Close()
	}
}

// injectOwn sends a packet of the node's own from within the worker, where nothing is done any more with the one under way.
func (w *worker) injectOwn(o packet.Offload, parts ...[]byte) {
	if b := w.gather(o, parts); b != nil {
		w.fromNode(b, o, originNode)
	}
}

// run waits for packets and forwards them until stop is called.
func (w *worker) run() error {
	w.mu.Lock()
	w.running = true
	w.mu.Unlock()
	defer w.end()
	for {
		events, err := w.poll.wait()
		if err != nil {
			return fmt.Errorf("wait in worker %d: %w", w.id, err)
		}
		w.begin()
		for i := range events {
			switch token := events[i].token(); token {
			case tokenWake:
				if w.answerCalls() {
					return nil
				}
				w.begin() // a call may have swapped the tables
			case tokenPort:
				w.receive()
			case tokenExit:
				w.exit.Ready()
			default:
				w.drain(token)
			}
		}
		if w.exit != nil {
			w.exit.Flush()
		}
		w.flush()
	}
}

// drain reads what the pod has sent, up to the budget.
func (w *worker) drain(token int32) {
	if int(token) >= len(w.queue) {
		return
	}
	for i := range w.queue[token] {
		r := &w.queue[token][i]
		for range drainBudget {
			b := w.pool.Get()
			n, err := r.queue.Read(b.Space())
			if err != nil {
				b.Release()
				if errors.Is(err, unix.EAGAIN) {
					break
				}
				if errors.Is(err, unix.EBADFD) {
					w.poll.remove(r.queue.FD())
					w.s.gone.tell(r.att)
					break
				}
				w.noteUnreadable(r.att)
				w.drop(packet.DropMalformed, 1) // a frame that the device could not describe
				continue
			}
			if n <= packet.VnetLen {
				w.noteUnreadable(r.att)
				w.refuse(b, packet.DropMalformed)
				continue
			}
			b.SetFrame(n)
			w.fromPod(r.att, b)
		}
	}
}

// watch makes the worker read its queues of an attachment: queue i belongs to worker i, where there are fewer queues than
// workers shifted by the attachment's number, so that single queues spread over the workers.
func (w *worker) watch(att *attachment) error {
	for len(w.queue) <= int(att.id) {
		w.queue = append(w.queue, nil)
	}
	shift := 0
	if len(att.queues) < len(w.s.workers) {
		shift = int(att.id)
	}
	for i, q := range att.queues {
		if (i+shift)%len(w.s.workers) != w.id {
			continue
		}
		if err := w.poll.add(q.FD(), int32(att.id)); err != nil {
			return err
		}
		w.queue[att.id] = append(w.queue[att.id], watched{att, q})
	}
	return nil
}

func (w *worker) unwatch(att *attachment) {
	if int(att.id) >= len(w.queue) {
		return
	}
	for _, r := range w.queue[att.id] {
		w.poll.remove(r.queue.FD())
	}
	w.queue[att.id] = nil
}

// answer returns nil when the worker has come round to its next batch, which shows that it still does, or an error when ctx
// ends before that.
func (w *worker) answer(ctx context.Context) error {
	answered := make(chan struct{})
	w.mu.Lock()
	w.calls = append(w.calls, func() { close(answered) })
	w.mu.Unlock()
	w.poll.wake()
	select {
	case <-answered:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("worker %d does not answer: %w", w.id, ctx.Err())
	}
}

// call runs f between two batches of the worker, or at once while the worker does not run, and returns what f returns.
func (w *worker) call(f func() error) (err error) {
	w.mu.Lock()
	if !w.running {
		defer w.mu.Unlock()
		return f()
	}
	done := make(chan struct{})
	w.calls = append(w.calls, func() {
		err = f()
		close(done)
	})
	w.mu.Unlock()
	w.poll.wake()
	<-done
	return err
}

// stop ends run.
func (w *worker) stop() {
	w.mu.Lock()
	w.stopped = true
	w.mu.Unlock()
	w.poll.wake()
}

func (w *worker) answerCalls() (stopped bool) {
	w.poll.clearWake()
	w.mu.Lock()
	calls := w.calls
	w.calls = nil
	stopped = w.stopped
	w.mu.Unlock()
	for _, f := range calls {
		f()
	}
	return stopped
}

// end leaves the worker in a state in which calls are answered by their callers.
func (w *worker) end() {
	if w.exit != nil {
		w.begin()
		w.exit.Stop()
	}
	w.flush()
	w.mu.Lock()
	w.running, w.stopped = false, false
	calls := w.calls
	w.calls = nil
	w.mu.Unlock()
	for _, f := range calls {
		f()
	}
}

// flows is what a forwarder does with the node's flow table beyond its cache.
type flows interface {
	Seed() uint64
	Peek(f packet.Flow) (flow.Copy, bool)
	Enter(p *flow.Pair) (flow.Copy, bool)
	Rejudge(c *flow.Copy, v flow.Verdict, generation uint32) (flow.Copy, bool)
	Renew(c *flow.Copy, forsaken bool) bool
	Opening(c *flow.Copy)
	Closing(c *flow.Copy, flags uint8)
	Recall(client packet.AddrKey, id uint64, within time.Duration) (addr packet.AddrKey, port uint16, ok bool)
	Remember(client packet.AddrKey, id uint64, addr packet.AddrKey, port uint16)
}

var (
	_ flows = (*flow.Table)(nil)
	_ flows = flow.Glance{} // of a trace
)

// forwarder is what forwards packets for one goroutine: a worker, or the node's netstack under a lock.
type forwarder struct {
	s     *Stack
	id    int
	port  Port // nil without a tunnel
	queue int  // which queue of a device it writes
	pool  packet.Pool
	flows flows
	cache *flow.Cache
	node  Node
	train packet.Train

	outside Outside    // nil without a way out
	outlet  attachment // outside as a device to which trains are written
	// Of the train:
	to         *attachment
	translates bool
	translated packet.Flow // as what it leaves; valid iff translates

	drops   packet.Drops
	moved   counters
	answers answerer
	piece   packet.Parsed // of a packet that goes on in pieces
	opening flow.Pair     // the flow that is being entered

	// Of the current batch:
	tables   *tables
	services *frontends
	now      uint32
	parsed   packet.Parsed
	tapped   *taps
	taps     tap.Writers // those of tapped that are this forwarder's; nil if nobody looks on
	record   *record     // of a tracer; nil in all others
	about    *flow.Copy  // of a packet without a flow: that which it tells of, or nil; valid until the next one
	quoted   flow.Copy   // what about points to

	deliver func(frame []byte, p *packet.Parsed, o packet.Offload)
}

func (f *forwarder) init(s *Stack, id int, ports []Port) {
	f.s, f.id, f.queue, f.node, f.outside = s, id, id, s.node, s.outside
	f.flows, f.cache = s.flows, flow.NewCache(s.flows)
	f.outlet = attachment{outside: true, tcp: true, queues: []Queue{outletQueue{f: f}}}
	if ports != nil {
		f.port = ports[id]
	}
	f.deliver = f.fromPeer
}

// begin starts a batch.
func (f *forwarder) begin() {
	f.tables, f.services, f.now = f.s.tables.Load(), f.s.services.Load(), f.cache.Now()
	if t := f.s.taps.Load(); t != f.tapped {
		f.useTaps(t)
	}
}

// flush ends a batch.
func (f *forwarder) flush() {
	if f.port != nil {
		f.port.Flush()
	}
	if f.taps != nil {
		f.taps.Publish()
	}
}

// drop counts n packets, the one under way or pieces of it, as dropped.
func (f *forwarder) drop(r packet.DropReason, n int) {
	f.drops.Add(r, n)
	if f.taps != nil {
		f.taps.Dropped(r, n)
	}
	if f.record != nil {
		f.record.dropped(r)
	}
}

// forwarded counts the packet under way, or a piece of it, of a length in bytes.
func (f *forwarder) forwarded(length int) {
	f.moved.add(1, length)
	if f.taps != nil {
		f.taps.Forwarded(1)
	}
}
