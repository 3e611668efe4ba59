package playground

import "time"

// backoff tells how long to wait before something is started again: not at all the first time, then from first on twice as long
// each time, up to most. What has run for calm is as new.
type backoff struct {
	first, most, calm time.Duration
	tries             int
}

// after returns the wait after a run of some length.
func (b *backoff) after(ran time.Duration) time.Duration {
	if ran >= b.calm {
		b.tries = 0
	}
	b.tries++
	if b.tries == 1 {
		return 0
	}
	return min(b.most, b.first<<min(b.tries-2, 20))
}
