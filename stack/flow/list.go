package flow

import (
	"iter"
	"time"

	"github.com/middleway-net/middleway/stack/packet"
)

// State is how far a flow has come.
type State uint8

// States.
const (
	Opened  State = iota // packets of one direction only so far
	Active               // answered; of TCP and SCTP: established
	Closing              // TCP: closed by one side or both
	Reset                // TCP: reset
)

// String returns the state's name.
func (s State) String() string {
	switch s {
	case Opened:
		return "opened"
	case Active:
		return "active"
	case Closing:
		return "closing"
	}
	return "reset"
}

// Listed is a live flow as it was at one moment, seen from the direction that opened it.
type Listed struct {
	// Flow is that of the opener's packets as they came, LeavesAs as they leave.
	Flow, LeavesAs packet.Flow
	Verdict        Verdict
	Generation     uint32
	State          State
	// Age is how long ago the flow was entered, Idle how long ago the last packet of either direction came; both to the second.
	Age, Idle time.Duration

	expired bool // it is past its lifetime, and only not swept yet
}

// Live walks over the flows that are not past their lifetimes, in no order. No lock is held while the loop's body runs.
func (t *Table) Live() iter.Seq[Listed] {
	return func(yield func(Listed) bool) {
		var found [ways]Listed
		for bucket := uint32(0); bucket <= t.mask; bucket++ {
			for _, l := range found[:t.listBucket(bucket, &found)] {
				if !l.expired && !yield(l) {
					return
				}
			}
		}
	}
}

// listBucket writes the flows that were opened by a direction in the bucket to found and returns how many there are.
func (t *Table) listBucket(bucket uint32, found *[ways]Listed) (n int) {
	s := t.lockOf(bucket)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := t.now()
	for i := range t.slots(bucket) {
		ref := t.ref(bucket, i)
		e := &t.entries[ref]
		if !e.is(used) || !e.is(opener) {
			continue
		}
		twin := t.twinOf(ref)
		idle := idleFor(e, twin, now)
		found[n] = Listed{
			Flow: e.flow, LeavesAs: e.leavesAs(), Verdict: e.verdict(), Generation: e.generation, State: stateOf(e, twin),
			Age: time.Duration(max(int32(now-e.created), 0)) * time.Second, Idle: idle, expired: idle > lifetime(e, twin),
		}
		n++
	}
	return n
}

func stateOf(e, twin *entry) State {
	switch {
	case e.is(reset):
		return Reset
	case e.is(fin) || twin != nil && twin.is(fin):
		return Closing
	case twin != nil && twin.is(seenOne):
		return Active
	}
	return Opened
}

// FreeIf frees both directions of the flows that gone chooses, and returns how many flows these were. It is asked about those past
// their lifetimes too, since a packet would bring them to life, and must not call the table.
func (t *Table) FreeIf(gone func(*Listed) bool) (freed int) {
	var found [ways]Listed
	for bucket := uint32(0); bucket <= t.mask; bucket++ {
		n := t.listBucket(bucket, &found)
		for i := range found[:n] {
			if gone(&found[i]) && t.freeBoth(&found[i].Flow, &found[i].LeavesAs) {
				freed++
			}
		}
	}
	return freed
}

// freeBoth frees the flow that was opened as f and leaves as another, unless it has changed meanwhile.
func (t *Table) freeBoth(f, leavesAs *packet.Flow) bool {
	reply, back := leavesAs.Reverse(), f.Reverse()
	b0, b1 := t.bucket(t.hash(*f)), t.bucket(t.hash(reply))
	t.lockBoth(b0, b1)
	defer t.unlockBoth(b0, b1)
	ref, ok := t.findIn(b0, f)
	if !ok || t.entries[ref].leavesAs() != *leavesAs {
		return false
	}
	t.free(ref)
	if twin, ok := t.findIn(b1, &reply); ok && t.entries[twin].leavesAs() == back {
		t.free(twin)
	}
	return true
}
