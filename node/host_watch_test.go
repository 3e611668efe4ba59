package node

import (
	"errors"
	"testing"
	"time"
)

// Attempts that follow each other wait ever longer, up to a bound; after a quiet time the next one does not.
func TestPace(t *testing.T) {
	var p pace
	now := time.Now()
	if left := p.left(now); left != 0 {
		t.Errorf("the first attempt waits %v", left)
	}
	for _, want := range []time.Duration{
		100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond, 1600 * time.Millisecond,
		3200 * time.Millisecond, 6400 * time.Millisecond, 12800 * time.Millisecond, 25600 * time.Millisecond, longestPause, longestPause,
	} {
		p.tried(now)
		if left := p.left(now); left != want {
			t.Fatalf("got %v, want %v", left, want)
		}
		now = now.Add(want)
		if left := p.left(now); left != 0 {
			t.Fatalf("after %v there are %v left", want, left)
		}
	}
	now = now.Add(2*longestPause + 1)
	p.tried(now)
	if left := p.left(now); left != shortestPause {
		t.Errorf("after a quiet time: got %v, want %v", left, shortestPause)
	}
}

// A failure is news once, until it is another one or was over.
func TestHostFailure(t *testing.T) {
	var h host
	for i, tt := range []struct {
		err  error
		news bool
	}{
		{errors.New("a"), true}, {errors.New("a"), false}, {errors.New("b"), true}, {nil, false}, {errors.New("b"), true},
	} {
		if news := h.fail(tt.err); news != tt.news || h.failure() != tt.err {
			t.Errorf("%d: %v: news %v, want %v", i, tt.err, news, tt.news)
		}
	}
}
