package perf

import (
	"context"
	"errors"
	"io"
	"time"
)

// margin is how long the client goes on after the time that counts, at most, if the server does not say that it has seen its end.
const margin = 500 * time.Millisecond

// run starts the load, joins what both ends count, and ends the load after the time that counts.
func (s *sender) run(ctx context.Context, ctl *control) (Result, error) {
	m := &meter{sender: s, plan: s.test.waits()}
	_ = ctl.conn.SetDeadline(time.Now().Add(s.test.WarmUp + s.test.Time + 2*patience))
	if err := ctl.send(message{Start: &struct{}{}}); err != nil {
		return Result{}, err
	}
	for i := range s.test.Streams {
		s.crew.start(func() error { return s.load(i) })
	}
	heard := listen(ctl)
	if err := m.run(ctx, heard); err != nil {
		_ = ctl.conn.SetDeadline(time.Unix(1, 0))
		for range heard { // until the listener has ended
		}
		return Result{}, err
	}
	if err := s.finish(ctl); err != nil {
		return Result{}, err
	}
	return m.result()
}

// finish ends the streams and waits until the server has ended the test, and is free for another.
func (s *sender) finish(ctl *control) error {
	if err := s.crew.stop(); err != nil {
		return err
	}
	if err := ctl.send(message{Done: &struct{}{}}); err != nil {
		return err
	}
	if _, err := ctl.receive(); err != io.EOF {
		return errors.Join(errors.New("the server did not end the test"), err)
	}
	return nil
}

// said is what the server says while the load runs.
type said struct {
	sample sample
	err    error
}

// listen passes on the server's samples, up to the last or an error.
func listen(ctl *control) <-chan said {
	heard := make(chan said, 1)
	go func() {
		defer close(heard)
		for {
			m, err := ctl.receive()
			if err == nil && m.Sample == nil {
				err = errors.New("the server does not say what it has counted")
			}
			if err != nil {
				heard <- said{err: err}
				return
			}
			heard <- said{sample: *m.Sample}
			if m.Sample.Last {
				return
			}
		}
	}()
	return heard
}

// meter joins what both ends count: the server what it received, the client what it downloaded and how long requests took.
type meter struct {
	*sender
	plan   []time.Duration // the waits before the samples
	theirs []sample
	own    []ownSample
	told   int // intervals that were passed on

	all        Histogram
	unanswered int64
}

// ownSample is what the client counted since the one before.
type ownSample struct {
	at       time.Time
	cpu      time.Duration // since the start of the process
	bytes    int64         // downloaded since the start of the test
	requests Result        // but for what the server counts
}

func (m *meter) run(ctx context.Context, heard <-chan said) error {
	next := time.NewTimer(m.plan[0])
	defer next.Stop()
	for len(m.own) < len(m.plan) || len(m.theirs) < len(m.plan) {
		select {
		case <-next.C:
			if len(m.own) == len(m.plan) {
				m.crew.interrupt()
				continue
			}
			m.take()
			wait := margin
			if len(m.own) < len(m.plan) {
				wait = m.plan[len(m.own)]
			}
			next.Reset(wait)
		case s := <-heard:
			switch {
			case s.err != nil:
				return s.err
			case s.sample.Last != (len(m.theirs) == len(m.plan)-1):
				return errors.New("the server counts other intervals than were asked for")
			}
			if m.theirs = append(m.theirs, s.sample); s.sample.Last {
				heard = nil
			}
		case <-m.crew.failed:
			return m.crew.stop()
		case <-ctx.Done():
			return ctx.Err()
		}
		m.tell()
	}
	return nil
}

// take takes the client's own sample.
func (m *meter) take() {
	o := ownSample{at: time.Now(), cpu: cpuTime()}
	for i := range m.counters {
		o.bytes += m.counters[i].bytes.Load()
	}
	times, unanswered := m.times.reset()
	if len(m.own) > 0 { // else it is the warm-up's
		o.requests.addTimes(&times, unanswered)
		m.all.Merge(&times)
		m.unanswered += unanswered
	}
	m.own = append(m.own, o)
	switch {
	case len(m.own) == 1 && m.client.Begin != nil:
		m.client.Begin()
	case len(m.own) == len(m.plan) && m.client.End != nil:
		m.client.End()
	}
}

// tell passes on the intervals that both ends have counted.
func (m *meter) tell() {
	for m.client.Interval != nil && m.told+1 < min(len(m.own), len(m.theirs)) {
		r := m.own[m.told+1].requests
		m.join(&r, m.told, m.told+1)
		m.client.Interval(m.told, r)
		m.told++
	}
}

// join adds to a result what was counted from sample i to j, but for the times of requests.
func (m *meter) join(r *Result, i, j int) {
	from, to := m.theirs[i], m.theirs[j]
	r.Elapsed = to.At - from.At
	r.Bytes, r.Packets, r.Sent = to.Bytes-from.Bytes, to.Packets-from.Packets, to.Sent-from.Sent
	r.ServerCPU, r.ClientCPU = to.CPU-from.CPU, m.own[j].cpu-m.own[i].cpu
	if m.test.Kind != TCP && m.test.Kind != UDP { // it is the client that counts
		r.Elapsed = m.own[j].at.Sub(m.own[i].at)
		r.Bytes = m.own[j].bytes - m.own[i].bytes
	}
}

// errNothing is the error of a test in whose time the server received nothing, or no request was answered.
var errNothing = errors.New("nothing arrived")

// result returns what was measured in all.
func (m *meter) result() (r Result, err error) {
	r.addTimes(&m.all, m.unanswered)
	m.join(&r, 0, len(m.plan)-1)
	if r.Bytes == 0 && r.Requests == 0 && m.test.Kind != UDP { // of datagrams all may be lost
		return r, errNothing
	}
	return r, nil
}
