package flow

import (
	"net/netip"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/middleway-net/middleway/stack/packet"
)

// entry is one direction of a flow as it lies in the mapped file: 128 bytes, two cache lines, no pointers.
//
// version is even while the entry is stable and odd while it is being written. It only ever grows, also when the entry is
// freed and used again, so that a stale copy is always noticed. After a kill -9 an odd version marks an entry torn in the
// middle of a write.
type entry struct {
	version    atomic.Uint32
	seen       atomic.Uint32 // second of the last packet, on the clock of Table.now
	state      atomic.Uint32 // bits below
	twin       atomic.Uint32 // Ref of the other direction; the entry itself if there is none
	flow       packet.Flow
	translated packet.Flow // as what packets leave; zero if as they came
	peer       [16]byte
	attachment uint32
	generation uint32
	created    uint32
	action     Action
	reason     packet.DropReason
	_          [entrySize - 126]byte
}

// Bits of entry.state. They are read without the lock of the entry's shard when its twin is looked at.
const (
	used    = 1 << iota
	seenOne // a packet came in this direction
	fin     // TCP: this direction was closed
	reset   // TCP: reset, by whichever side
	opener  // this direction opened the flow
	ended   // TCP: closed by both sides
	outside // a client outside the cluster opened the flow: both directions
)

const entrySize = 128

// The layout is part of the file's format: a change of size or order needs a new layoutVersion.
var _ [entrySize]byte = [unsafe.Sizeof(entry{})]byte{}

func (e *entry) is(bit uint32) bool { return e.state.Load()&bit != 0 }

// answersOutside reports whether it is the direction of the replies to a client outside.
func (e *entry) answersOutside() bool { return e.state.Load()&(outside|opener) == outside }

// write runs f on the entry between two versions, so that copies become stale and a torn write is seen.
// Precondition: the entry's shard is locked.
func (e *entry) write(f func()) {
	v := e.version.Load() | 1
	e.version.Store(v)
	f()
	e.version.Store(v + 1)
}

func (e *entry) setVerdict(v Verdict) {
	e.action, e.reason, e.attachment = v.Action, v.Reason, v.Attachment
	e.peer = [16]byte{}
	if v.Peer.IsValid() {
		e.peer = v.Peer.As16()
	}
}

func (e *entry) verdict() Verdict {
	v := Verdict{Action: e.action, Reason: e.reason, Attachment: e.attachment}
	if e.action == ToPeer {
		v.Peer = netip.AddrFrom16(e.peer).Unmap()
	}
	return v
}

func (e *entry) copy(ref Ref) Copy {
	return Copy{
		Flow: e.flow, Verdict: e.verdict(), Generation: e.generation,
		ref: ref, version: e.version.Load(), seen: e.seen.Load(),
		Translated: e.translated,
	}
}

func (e *entry) translates() bool { return !e.translated.IsZero() }

// leavesAs returns the flow of the packets as they leave.
func (e *entry) leavesAs() packet.Flow {
	if e.translates() {
		return e.translated
	}
	return e.flow
}

// mirrors reports whether the entry is its own other direction. It needs the shard locked.
func (e *entry) mirrors() bool {
	leavesAs := e.leavesAs()
	return leavesAs.Reverse() == e.flow
}

// Lifetimes of an idle flow. An established TCP connection is kept longer than the default keep-alive of two hours (RFC
// 5382, REQ-5); a UDP flow that was answered for three minutes, one that was not for half a minute (RFC 4787, REQ-5, asks
// for two at least where ports are translated).
const (
	tcpEstablished = 2*time.Hour + 10*time.Minute
	tcpOpening     = 1 * time.Minute
	tcpClosing     = 2 * time.Minute // both sides closed: twice the maximum segment lifetime (RFC 9293, section 3.4.1)
	tcpReset       = 10 * time.Second
	udpAnswered    = 3 * time.Minute
	udpOneWay      = 30 * time.Second
	otherIdle      = 30 * time.Second
)

// idleFor returns how long ago a flow with directions e and twin (nil if it was evicted) had its last packet. The later one
// of the two counts, so that a one-way download keeps the quiet direction alive. A worker notes a packet without a lock:
// its second may be ahead of now.
func idleFor(e, twin *entry, now uint32) time.Duration {
	idle := int32(now - e.seen.Load())
	if twin != nil {
		idle = min(idle, int32(now-twin.seen.Load()))
	}
	return time.Duration(max(idle, 0)) * time.Second
}

// lifetime returns how long a flow with directions e and twin (nil if it was evicted) is kept after its last packet.
func lifetime(e, twin *entry) time.Duration {
	answered := twin != nil && twin.is(seenOne) && e.is(seenOne)
	switch e.flow.Proto() {
	case packet.TCP, packet.SCTP:
		switch {
		case e.is(reset):
			return tcpReset
		case e.is(ended):
			return tcpClosing
		case answered:
			return tcpEstablished
		}
		return tcpOpening
	case packet.UDP:
		if answered {
			return udpAnswered
		}
		return udpOneWay
	}
	return otherIdle
}
