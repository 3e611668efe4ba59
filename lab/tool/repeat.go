package tool

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Repeated is what came of asking the same thing many times.
type Repeated struct {
	Asked    int            `json:"asked"`
	Answered int            `json:"answered"`
	Elapsed  Millis         `json:"elapsedMs"`
	P50      Millis         `json:"p50Ms"` // of the answers; so are the others
	P99      Millis         `json:"p99Ms"`
	Max      Millis         `json:"maxMs"`
	Answers  map[string]int `json:"answers"` // how often each came
	Errors   map[string]int `json:"errors"`
}

// Repeat asks n times, up to so many at once, until ctx ends. ask returns the answer in a word or two, or an error.
func Repeat(ctx context.Context, n, atOnce int, ask func(context.Context) (string, error)) Repeated {
	r := Repeated{Answers: map[string]int{}, Errors: map[string]int{}}
	var mu sync.Mutex
	var took []Millis
	left := n
	take := func() bool {
		mu.Lock()
		defer mu.Unlock()
		left--
		return left >= 0 && ctx.Err() == nil
	}
	note := func(answer string, d time.Duration, err error) {
		mu.Lock()
		defer mu.Unlock()
		if ctx.Err() != nil && err != nil {
			return // interrupted, not failed
		}
		r.Asked++
		if err != nil {
			r.Errors[err.Error()]++
			return
		}
		r.Answers[answer]++
		took = append(took, Millis(d))
	}
	start := time.Now()
	var wg sync.WaitGroup
	for range min(max(atOnce, 1), n) {
		wg.Go(func() {
			for take() {
				begun := time.Now()
				answer, err := ask(ctx)
				note(answer, time.Since(begun), err)
			}
		})
	}
	wg.Wait()
	r.Elapsed = Millis(time.Since(start))
	slices.Sort(took)
	if r.Answered = len(took); r.Answered > 0 {
		r.P50, r.P99, r.Max = quantile(took, 50), quantile(took, 99), took[len(took)-1]
	}
	return r
}

// quantile returns the smallest value that percent of all do not exceed (the nearest rank). sorted is not empty.
func quantile(sorted []Millis, percent int) Millis {
	return sorted[max(0, (len(sorted)*percent+99)/100-1)]
}

// maxShown is how many different answers String lists.
const maxShown = 20

// String is the counts in lines, the most frequent answers first.
func (r Repeated) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d asked, %d answered in %v", r.Asked, r.Answered, r.Elapsed)
	if r.Answered > 0 {
		fmt.Fprintf(&b, "; p50 %v, p99 %v, max %v", r.P50, r.P99, r.Max)
	}
	for _, counts := range []struct {
		of    map[string]int
		words string
	}{{r.Answers, ""}, {r.Errors, "error: "}} {
		all := slices.SortedFunc(maps.Keys(counts.of), func(a, b string) int {
			return cmp.Or(cmp.Compare(counts.of[b], counts.of[a]), cmp.Compare(a, b))
		})
		for i, s := range all {
			if i == maxShown {
				fmt.Fprintf(&b, "\n       … and %d others", len(all)-maxShown)
				break
			}
			fmt.Fprintf(&b, "\n%6d  %s%s", counts.of[s], counts.words, s)
		}
	}
	return b.String()
}
