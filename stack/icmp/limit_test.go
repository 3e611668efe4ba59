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
