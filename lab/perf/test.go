package perf

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Kind is what is measured.
type Kind string

// Kinds.
const (
	TCP         Kind = "tcp"          // streams of TCP that send as fast as they can
	Download    Kind = "tcp-download" // the same from the server to the client
	UDP         Kind = "udp"          // datagrams, as fast as the client can send them
	TCPLatency  Kind = "tcp-latency"  // a request and its response, one after another, over one connection
	UDPLatency  Kind = "udp-latency"  // the same with datagrams
	Connections Kind = "connections"  // connect, one request and response, close, one after another
)

// kinds are all kinds.
var kinds = []Kind{TCP, Download, UDP, TCPLatency, UDPLatency, Connections}

// Test says what to measure. The zero value of each field is its default.
type Test struct {
	// Kind is what is measured. Default TCP.
	Kind Kind `json:"kind"`
	// Size in bytes of each write and read of TCP (default 128 KiB, as iperf3's), of a datagram's payload (1,400; 8 at least),
	// of a request and of its response (1).
	Size int `json:"size"`
	// Streams is how many of them there are at once, each with a thread at both ends. Default 1.
	Streams int `json:"streams"`
	// Segments is how many datagrams the sender hands to the kernel as one train (UDP_SEGMENT). Default 1: each is a packet
	// from the first to the last.
	Segments int `json:"segments"`
	// Congestion is the congestion control of both ends. Default: the kernel's.
	Congestion string `json:"congestion"`
	// WarmUp is the time before the time that counts. Default 200 ms.
	WarmUp time.Duration `json:"warmUpNs"`
	// Time is how long is counted. Default 1 s.
	Time time.Duration `json:"timeNs"`
	// Interval is the time between two samples. Default: none in between.
	Interval time.Duration `json:"intervalNs"`
}

// Limits of a test, which keep a server from being used up.
const (
	MaxStreams = 64
	MaxTime    = time.Hour

	maxStreamSize   = 16 << 20
	maxDatagramSize = 65000 // below 65,507, what IPv4 leaves
	maxRequestSize  = 1024  // one segment, and one read, almost everywhere
	maxSegments     = 64    // UDP_MAX_SEGMENTS of kernels before 6.9
	maxWarmUp       = time.Minute
	minInterval     = 10 * time.Millisecond
	sequenceSize    = 8 // bytes of a datagram's number
)

func (t Test) withDefaults() Test {
	if t.Kind == "" {
		t.Kind = TCP
	}
	if t.Size == 0 {
		switch t.Kind {
		case TCP, Download:
			t.Size = 128 << 10
		case UDP:
			t.Size = 1400
		default:
			t.Size = 1
		}
	}
	if t.Streams == 0 {
		t.Streams = 1
	}
	if t.Segments == 0 {
		t.Segments = 1
	}
	if t.WarmUp == 0 {
		t.WarmUp = 200 * time.Millisecond
	}
	if t.Time == 0 {
		t.Time = time.Second
	}
	return t
}

// Check returns what is wrong with a test, in a sentence.
func (t Test) Check() error {
	t = t.withDefaults()
	least, most := 1, maxRequestSize
	switch t.Kind {
	case TCP, Download:
		most = maxStreamSize
	case UDP:
		least, most = sequenceSize, maxDatagramSize
	}
	switch {
	case !slices.Contains(kinds, t.Kind):
		return fmt.Errorf("a test of %q: there are %v", t.Kind, kinds)
	case t.Size < least || t.Size > most:
		return fmt.Errorf("a size of %d bytes: %s takes %d to %d", t.Size, t.Kind, least, most)
	case t.Streams < 1 || t.Streams > MaxStreams:
		return fmt.Errorf("%d streams: there can be 1 to %d", t.Streams, MaxStreams)
	case t.Segments < 1 || t.Segments > maxSegments || t.Segments*t.Size > maxDatagramSize && t.Kind == UDP:
		return fmt.Errorf("%d segments of %d bytes: there can be 1 to %d, and %d bytes in all", t.Segments, t.Size, maxSegments, maxDatagramSize)
	case t.Segments > 1 && t.Kind != UDP:
		return fmt.Errorf("segments are those of UDP, not of %s", t.Kind)
	case len(t.Congestion) > 15 || strings.ContainsFunc(t.Congestion, notNameRune):
		return fmt.Errorf("congestion control %q: a name like cubic is needed", t.Congestion)
	case t.WarmUp < 0 || t.WarmUp > maxWarmUp:
		return fmt.Errorf("a warm-up of %v: there can be up to %v", t.WarmUp, maxWarmUp)
	case t.Time < minInterval || t.Time > MaxTime:
		return fmt.Errorf("a time of %v: there can be %v to %v", t.Time, minInterval, MaxTime)
	case t.Interval != 0 && (t.Interval < minInterval || t.Interval > MaxTime):
		return fmt.Errorf("an interval of %v: there can be %v to %v, or none", t.Interval, minInterval, MaxTime)
	}
	return nil
}

// notNameRune tells what cannot be in the name of a congestion control.
func notNameRune(r rune) bool {
	return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_' && r != '-'
}

// datagrams reports whether the streams are of UDP.
func (t Test) datagrams() bool { return t.Kind == UDP || t.Kind == UDPLatency }

// waits returns the times to wait before each sample: the warm-up, and then the intervals, the last of which may be shorter.
// Each begins when the sample before was taken, so that none is too short on a machine that is late.
func (t Test) waits() []time.Duration {
	waits := []time.Duration{t.WarmUp}
	rest := t.Time
	for ; t.Interval > 0 && rest > t.Interval; rest -= t.Interval {
		waits = append(waits, t.Interval)
	}
	return append(waits, rest)
}
