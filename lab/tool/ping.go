package tool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// PingConfig describes echo requests.
type PingConfig struct {
	// Count is the number of requests of Run. Default 0: until its context ends.
	Count int
	// Interval lies between the beginnings of two requests of Run. Default 1 s.
	Interval time.Duration
	// Wait is how long Run waits for answers after the last request. Default 1 s.
	Wait time.Duration
	// Size is the payload in bytes. Default 0: none.
	Size int
	// TTL of the requests. Default 0: the kernel's.
	TTL int
	// Discovery says whether packets may be cut on their way. Default: as the kernel does it.
	Discovery PathMTU
	// Source is an address of this machine to ask from. Default: the kernel chooses.
	Source netip.Addr
	// Device is the interface to ask through. Default: the kernel chooses.
	Device string
}

// PathMTU is a way of path MTU discovery (ip(7), IP_MTU_DISCOVER).
type PathMTU string

const (
	PathMTUDo    PathMTU = "do"    // packets are never cut: larger ones than the known path takes are an error of sending
	PathMTUWant  PathMTU = "want"  // this machine cuts to the known path's size, routers do not
	PathMTUDont  PathMTU = "dont"  // routers may cut too (IPv4)
	PathMTUProbe PathMTU = "probe" // packets are never cut, and what is known of the path is not heeded
)

var pathMTUs = map[PathMTU]int{
	PathMTUDo: unix.IP_PMTUDISC_DO, PathMTUWant: unix.IP_PMTUDISC_WANT,
	PathMTUDont: unix.IP_PMTUDISC_DONT, PathMTUProbe: unix.IP_PMTUDISC_PROBE, // IPv6 has the same numbers
}

// Answer is what came of one request.
type Answer struct {
	Seq       int        `json:"seq"`            // counted from 1
	From      netip.Addr `json:"from,omitzero"`  // who sent it; not valid for errors of sending
	RTT       Millis     `json:"rttMs,omitzero"` // since the request
	Bytes     int        `json:"bytes,omitzero"` // of the ICMP message
	TTL       int        `json:"ttl,omitzero"`   // with which a reply came
	Duplicate bool       `json:"duplicate,omitzero"`
	// Err is nil for a reply. It is an *ICMPError if somebody on the way sent one, else the error of sending.
	Err error `json:"-"`
}

// MarshalJSON adds the error in words, and the MTU where the error tells it.
func (a Answer) MarshalJSON() ([]byte, error) {
	type plain Answer
	out := struct {
		plain
		Error string `json:"error,omitzero"`
		MTU   int    `json:"mtu,omitzero"`
	}{plain: plain(a)}
	var icmp *ICMPError
	switch {
	case errors.As(a.Err, &icmp):
		out.Error, out.MTU = icmp.Words(), icmp.MTU
	case a.Err != nil:
		out.Error = a.Err.Error()
	}
	return json.Marshal(out)
}

// String is a line like "64 bytes from 10.244.2.2: icmp_seq=1 ttl=63 time=0.123 ms".
func (a Answer) String() string {
	var icmp *ICMPError
	switch {
	case errors.As(a.Err, &icmp):
		return fmt.Sprintf("from %v: icmp_seq=%d %s", a.From, a.Seq, icmp.Words())
	case a.Err != nil:
		return fmt.Sprintf("icmp_seq=%d not sent: %v", a.Seq, a.Err)
	}
	text := fmt.Sprintf("%d bytes from %v: icmp_seq=%d ttl=%d time=%v", a.Bytes, a.From, a.Seq, a.TTL, a.RTT)
	if a.Duplicate {
		text += " (duplicate)"
	}
	return text
}

// Pinger sends echo requests to one address over a socket of its own.
type Pinger struct {
	c       PingConfig
	dst     netip.Addr
	socket  *echoSocket
	payload []byte
	next    uint16 // the next request's number
}

// maxPingSize is what fits into an IP packet behind IPv4's and ICMP's headers, in bytes.
const maxPingSize = math.MaxUint16 - 20 - 8

// NewPinger opens a socket in the calling thread's network namespace, which it keeps to wherever it is used.
func NewPinger(dst netip.Addr, c PingConfig) (*Pinger, error) {
	if c.Size < 0 || c.Size > maxPingSize {
		return nil, fmt.Errorf("a payload of %d bytes: want 0 to %d", c.Size, maxPingSize)
	}
	if c.TTL < 0 || c.TTL > 255 {
		return nil, fmt.Errorf("TTL %d: want 1 to 255", c.TTL)
	}
	c.Interval, c.Wait = orDefault(c.Interval, time.Second), orDefault(c.Wait, time.Second)
	dst = dst.Unmap()
	s, err := openEchoSocket(echoFamilyOf(dst), c.Size, rand.IntN(1<<16))
	if err != nil {
		return nil, err
	}
	p := &Pinger{c: c, dst: dst, socket: s, payload: make([]byte, c.Size), next: 1}
	for i := range p.payload {
		p.payload[i] = byte(i)
	}
	if err := p.setOptions(); err != nil {
		s.close()
		return nil, err
	}
	return p, nil
}

func orDefault(d, def time.Duration) time.Duration {
	if d <= 0 {
		return def
	}
	return d
}

func (p *Pinger) setOptions() error {
	f := p.socket.family
	if p.c.TTL > 0 {
		if err := p.socket.setTTL(p.c.TTL); err != nil {
			return err
		}
	}
	if p.c.Discovery != "" {
		how, ok := pathMTUs[p.c.Discovery]
		if !ok {
			return fmt.Errorf("path MTU discovery %q: want do, want, dont or probe", p.c.Discovery)
		}
		if err := p.socket.setOption("set path MTU discovery", f.level, f.discover, how); err != nil {
			return err
		}
		if f == echo6 && (p.c.Discovery == PathMTUDo || p.c.Discovery == PathMTUProbe) {
			if err := p.socket.setOption("forbid fragments", unix.SOL_IPV6, unix.IPV6_DONTFRAG, 1); err != nil {
				return err
			}
		}
	}
	if p.c.Device != "" {
		if err := p.socket.bindDevice(p.c.Device); err != nil {
			return err
		}
	}
	if p.c.Source.IsValid() {
		if p.c.Source.Unmap().Is4() != p.dst.Is4() {
			return fmt.Errorf("source %v and destination %v are not of one family", p.c.Source, p.dst)
		}
		return p.socket.bind(p.c.Source.Unmap())
	}
	return nil
}

// Close ends a running Run or Ask.
func (p *Pinger) Close() error { return p.socket.close() }

// Ask sends one request and waits for its answer until ctx ends; then the error is ctx's. An ICMP error is an error at once.
func (p *Pinger) Ask(ctx context.Context) (Answer, error) {
	p.socket.setDeadline(time.Time{})
	stop := context.AfterFunc(ctx, func() { p.socket.setDeadline(time.Unix(1, 0)) })
	defer stop()
	seq, start := p.take(), time.Now()
	if err := p.send(seq); err != nil {
		return Answer{Seq: int(seq)}, err
	}
	for {
		a, err := p.socket.receive()
		switch {
		case ctx.Err() != nil:
			return Answer{Seq: int(seq)}, ctx.Err()
		case errors.Is(err, os.ErrDeadlineExceeded):
			p.socket.setDeadline(time.Time{}) // the end of an earlier Ask came late
		case err != nil:
			return Answer{Seq: int(seq)}, err
		case a.seq == seq:
			answer := answerOf(a, int(seq), start)
			return answer, answer.Err
		}
	}
}

func (p *Pinger) take() uint16 {
	p.next++
	return p.next - 1
}

// send explains the error that a packet which must not be cut is met with.
func (p *Pinger) send(seq uint16) error {
	err := p.socket.send(p.dst, seq, p.payload)
	if errors.Is(err, unix.EMSGSIZE) {
		return fmt.Errorf("%w: %d bytes with headers, and the path's MTU is %d", err, p.socket.family.headers+p.c.Size, p.socket.pathMTU(p.dst))
	}
	return err
}

func answerOf(a arrival, seq int, sent time.Time) Answer {
	answer := Answer{Seq: seq, From: a.from, RTT: Millis(a.at.Sub(sent)), Bytes: a.bytes, TTL: a.ttl}
	if a.err != nil {
		answer.Err = a.err
	}
	return answer
}

// Run sends requests and tells of every answer as it comes, until the last one is answered or given up or ctx ends, which is
// no error. Whatever concerns one request is in its Answer.
func (p *Pinger) Run(ctx context.Context, tell func(Answer)) (PingSummary, error) {
	p.socket.setDeadline(time.Time{})
	arrivals, done := make(chan arrival), make(chan struct{})
	var received error
	go func() {
		defer close(arrivals)
		received = p.receiveInto(arrivals, done)
	}()
	defer func() {
		close(done)
		p.socket.setDeadline(time.Unix(1, 0))
		for range arrivals { // until it has ended
		}
	}()

	r := pingRun{tell: tell, sent: map[uint16]*request{}, summary: PingSummary{Address: p.dst}}
	start := time.Now()
	timer := time.NewTimer(0)
	for last := false; !last || r.waiting > 0; {
		select {
		case <-ctx.Done():
			return r.end(start), nil
		case a, ok := <-arrivals:
			if !ok {
				return r.end(start), received
			}
			r.arrived(a)
		case <-timer.C:
			if last {
				return r.end(start), nil
			}
			seq := p.take()
			r.begin(seq)
			if err := p.send(seq); err != nil {
				r.failed(seq, err)
			}
			if last = p.c.Count > 0 && r.summary.Sent == p.c.Count; last {
				timer.Reset(p.c.Wait)
			} else {
				timer.Reset(time.Until(start.Add(time.Duration(r.summary.Sent) * p.c.Interval)))
			}
		}
	}
	return r.end(start), nil
}

// receiveInto hands over what arrives until the deadline.
func (p *Pinger) receiveInto(arrivals chan<- arrival, done <-chan struct{}) error {
	for {
		a, err := p.socket.receive()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			select {
			case <-done:
				return nil
			default:
				p.socket.setDeadline(time.Time{}) // the end of an earlier Ask came late
				continue
			}
		}
		if err != nil {
			return err
		}
		select {
		case arrivals <- a:
		case <-done:
			return nil
		}
	}
}
