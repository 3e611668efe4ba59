package tool

import (
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"time"
)

// Millis is a time that reads and is written in JSON as milliseconds.
type Millis time.Duration

// String returns the time like "0.123 ms".
func (m Millis) String() string { return fmt.Sprintf("%.3f ms", m.millis()) }

// MarshalJSON writes a number of milliseconds.
func (m Millis) MarshalJSON() ([]byte, error) { return json.Marshal(m.millis()) }

func (m Millis) millis() float64 { return float64(m) / float64(time.Millisecond) }

// PingSummary counts what became of the requests of a Run.
type PingSummary struct {
	Address    netip.Addr `json:"address"`
	Sent       int        `json:"sent"`
	Received   int        `json:"received"` // requests that were replied to
	Duplicates int        `json:"duplicates"`
	Errors     int        `json:"errors"` // ICMP errors and errors of sending
	Elapsed    Millis     `json:"elapsedMs"`
	// Of the round trips of the first replies; Deviation is the standard deviation.
	Min       Millis `json:"minMs"`
	Avg       Millis `json:"avgMs"`
	Max       Millis `json:"maxMs"`
	Deviation Millis `json:"mdevMs"`

	sum, squares float64 // of the round trips, ns
}

// Loss is the share of requests without a reply, in percent.
func (s PingSummary) Loss() float64 {
	if s.Sent == 0 {
		return 0
	}
	return 100 * float64(s.Sent-s.Received) / float64(s.Sent)
}

// String is the summary in two lines, as ping(8) has them.
func (s PingSummary) String() string {
	text := fmt.Sprintf("%d packets transmitted, %d received", s.Sent, s.Received)
	if s.Duplicates > 0 {
		text += fmt.Sprintf(", +%d duplicates", s.Duplicates)
	}
	if s.Errors > 0 {
		text += fmt.Sprintf(", +%d errors", s.Errors)
	}
	text += fmt.Sprintf(", %.4g%% packet loss, time %.0fms", s.Loss(), s.Elapsed.millis())
	if s.Received > 0 {
		text += fmt.Sprintf("\nrtt min/avg/max/mdev = %.3f/%.3f/%.3f/%.3f ms", s.Min.millis(), s.Avg.millis(), s.Max.millis(), s.Deviation.millis())
	}
	return text
}

func (s *PingSummary) add(rtt Millis) {
	if s.Received++; s.Received == 1 || rtt < s.Min {
		s.Min = rtt
	}
	s.Max = max(s.Max, rtt)
	s.sum += float64(rtt)
	s.squares += float64(rtt) * float64(rtt)
	mean := s.sum / float64(s.Received)
	s.Avg = Millis(mean)
	s.Deviation = Millis(math.Sqrt(max(0, s.squares/float64(s.Received)-mean*mean)))
}

// pingRun is the state of a Run. Numbers on the wire have 16 bits: a later request takes the place of the one 65,536 before.
type pingRun struct {
	tell    func(Answer)
	sent    map[uint16]*request
	waiting int // requests without any answer
	summary PingSummary
}

type request struct {
	number            int // from 1, and on
	at                time.Time
	answered, replied bool
}

func (r *pingRun) begin(seq uint16) {
	if old := r.sent[seq]; old != nil && !old.answered {
		r.waiting--
	}
	r.summary.Sent++
	r.waiting++
	r.sent[seq] = &request{number: r.summary.Sent, at: time.Now()}
}

func (r *pingRun) answer(q *request) {
	if !q.answered {
		q.answered = true
		r.waiting--
	}
}

func (r *pingRun) failed(seq uint16, err error) {
	q := r.sent[seq]
	r.answer(q)
	r.summary.Errors++
	r.tell(Answer{Seq: q.number, Err: err})
}

func (r *pingRun) arrived(a arrival) {
	q := r.sent[a.seq]
	if q == nil {
		return
	}
	answer := answerOf(a, q.number, q.at)
	r.answer(q)
	switch {
	case a.err != nil:
		r.summary.Errors++
	case q.replied:
		answer.Duplicate = true
		r.summary.Duplicates++
	default:
		q.replied = true
		r.summary.add(answer.RTT)
	}
	r.tell(answer)
}

func (r *pingRun) end(start time.Time) PingSummary {
	r.summary.Elapsed = Millis(time.Since(start))
	return r.summary
}
