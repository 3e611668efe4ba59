package stack

import (
	"net/netip"
	"slices"

	"github.com/middleway-net/middleway/stack/fib"
	"github.com/middleway-net/middleway/stack/flow"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/tap"
)

// taps are those in use, an immutable set behind one atomic pointer. Each has a writer for every worker, one for the local
// worker, and one for fragments that are dropped while they wait.
type taps struct {
	all     []*tap.Tap
	writers []tap.Writers // by number of the forwarder, then that for fragments
}

func (s *Stack) newTaps(all []*tap.Tap) *taps {
	if len(all) == 0 {
		return nil
	}
	t := &taps{all: all, writers: make([]tap.Writers, len(s.workers)+2)}
	for i := range t.writers {
		for _, one := range all {
			t.writers[i] = append(t.writers[i], one.Writer(i))
		}
	}
	return t
}

// Tap returns a tap that sees each packet from now on, until Untap. It sets how many writers the tap has.
func (s *Stack) Tap(c tap.Config) *tap.Tap {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.Writers = len(s.workers) + 2
	t := tap.New(c)
	s.setTapsLocked(append(slices.Clone(s.tapsInUse()), t))
	return t
}

// Untap ends what Tap began. All that the tap saw can be read when it returns.
func (s *Stack) Untap(t *tap.Tap) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setTapsLocked(slices.DeleteFunc(slices.Clone(s.tapsInUse()), func(other *tap.Tap) bool { return other == t }))
}

func (s *Stack) tapsInUse() []*tap.Tap {
	if t := s.taps.Load(); t != nil {
		return t.all
	}
	return nil
}

// setTapsLocked returns when all write to the taps, and nobody to others.
func (s *Stack) setTapsLocked(all []*tap.Tap) {
	s.taps.Store(s.newTaps(all))
	s.settleLocked()
	s.fragmentsMu.Lock() // whoever held it may have written to the old ones
	defer s.fragmentsMu.Unlock()
}

// Attached is an attachment as others may know it.
type Attached struct {
	Name  string
	Host  bool
	Addrs []netip.Addr
}

// Attached returns the attachments that are not lost.
func (s *Stack) Attached() (all []Attached) {
	for _, a := range s.tables.Load().attachments {
		if a != nil && !a.lost {
			all = append(all, Attached{Name: a.name, Host: a.host, Addrs: a.addrs})
		}
	}
	return all
}

// useTaps makes the forwarder write to taps. It is called between two batches, or two parts of one.
func (f *forwarder) useTaps(t *taps) {
	if f.port != nil {
		f.port.Flush() // what is pending is the old taps' to be told of
	}
	f.taps.Publish()
	f.tapped, f.taps = t, nil
	if t != nil {
		f.taps = t.writers[f.id]
	}
	if f.port != nil {
		f.port.Tap(f.taps)
	}
}

// place is where an attachment's packets are seen.
func (a *attachment) place() tap.Place {
	switch {
	case a.host:
		return tap.Place{Layer: tap.Host}
	case a.outside:
		return tap.Place{Layer: tap.Outside}
	}
	return tap.Place{Layer: tap.Pod, Name: a.name}
}

// watched reports whether somebody looks on.
func (f *forwarder) watched() bool { return f.taps != nil || f.record != nil }

// noteJudged notes what was judged about a packet of flow fl.
func (f *forwarder) noteJudged(v flow.Verdict, to *packet.Flow, fl *packet.Flow) {
	if f.record != nil {
		f.record.judged(v, to, fl)
	}
	if f.taps == nil {
		return
	}
	var j tap.Judgement
	leaves := fl
	if to != nil {
		j.Translated, j.As = true, *to
		leaves = to
	}
	j.Route = f.tables.fib.Route(leaves.Dst()).Prefix
	switch v.Action {
	case flow.ToAttachment:
		j.To = f.tables.attachments[v.Attachment].place()
	case flow.ToPeer:
		j.To = tap.Place{Layer: tap.Tunnel, Peer: v.Peer}
	case flow.ToNode:
		j.To = tap.Place{Layer: tap.Gateway}
	case flow.ToOutside:
		j.To = tap.Place{Layer: tap.Outside}
	}
	f.taps.Judge(j)
}

// noteTrain notes what became of the train, and what was written.
func (f *forwarder) noteTrain(r packet.DropReason, frame []byte, more [][]byte) {
	f.taps.EndTrain(r)
	if r != packet.Kept {
		return
	}
	_, p := f.train.First()
	o, _ := packet.DecodeOffload(frame) // Finish wrote it
	f.taps.LeaveTrain(f.to.place(), tap.Packet{P: p, Offload: o, Body: frame[packet.VnetLen:], More: more})
}

// noteUnreadable notes a frame in which there is no packet.
func (f *forwarder) noteUnreadable(att *attachment) {
	if f.taps != nil {
		f.parsed = packet.Parsed{}
		f.taps.Enter(att.place(), tap.Packet{P: &f.parsed})
	}
}

// noteTooLong notes a packet of the node itself that no buffer holds.
func (f *forwarder) noteTooLong(parts [][]byte) {
	if f.taps != nil {
		f.parsed = packet.Parsed{}
		f.taps.Enter(tap.Place{Layer: tap.Gateway}, tap.Packet{P: &f.parsed, More: parts})
	}
}

// noteLate notes a fragment that has waited.
func (f *forwarder) noteLate(b []byte) {
	enterLate(f.taps, f.tables, b, &f.piece)
}

// noteLostFragment notes a fragment that waited in vain. Any goroutine may call it.
func (s *Stack) noteLostFragment(b []byte, r packet.DropReason) {
	if s.taps.Load() == nil {
		return // without the lock, for which all workers would wait
	}
	s.fragmentsMu.Lock()
	defer s.fragmentsMu.Unlock()
	t := s.taps.Load() // setTapsLocked waits for the lock after it has set others
	if t == nil {
		return
	}
	ws := t.writers[len(t.writers)-1]
	var p packet.Parsed
	enterLate(ws, s.tables.Load(), b, &p)
	ws.Dropped(r, 1)
	ws.Publish()
}

// enterLate notes a fragment where it came in: by its source, for it waited as a copy. p is scratch.
func enterLate(ws tap.Writers, t *tables, b []byte, p *packet.Parsed) {
	_ = packet.Parse(b, p) // it was kept before
	at := t.placeOf(p.Flow.Src())
	ws.Enter(at, tap.Packet{P: p, Body: b, Late: true, Bare: at.Layer == tap.Tunnel})
}

// placeOf is where packets of a source come in.
func (t *tables) placeOf(src netip.Addr) tap.Place {
	switch d := t.fib.Lookup(src); d.Kind {
	case fib.Attachment:
		return t.attachments[d.Attachment].place()
	case fib.Peer:
		return tap.Place{Layer: tap.Tunnel, Peer: d.Peer}
	case fib.Node:
		return tap.Place{Layer: tap.Gateway}
	}
	return tap.Place{Layer: tap.Outside}
}

// nodePlace is where a packet comes in that the netstack or the outside sent: the netstack also speaks for those outside whose
// connections it ends.
func (f *forwarder) nodePlace(p *packet.Parsed, from origin) tap.Place {
	if from == originOutside || f.tables.fib.Lookup(p.Flow.Src()).Kind != fib.Node {
		return tap.Place{Layer: tap.Outside}
	}
	return tap.Place{Layer: tap.Gateway}
}
