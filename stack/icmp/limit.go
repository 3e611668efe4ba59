package icmp

import "time"

// What one Limit lets through: as many errors as Linux sends (icmp_msgs_per_sec, icmp_msgs_burst).
const (
	PerSecond = 1000
	Burst     = 50
)

// interval is the time that one error takes from the limit.
const interval = time.Second / PerSecond

// Limit is a token bucket (RFC 1812, section 4.3.2.8; RFC 4443, section 2.4(f)). The zero Limit is full. Each goroutine that
// sends errors has its own.
type Limit struct {
	next time.Duration // when the bucket will be full again
}

// Allow takes a token. now is the time since any fixed moment.
func (l *Limit) Allow(now time.Duration) bool {
	next := max(l.next, now)
	if next-now > (Burst-1)*interval {
		return false
	}
	l.next = next + interval
	return true
}
