package lab

import (
	"container/heap"
	"sync"
	"time"
)

// schedule hands out frames when they are due, those due at the same time in the order in which they were added.
type schedule struct {
	wake chan struct{} // one slot: something changed that run must look at

	mu     sync.Mutex
	frames frameHeap
	added  uint64
	closed bool
}

func newSchedule() *schedule { return &schedule{wake: make(chan struct{}, 1)} }

// add schedules a frame, which is the schedule's until run hands it out.
func (s *schedule) add(f *frame) {
	s.mu.Lock()
	s.added++
	f.order = s.added
	heap.Push(&s.frames, f)
	first := s.frames[0] == f
	s.mu.Unlock()
	if first {
		s.poke()
	}
}

// close ends run; frames still in the schedule are dropped.
func (s *schedule) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.poke()
}

func (s *schedule) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run calls out with each frame when it is due, until close.
func (s *schedule) run(out func(*frame)) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		f, wait, ok := s.next(time.Now())
		switch {
		case !ok:
			return
		case f != nil:
			out(f)
			continue
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-s.wake:
		}
	}
}

// next takes the first frame if it is due, else it says how long that is not the case; ok is false after close.
func (s *schedule) next(now time.Time) (f *frame, wait time.Duration, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, 0, false
	case len(s.frames) == 0:
		return nil, time.Hour, true // add wakes us
	}
	if wait := s.frames[0].due.Sub(now); wait > 0 {
		return nil, wait, true
	}
	return heap.Pop(&s.frames).(*frame), 0, true
}

// frameHeap implements heap.Interface.
type frameHeap []*frame

func (h frameHeap) Len() int      { return len(h) }
func (h frameHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h frameHeap) Less(i, j int) bool {
	if !h[i].due.Equal(h[j].due) {
		return h[i].due.Before(h[j].due)
	}
	return h[i].order < h[j].order
}
func (h *frameHeap) Push(x any) { *h = append(*h, x.(*frame)) }
func (h *frameHeap) Pop() any {
	last := len(*h) - 1
	f := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return f
}
