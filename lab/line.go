package lab

import (
	"sync"
	"time"
)

// Counters counts the frames of one direction of a Link.
type Counters struct {
	Frames     uint64 // that the sender handed over for this receiver
	Cut        uint64 // of these, dropped by a partition
	Lost       uint64 // dropped by Faults.Loss
	TooLong    uint64 // dropped by Faults.MTU
	OfTrains   uint64 // dropped by Faults.NoTrains
	Reordered  uint64 // held back
	Duplicated uint64 // delivered twice
	Corrupted  uint64 // delivered with a flipped bit
	Marked     uint64 // delivered with a mark of congestion
	Refused    uint64 // deliveries that the receiver's device did not take, because it was down
}

// line is one direction between two ports: it decides about each frame and keeps order. It knows neither devices nor
// timers: it is told the time and appends what is to be delivered when.
type line struct {
	pool *framePool
	to   int // number of the receiving port

	mu       sync.Mutex
	dice     *dice // nil without faults
	cut      bool
	held     []heldFrame
	last     time.Time // due time of the latest frame passed on; later frames are not due before it
	waiting  int       // frames in the schedule
	alarm    bool      // a reminder to expire held frames is in the schedule
	counters Counters
}

// heldFrame is a frame that others overtake.
type heldFrame struct {
	frame  *frame
	more   int       // this many frames still overtake it
	latest time.Time // when it passes in any case
}

// idle reports whether a frame can be delivered right away as it is, and counts it if so.
func (l *line) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dice != nil || l.cut || l.waiting > 0 || len(l.held) > 0 {
		return false
	}
	l.counters.Frames++
	return true
}

// pass decides about a frame, which is borrowed, and appends copies to out, in the order of delivery and with due times.
// They are the caller's.
func (l *line) pass(b []byte, now time.Time, out []*frame) []*frame {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counters.Frames++
	v := decision{corrupt: -1}
	if l.dice != nil {
		v = l.dice.next(len(b))
	}
	switch {
	case l.cut:
		l.counters.Cut++
		return out
	case v.lose:
		l.counters.Lost++
		return out
	}
	marked := v.mark && markable(b)
	if marked {
		l.counters.Marked++
	}
	if l.dice != nil && l.unfitLocked(b) {
		return out
	}
	copies := 1
	if v.duplicate {
		l.counters.Duplicated++
		copies = 2
	}
	if v.corrupt >= 0 {
		l.counters.Corrupted++
	}
	if v.hold > 0 {
		l.counters.Reordered++
	}
	for range copies {
		f := l.pool.get(b)
		f.line, f.delay = l, v.delay
		if marked {
			mark(f.bytes)
		}
		if v.corrupt >= 0 {
			f.bytes[v.corrupt/8] ^= 1 << (v.corrupt % 8)
		}
		if v.hold > 0 {
			l.held = append(l.held, heldFrame{f, v.hold, now.Add(holdTime)})
			continue
		}
		out = l.emitLocked(f, now, out)
	}
	if v.hold == 0 {
		out = l.releaseLocked(now, true, out)
	}
	return out
}

// unfitLocked reports whether the way does not take a frame because of what it is, and counts it.
func (l *line) unfitLocked(b []byte) bool {
	f := &l.dice.faults
	switch {
	case f.MTU > 0 && len(b) > ethernetHeader+f.MTU:
		l.counters.TooLong++
	case f.NoTrains && ofTrain(b):
		l.counters.OfTrains++
	default:
		return false
	}
	return true
}

// expire answers the alarm: it appends the held frames whose time has come.
func (l *line) expire(now time.Time, out []*frame) []*frame {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.alarm = false
	return l.releaseLocked(now, false, out)
}

// releaseLocked appends the held frames that enough others have overtaken, or that were held long enough.
func (l *line) releaseLocked(now time.Time, overtaken bool, out []*frame) []*frame {
	rest := l.held[:0]
	for _, h := range l.held {
		if overtaken {
			h.more--
		}
		if h.more > 0 && now.Before(h.latest) {
			rest = append(rest, h)
			continue
		}
		out = l.emitLocked(h.frame, now, out)
	}
	clear(l.held[len(rest):])
	l.held = rest
	return out
}

// emitLocked appends a frame with its due time, which is never before that of the frame before.
func (l *line) emitLocked(f *frame, now time.Time, out []*frame) []*frame {
	f.due = now.Add(f.delay)
	if f.due.Before(l.last) {
		f.due = l.last
	}
	l.last = f.due
	return append(out, f)
}

// wait reports whether a frame from pass or expire must go through the schedule, because it is not due or others of
// the line are waiting there; the schedule calls delivered for it.
func (l *line) wait(f *frame, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting == 0 && !f.due.After(now) {
		return false
	}
	l.waiting++
	return true
}

// delivered notes that a frame of the schedule is out.
func (l *line) delivered() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting--
}

// refused notes that the receiver's device did not take a frame.
func (l *line) refused() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counters.Refused++
}

// needsAlarm reports whether expire must be called after holdTime and nobody has taken care of it yet.
func (l *line) needsAlarm() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.alarm || len(l.held) == 0 {
		return false
	}
	l.alarm = true
	return true
}

// setFaults replaces the faults and starts their decisions anew.
func (l *line) setFaults(f Faults, direction uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dice = nil
	if f.any() {
		l.dice = newDice(f, direction)
	}
}

func (l *line) setCut(cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = cut
}

func (l *line) read() Counters {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counters
}

// frame is one Ethernet frame on its way, or, without bytes, a reminder to expire its line's held frames.
type frame struct {
	bytes []byte
	line  *line
	delay time.Duration // decided when it came in
	due   time.Time     // set when it is passed on
	order uint64        // of arrival in the schedule
}

// framePool lends frames, so that faults cost no allocation per frame.
type framePool struct{ frames sync.Pool }

// get returns a frame with a copy of b; put gives it back.
func (p *framePool) get(b []byte) *frame {
	f, _ := p.frames.Get().(*frame)
	if f == nil {
		f = &frame{}
	}
	f.bytes = append(f.bytes[:0], b...)
	return f
}

func (p *framePool) put(f *frame) { p.frames.Put(f) }
