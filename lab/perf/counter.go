package perf

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// counter is what one stream has received, at the client's end of a download or at the server's, on a cache line of its own.
type counter struct {
	bytes   atomic.Int64 // of TCP
	packets atomic.Int64 // of UDP, all of one size
	sent    atomic.Int64 // by the greatest number that a datagram bore
	_       [40]byte
}

// take adds up the counters of a test.
func take(t Test, counters []counter, start time.Time) sample {
	s := sample{At: time.Since(start), CPU: cpuTime()}
	for i := range counters {
		s.Bytes += counters[i].bytes.Load()
		s.Packets += counters[i].packets.Load()
		s.Sent += counters[i].sent.Load()
	}
	s.Bytes += s.Packets * int64(t.Size)
	return s
}

// cpuTime returns the processor time, user and system, that this process has used.
func cpuTime() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts)
	return time.Duration(ts.Nano())
}
