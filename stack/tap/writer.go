package tap

import (
	"sync"
	"time"

	"github.com/middleway-net/middleway/stack/packet"
)

// Writers are one goroutine's ends of the taps that are in use; nil if none is. Its methods are for that goroutine.
type Writers []*Writer

// Writer is one goroutine's end of one tap.
type Writer struct {
	filter *Filter
	snap   int // bytes of each packet that are kept
	ring

	current current  // the packet under way
	outer   current  // the one during which Nest began
	first   current  // of the train
	train   []uint64 // records of the packets that wait to go on as one

	losing map[Place]uint64 // lost since the last Publish that could tell

	mu   sync.Mutex // guards lost, for moments
	lost map[Place]uint64
}

// current is what is known of a packet.
type current struct {
	number uint64 // of its record
	ok     bool   // it has one: it is wanted and was not lost
	at     Place
	judged Judgement
}

// Packet is a packet as it is copied.
type Packet struct {
	// P is what could be read of its headers, and Offload what is unfinished in it. Borrowed.
	P       *packet.Parsed
	Offload packet.Offload
	// Head, Body and More are its bytes, one behind the other. Borrowed.
	Head, Body []byte
	More       [][]byte
	// Error, Late, Bare and Message are as in Record.
	Error, Late, Bare, Message bool
}

func (p *Packet) length() int {
	n := len(p.Head) + len(p.Body)
	for _, m := range p.More {
		n += len(m)
	}
	return n
}

func (p *Packet) copyTo(room []byte) {
	n := copy(room, p.Head)
	n += copy(room[n:], p.Body)
	for _, m := range p.More {
		n += copy(room[n:], m)
	}
}

// Enter notes a packet where the node takes it, before it is edited. What is told next is about it.
func (ws Writers) Enter(at Place, p Packet) {
	for _, w := range ws {
		w.current = current{at: at}
		w.current.number, w.current.ok = w.add(&at, In, &p)
	}
}

// Judge notes where the packet under way goes, and why.
func (ws Writers) Judge(j Judgement) {
	for _, w := range ws {
		w.current.judged = j
	}
}

// Forwarded notes that the packet under way went on, or n pieces of it.
func (ws Writers) Forwarded(n int) { ws.decide(Forwarded, packet.Kept, n) }

// Dropped notes that the packet under way was dropped, or n pieces of it.
func (ws Writers) Dropped(r packet.DropReason, n int) { ws.decide(Dropped, r, n) }

// Held notes that the packet under way waits for another one.
func (ws Writers) Held() { ws.decide(Held, packet.Kept, 0) }

// Taken notes that the packet under way was a message to this node.
func (ws Writers) Taken() { ws.decide(Taken, packet.Kept, 0) }

func (ws Writers) decide(v Verdict, r packet.DropReason, n int) {
	for _, w := range ws {
		if !w.current.ok {
			continue
		}
		rec := w.slot(w.current.number)
		if rec.Verdict != None && (rec.Verdict != v || rec.Reason != r) {
			if rec = w.again(rec); rec == nil { // of its pieces each may have a verdict of its own
				continue
			}
		}
		rec.Verdict, rec.Reason, rec.Judgement = v, r, w.current.judged
		rec.Packets += n
	}
}

// again makes a second record of the packet under way, or returns nil if there is no room.
func (w *Writer) again(first *Record) *Record {
	copied, data := *first, w.data(first)
	number, room, ok := w.reserve(len(data))
	if !ok {
		w.lose(&copied.At)
		w.current.ok = false
		return nil
	}
	copy(room, data)
	rec := w.slot(number)
	copied.begin, copied.end = rec.begin, rec.end
	copied.Verdict, copied.Reason, copied.Packets, copied.Answer = None, packet.Kept, 0, 0
	*rec = copied
	w.current.number = number
	return rec
}

// Answered notes which ICMP error the source of the packet under way was told.
func (ws Writers) Answered(kind uint8) {
	for _, w := range ws {
		if w.current.ok {
			w.slot(w.current.number).Answer = kind
		}
	}
}

// Nest begins, and Unnest ends, what is noted of another packet while one is under way. There is one level.
func (ws Writers) Nest() {
	for _, w := range ws {
		w.outer = w.current
	}
}

// Unnest ends what Nest began.
func (ws Writers) Unnest() {
	for _, w := range ws {
		w.current = w.outer
	}
}

// StartTrain makes the packet under way the first of a train, and Join a further one of it. They get their verdicts by
// EndTrain.
func (ws Writers) StartTrain() {
	for _, w := range ws {
		w.train, w.first = w.train[:0], w.current
	}
	ws.Join()
}

// Join adds the packet under way to the train.
func (ws Writers) Join() {
	for _, w := range ws {
		if w.current.ok {
			w.train = append(w.train, w.current.number)
			w.current.ok = false
		}
	}
}

// EndTrain notes what became of the packets of the train: each was forwarded, or dropped if there is a reason.
func (ws Writers) EndTrain(r packet.DropReason) {
	for _, w := range ws {
		for _, number := range w.train {
			rec := w.slot(number)
			rec.Verdict, rec.Reason, rec.Packets, rec.Judgement = Forwarded, r, 1, w.first.judged
			if r != packet.Kept {
				rec.Verdict = Dropped
			}
		}
		w.train = w.train[:0]
	}
}

// Leave notes a packet as it goes out. key, if it is not 0, is by what Fail finds it.
func (ws Writers) Leave(at Place, p Packet, key uint64) {
	for _, w := range ws {
		w.leave(&at, &w.current.at, &p, key)
	}
}

// LeaveTrain notes the train as one packet that goes out.
func (ws Writers) LeaveTrain(at Place, p Packet) {
	for _, w := range ws {
		w.leave(&at, &w.first.at, &p, 0)
	}
}

func (w *Writer) leave(at, from *Place, p *Packet, key uint64) {
	number, ok := w.add(at, Out, p)
	if !ok {
		return
	}
	rec := w.slot(number)
	rec.Verdict, rec.From, rec.key = Sent, *from, key
}

// Refuse notes a packet that should go out and is dropped there.
func (ws Writers) Refuse(at Place, p Packet, r packet.DropReason) {
	for _, w := range ws {
		if number, ok := w.add(&at, Out, &p); ok {
			w.slot(number).drop(r, w.current.at)
		}
	}
}

func (rec *Record) drop(r packet.DropReason, from Place) {
	rec.Verdict, rec.Reason, rec.Packets, rec.From = Dropped, r, 1, from
}

// Fail notes that packets which left in this batch did not get out after all: n of them, by their keys from first on.
func (ws Writers) Fail(first uint64, n int, r packet.DropReason) {
	for _, w := range ws {
		for number := w.published.Load(); number < w.next; number++ {
			if rec := w.slot(number); rec.key >= first && rec.key < first+uint64(n) {
				rec.drop(r, rec.From)
			}
		}
	}
}

// Publish ends a batch: what was noted in it can be read, and does not change any more.
func (ws Writers) Publish() {
	for _, w := range ws {
		w.current.ok = false
		w.publish()
		if len(w.losing) > 0 && w.mu.TryLock() {
			for at, n := range w.losing {
				w.lost[at] += n
			}
			w.mu.Unlock()
			clear(w.losing)
		}
	}
}

// add makes a record without a verdict, if the packet is wanted and there is room.
func (w *Writer) add(at *Place, d Direction, p *Packet) (number uint64, ok bool) {
	if !w.filter.takes(at, p.P) {
		return 0, false
	}
	length := p.length()
	number, room, ok := w.reserve(min(length, w.snap))
	if !ok {
		w.lose(at)
		return 0, false
	}
	p.copyTo(room)
	rec := w.slot(number)
	rec.Time, rec.At, rec.Direction, rec.Length = time.Now(), *at, d, length
	rec.Version, rec.Flags, rec.HasPorts, rec.Flow = p.P.Version, p.P.Flags, hasPorts(p.P), p.P.Flow
	rec.Error, rec.Late, rec.Bare, rec.Message = p.Error, p.Late, p.Bare, p.Message
	if p.Offload.GSO != packet.GSONone {
		rec.GSO, rec.Segment, rec.Payload = p.Offload.GSO, int(p.Offload.Size), length-p.P.Payload
	}
	return number, true
}

// lose counts a packet for which there was no room, by its interface.
func (w *Writer) lose(at *Place) { w.losing[Place{Layer: at.Layer, Name: at.Name}]++ }
