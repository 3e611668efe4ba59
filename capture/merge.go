package capture

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// Sink takes what was captured. Its methods are for one goroutine.
type Sink interface {
	// Start is called once for each node before everything else.
	Start(*Start) error
	// Names tells names that became known since.
	Names([]Name) error
	// Record takes a packet, after those from before it.
	Record(*Record) error
	// Flush hands on what was taken so far: it is called about ten times a second, and at the end.
	Flush() error
	// End is called at the end, for each node; lost are records, by their interfaces, nil where that is not known.
	End(node string, lost map[string]uint64) error
}

// Options bound a capture. The zero value has no bounds.
type Options struct {
	// Count is how many records end it.
	Count int
	// Problem is called with what goes wrong while others go on: a node that ended. Default: nothing is.
	Problem func(error)
	// Ended is called with nodes that ended their captures in order without being asked to, and why. Default: nothing is.
	Ended func(nodes []string, reason string)
}

// Totals is what a capture had.
type Totals struct {
	Records int
	Lost    uint64
}

// slack is how much later than its time a record may come: batches of workers last for microseconds, on a machine that has no
// time for them longer.
const slack = 50 * time.Millisecond

// flushEvery is how long what was captured waits to be shown.
const flushEvery = 100 * time.Millisecond

// patience is for how many times flushEvery others' records wait for a node that says nothing any more: one whose daemon is
// stopped, or has no time. A time counts if everything that came was taken, so that a slow sink makes no node silent.
const patience = 20

// togetherWait is how long others are waited for where a node has ended its capture, so that the end of a cluster is told once.
const togetherWait = time.Second

// stopWait bounds how long daemons have to end a capture in order.
const stopWait = 3 * time.Second

// arrived is a message of one of the streams, or why none comes any more.
type arrived struct {
	from *Stream
	m    Message
	err  error
}

// Merge hands the records of all streams to the sink, by their times, until ctx ends, all nodes have ended or the options' bounds are
// reached. It ends the streams.
func Merge(ctx context.Context, streams []*Stream, sink Sink, o Options) (Totals, error) {
	m := &merger{sink: sink, options: o, marks: map[*Stream]time.Time{}, silent: map[*Stream]int{}}
	if m.options.Problem == nil {
		m.options.Problem = func(error) {}
	}
	if m.options.Ended == nil {
		m.options.Ended = func([]string, string) {}
	}
	messages := make(chan arrived, 256)
	var reading sync.WaitGroup
	over := make(chan struct{})
	for _, s := range streams {
		m.marks[s] = time.Time{}
		reading.Go(func() { s.pass(messages, over) })
	}
	err := m.run(ctx, streams, messages)
	close(over)
	for _, s := range streams {
		err = errors.Join(err, s.Close())
	}
	reading.Wait()
	return m.totals, err
}

// pass passes the stream's messages on.
func (s *Stream) pass(to chan<- arrived, over <-chan struct{}) {
	for {
		m, err := s.Next()
		select {
		case to <- arrived{s, m, err}:
		case <-over:
			return
		}
		if err != nil || m.End != nil {
			return
		}
	}
}

// maxWaiting bounds the records that wait for those of other nodes.
const maxWaiting = 1 << 16

// ended is a node that ended, and why if that is still to be told.
type ended struct {
	node   string
	lost   map[string]uint64
	reason string
	at     time.Time
}

// merger puts records in order.
type merger struct {
	sink    Sink
	options Options
	totals  Totals
	waiting records
	came    uint64
	ended   []ended
	marks   map[*Stream]time.Time // of those that have not ended
	silent  map[*Stream]int       // times that it said nothing
}

func (m *merger) run(ctx context.Context, streams []*Stream, messages <-chan arrived) error {
	for _, s := range streams {
		if err := m.sink.Start(&s.Start); err != nil {
			return err
		}
	}
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	done := ctx.Done()
	var late <-chan time.Time
	stop := func() {
		done, late = nil, time.After(stopWait)
		for s := range m.marks {
			_ = s.Stop() // who does not hear of it is late
		}
	}
	for len(m.marks) > 0 && !m.full() {
		var err error
		select {
		case a := <-messages:
			err = m.take(a)
		case <-tick.C:
			if len(messages) == 0 {
				for s := range m.marks {
					m.silent[s]++
				}
			}
			m.tellEnded(time.Now().Add(-togetherWait))
			if err = m.release(m.oldest()); err == nil {
				err = m.sink.Flush()
			}
		case <-done:
			stop()
		case <-late:
			m.options.Problem(errors.New("not all nodes ended their capture in time: the last packets and the counts of lost ones may be missing"))
			clear(m.marks)
		}
		if err != nil {
			return err
		}
	}
	if err := m.release(time.Time{}); err != nil {
		return err
	}
	return m.end(messages)
}

// end lets nodes end in order whose packets are not wanted any more, for their counts.
func (m *merger) end(messages <-chan arrived) error {
	for s := range m.marks {
		_ = s.Stop()
	}
	for late := time.After(stopWait); len(m.marks) > 0; {
		select {
		case a := <-messages:
			if a.m.Record != nil {
				continue
			}
			if err := m.take(a); err != nil {
				return err
			}
		case <-late:
			clear(m.marks)
		}
	}
	m.tellEnded(time.Now())
	for _, e := range m.ended {
		if err := m.sink.End(e.node, e.lost); err != nil {
			return err
		}
	}
	return m.sink.Flush()
}

// tellEnded tells of nodes that have ended, if the first of them did so before a time: all of one reason at once.
func (m *merger) tellEnded(before time.Time) {
	var reasons []string
	nodes := map[string][]string{}
	due := false
	for _, e := range m.ended {
		if e.reason == "" {
			continue
		}
		due = due || !e.at.After(before)
		if nodes[e.reason] == nil {
			reasons = append(reasons, e.reason)
		}
		nodes[e.reason] = append(nodes[e.reason], e.node)
	}
	if !due {
		return
	}
	for i := range m.ended {
		m.ended[i].reason = ""
	}
	for _, reason := range reasons {
		slices.Sort(nodes[reason])
		m.options.Ended(nodes[reason], reason)
	}
}

// full reports whether as many records were shown as are wanted.
func (m *merger) full() bool { return m.options.Count > 0 && m.totals.Records >= m.options.Count }

// take takes a message.
func (m *merger) take(a arrived) error {
	node := a.from.Start.Node
	m.silent[a.from] = 0
	switch {
	case a.err != nil:
		delete(m.marks, a.from)
		if errors.Is(a.err, io.EOF) {
			a.err = errors.New("its daemon ended")
		}
		m.options.Problem(fmt.Errorf("%s: %w; its last packets and the count of lost ones may be missing", node, a.err))
		m.ended = append(m.ended, ended{node: node})
	case a.m.End != nil:
		delete(m.marks, a.from)
		for _, n := range a.m.End.Lost {
			m.totals.Lost += n
		}
		m.ended = append(m.ended, ended{node, a.m.End.Lost, a.m.End.Reason, time.Now()})
	case a.m.Record != nil:
		m.came++
		heap.Push(&m.waiting, waiting{a.m.Record, m.came})
		if len(m.waiting) > maxWaiting {
			return m.show()
		}
	case len(a.m.Names) > 0:
		return m.sink.Names(a.m.Names)
	case !a.m.Mark.IsZero():
		m.marks[a.from] = a.m.Mark
	}
	return nil
}

// oldest returns up to when all records are here, but for those of nodes that say nothing any more; the zero time if no node does.
func (m *merger) oldest() (t time.Time) {
	first := true
	for s, mark := range m.marks {
		if m.silent[s] > patience {
			continue
		}
		if mark = mark.Add(-slack); first || mark.Before(t) {
			t, first = mark, false
		}
	}
	return t
}

// release hands on the records from before a time; all for the zero time.
func (m *merger) release(before time.Time) error {
	for len(m.waiting) > 0 && !m.full() && (before.IsZero() || m.waiting[0].Time.Before(before)) {
		if err := m.show(); err != nil {
			return err
		}
	}
	return nil
}

// show hands on the oldest record.
func (m *merger) show() error {
	m.totals.Records++
	return m.sink.Record(heap.Pop(&m.waiting).(waiting).Record)
}

// waiting is a record that is not shown yet, and the how many-th it is that came.
type waiting struct {
	*Record
	came uint64
}

// records is a heap by time, and of one time in the order in which they came.
type records []waiting

func (r records) Len() int { return len(r) }
func (r records) Less(i, j int) bool {
	if !r[i].Time.Equal(r[j].Time) {
		return r[i].Time.Before(r[j].Time)
	}
	return r[i].came < r[j].came
}
func (r records) Swap(i, j int) { r[i], r[j] = r[j], r[i] }
func (r *records) Push(x any)   { *r = append(*r, x.(waiting)) }
func (r *records) Pop() any {
	old := *r
	last := old[len(old)-1]
	*r = old[:len(old)-1]
	return last
}
