package icmp

import (
	"testing"
	"time"
)

func TestLimit(t *testing.T) {
	var l Limit
	take := func(now time.Duration) (n int) {
		for l.Allow(now) {
			n++
		}
		return n
	}
	for _, tt := range []struct {
		now  time.Duration
		want int
	}{
		{0, Burst}, // full at first
		{0, 0},
		{999 * time.Microsecond, 0},
		{time.Millisecond, 1},
		{11 * time.Millisecond, 10},
		{10 * time.Millisecond, 0}, // time does not go back
		{time.Hour, Burst},         // never more than full
		{time.Hour + 20*time.Millisecond, 20},
	} {
		if got := take(tt.now); got != tt.want {
			t.Errorf("after %v: got %d, want %d", tt.now, got, tt.want)
		}
	}
	l, n := Limit{}, 0
	for now := time.Duration(0); now < time.Second; now += 10 * time.Microsecond {
		if l.Allow(now) {
			n++
		}
	}
	if n < PerSecond || n > PerSecond+Burst {
		t.Errorf("got %d in a second, want %d and a burst", n, PerSecond)
	}
}

// TestSharedLimit: who asks without end gets no more than the whole limit, and what others ask for in their shares they get.
func TestSharedLimit(t *testing.T) {
	var l SharedLimit
	take := func(hash uint64, now time.Duration) (n int) {
		for l.Allow(hash, now) {
			n++
		}
		return n
	}
	if got := take(0, 0); got != Burst/2 {
		t.Errorf("the first: got %d at once, want half of the bucket", got)
	}
	for _, tt := range []struct {
		hash uint64
		want int
	}{{1, ShareBurst}, {Shares + 1, 0}, {2, ShareBurst}, {3, ShareBurst}, {4, ShareBurst}, {5, Burst/2 - 4*ShareBurst}, {6, 0}} {
		if got := take(tt.hash, 0); got != tt.want {
			t.Errorf("hash %d: got %d, want %d", tt.hash, got, tt.want)
		}
	}
	var flood, asked, modest int
	const seconds = 10
	for now := time.Minute; now < time.Minute+seconds*time.Second; now += time.Millisecond {
		for range 5 {
			if l.Allow(0, now) {
				flood++
			}
		}
		if hash := uint64(now/time.Millisecond) % 128; hash > 0 && hash < Shares { // each asks for half of its share
			asked++
			if l.Allow(hash, now) {
				modest++
			}
		}
	}
	if modest != asked {
		t.Errorf("%d of %d errors within the shares were allowed", modest, asked)
	}
	if all := flood + modest; all < seconds*PerSecond || all > seconds*PerSecond+Burst {
		t.Errorf("%d in %d s, want %d a second", all, seconds, PerSecond)
	}
}
