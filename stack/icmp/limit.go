package icmp

import "time"

// What one Limit lets through: as many errors as Linux sends (icmp_msgs_per_sec, icmp_msgs_burst).
const (
	PerSecond = 1000
	Burst     = 50
)

// interval is the time that one error takes from the limit.
const interval = time.Second / PerSecond

// What each source may take of a SharedLimit though others are at it: a share of the whole, and of that as much at once as Linux
// sends to one host (XRLIM_BURST_FACTOR).
const (
	Shares     = 64
	ShareBurst = 6
)

// Limit is a token bucket (RFC 1812, section 4.3.2.8; RFC 4443, section 2.4(f)). The zero Limit is full. Each goroutine that
// sends errors has its own.
type Limit struct {
	next time.Duration // when the bucket will be full again
}

// Allow takes a token. now is the time since any fixed moment.
func (l *Limit) Allow(now time.Duration) bool { return l.take(now, interval, Burst) }

// take takes a token of a bucket that gets one each interval, up to burst.
func (l *Limit) take(now, interval time.Duration, burst int) bool {
	next := max(l.next, now)
	if next-now > time.Duration(burst-1)*interval {
		return false
	}
	l.next = next + interval
	return true
}

// SharedLimit is a Limit that many sources share. One that takes more than its share gets only what the others leave: half of
// the bucket is kept for those who do not. Sources are told apart by a hash, so a few others may have the same share.
type SharedLimit struct {
	all    Limit
	shares [Shares]Limit
}

// Allow takes a token for a source, of which hash is well-mixed bits. now is the time since any fixed moment.
func (l *SharedLimit) Allow(hash uint64, now time.Duration) bool {
	kept := Burst / 2
	if l.shares[hash%Shares].take(now, Shares*interval, ShareBurst) {
		kept = 0
	}
	return l.all.take(now, interval, Burst-kept)
}
