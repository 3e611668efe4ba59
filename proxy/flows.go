package proxy

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/middleway-net/middleway/stack/packet"
)

// egressFlow is a conversation of a pod with somebody outside, over a connected socket of its own.
type egressFlow struct {
	flow     packet.Flow // as the pod sends
	next     atomic.Pointer[egressFlow]
	seen     atomic.Uint32 // second of the last packet, on egress.now
	answered atomic.Bool
	noTrains atomic.Bool // the way does not take trains
	dontCut  atomic.Bool // the socket is set so that IPv4 packets have DF
	ttl, tos uint8       // as the socket is set

	refs  atomic.Int32 // users of the socket, who may not find it closed; 0: it is not open
	fd    int          // valid while there are refs
	token token

	index int  // in flowTable.all; guarded by flowTable.mu
	gone  bool // guarded by flowTable.mu

	mu      sync.Mutex // guards what follows, and the beginning of refs
	waiting []queued   // until the socket is open
	state   state
}

// state is how far a flow's socket is.
type state uint8

const (
	opening state = iota
	open
	closed
)

// queued is a packet that waits for its flow's socket.
type queued struct {
	b []byte
	h packet.Parsed
	o packet.Offload
}

// acquire keeps the flow's socket open until release. It is false if it is not open.
func (f *egressFlow) acquire() bool {
	for {
		n := f.refs.Load()
		if n == 0 {
			return false
		}
		if f.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// ended reports whether the flow is over.
func (f *egressFlow) ended() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state == closed
}

// isWith reports whether an address and port, 0 for an echo, is the flow's other end.
func (f *egressFlow) isWith(other netip.AddrPort) bool {
	return other.Addr() == f.flow.Dst() && (f.flow.Proto() != packet.UDP || other.Port() == f.flow.DstPort())
}

// flowTable finds flows by their tuples: without a lock, by chains that only change under one.
type flowTable struct {
	seed    uint64
	buckets []atomic.Pointer[egressFlow]

	mu   sync.Mutex // guards what follows, and changes of chains
	all  []*egressFlow
	pods map[packet.AddrKey]int // how many each has
	hand int                    // where the search for one that can go begins
}

// init makes room for about n flows.
func (t *flowTable) init(n int) {
	size := 64
	for size < n {
		size *= 2
	}
	t.seed, t.buckets, t.pods = rand.Uint64(), make([]atomic.Pointer[egressFlow], size), map[packet.AddrKey]int{}
}

func (t *flowTable) bucket(f *packet.Flow) *atomic.Pointer[egressFlow] {
	return &t.buckets[f.Hash(t.seed)&uint64(len(t.buckets)-1)]
}

// find returns a flow, or nil.
func (t *flowTable) find(key *packet.Flow) *egressFlow {
	f := t.bucket(key).Load()
	for f != nil && f.flow != *key {
		f = f.next.Load()
	}
	return f
}

// insertLocked adds a flow, of which there is none in the table.
func (t *flowTable) insertLocked(f *egressFlow) {
	head := t.bucket(&f.flow)
	f.next.Store(head.Load())
	head.Store(f)
	f.index = len(t.all)
	t.all = append(t.all, f)
	t.pods[f.flow.SrcKey()]++
}

// removeLocked takes a flow out and reports whether it was in.
func (t *flowTable) removeLocked(f *egressFlow) bool {
	if f.gone {
		return false
	}
	f.gone = true
	at := t.bucket(&f.flow)
	for at.Load() != f {
		at = &at.Load().next
	}
	at.Store(f.next.Load()) // f still leads on those who stand at it
	last := len(t.all) - 1
	t.all[f.index] = t.all[last]
	t.all[f.index].index = f.index
	t.all[last] = nil
	t.all = t.all[:last]
	pod := f.flow.SrcKey()
	if t.pods[pod]--; t.pods[pod] == 0 {
		delete(t.pods, pod)
	}
	return true
}

// candidates is how many flows are compared when one has to go.
const candidates = 16

// worstLocked returns the flow that is missed least, of a few that it looks at: one that was never answered, else the one idle
// longest. It has a socket. If pod is not nil, it is that pod's. It is nil if there is none.
func (t *flowTable) worstLocked(pod *packet.AddrKey) *egressFlow {
	var worst *egressFlow
	for seen, steps := 0, 0; seen < candidates && steps < len(t.all); steps++ {
		t.hand = (t.hand + 1) % len(t.all)
		f := t.all[t.hand]
		if f.refs.Load() == 0 || pod != nil && !f.flow.From(*pod) {
			continue
		}
		seen++
		if worst == nil || f.worse(worst) {
			worst = f
		}
	}
	return worst
}

func (f *egressFlow) worse(other *egressFlow) bool {
	if a, b := f.answered.Load(), other.answered.Load(); a != b {
		return b
	}
	return int32(f.seen.Load()-other.seen.Load()) < 0
}

// ofPod returns a pod's flows.
func (t *flowTable) ofPod(pod netip.Addr) (flows []*egressFlow) {
	key := packet.KeyOf(pod)
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range t.all {
		if f.flow.From(key) {
			flows = append(flows, f)
		}
	}
	return flows
}

func (t *flowTable) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.all)
}
