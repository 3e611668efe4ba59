package lab

import (
	"encoding/binary"
	"math/bits"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// numbered returns a frame that carries a number.
func numbered(i int) []byte {
	b := make([]byte, 64)
	binary.BigEndian.PutUint32(b[corruptFrom+2:], uint32(i))
	return b
}

func numbers(frames []*frame) (all []int) {
	for _, f := range frames {
		all = append(all, int(binary.BigEndian.Uint32(f.bytes[corruptFrom+2:])))
	}
	return all
}

func newLine(f Faults) *line {
	l := &line{pool: &framePool{}}
	l.setFaults(f, 0)
	return l
}

func TestLinePerfect(t *testing.T) {
	l := newLine(Faults{})
	if !l.idle() {
		t.Error("a line without faults is not idle")
	}
	l.setCut(true)
	if l.idle() || len(l.pass(numbered(1), time.Now(), nil)) != 0 {
		t.Error("a frame passed a cut line")
	}
	l.setCut(false)
	if got := numbers(l.pass(numbered(2), time.Now(), nil)); !cmp.Equal(got, []int{2}) {
		t.Errorf("healed line: got %v", got)
	}
	if got, want := l.read(), (Counters{Frames: 3, Cut: 1}); got != want {
		t.Errorf("counters: got %+v, want %+v", got, want)
	}
}

func TestLineOneFaultEach(t *testing.T) {
	now := time.Now()
	const count = 1000
	run := func(f Faults) (*line, []*frame) {
		l, out := newLine(f), []*frame(nil)
		for i := range count {
			out = l.pass(numbered(i), now, out)
		}
		return l, l.expire(now.Add(holdTime), out)
	}
	t.Run("loss", func(t *testing.T) {
		l, out := run(Faults{Loss: 0.5})
		if lost := l.read().Lost; lost < 400 || lost > 600 || len(out) != count-int(lost) {
			t.Errorf("%d lost, %d delivered", lost, len(out))
		}
	})
	t.Run("duplicate", func(t *testing.T) {
		l, out := run(Faults{Duplicate: 0.5})
		if doubled := l.read().Duplicated; doubled < 400 || doubled > 600 || len(out) != count+int(doubled) {
			t.Errorf("%d duplicated, %d delivered", doubled, len(out))
		}
	})
	t.Run("corrupt", func(t *testing.T) {
		_, out := run(Faults{Corrupt: 1})
		for i, f := range out {
			flipped := 0
			for j, b := range numbered(i) {
				flipped += bits.OnesCount8(b ^ f.bytes[j])
			}
			if flipped != 1 {
				t.Fatalf("frame %d: %d bits flipped", i, flipped)
			}
		}
	})
	t.Run("reorder", func(t *testing.T) {
		l, out := run(Faults{Reorder: 0.2})
		if len(out) != count {
			t.Fatalf("%d delivered", len(out))
		}
		late, latest := 0, -1
		for _, i := range numbers(out) {
			if i < latest {
				late++
			}
			// Frames of a run of held ones wait for each other, so more than maxHold numbers may pass.
			if i < latest-5*maxHold {
				t.Errorf("frame %d came after %d", i, latest)
			}
			latest = max(latest, i)
		}
		held := int(l.read().Reordered)
		if held < 150 || held > 250 || late < held/2 {
			t.Errorf("%d held, %d late", held, late)
		}
	})
	t.Run("jitter", func(t *testing.T) {
		_, out := run(Faults{Delay: 5 * time.Millisecond, Jitter: 5 * time.Millisecond})
		last := now
		for i, f := range out {
			if numbers(out[i : i+1])[0] != i || f.due.Before(last) || f.due.After(now.Add(10*time.Millisecond)) {
				t.Fatalf("frame %d at place %d, due after %s", numbers(out[i : i+1])[0], i, f.due.Sub(now))
			}
			last = f.due
		}
	})
}

// A held frame passes after the next frames, or after a while if there are none.
func TestLineHold(t *testing.T) {
	l, now := newLine(Faults{Reorder: 1}), time.Now()
	if out := l.pass(numbered(0), now, nil); len(out) != 0 || !l.needsAlarm() || l.needsAlarm() {
		t.Errorf("got %v, want it held with one alarm", numbers(out))
	}
	if out := l.expire(now.Add(holdTime/2), nil); len(out) != 0 {
		t.Errorf("expired early: %v", numbers(out))
	}
	if !l.needsAlarm() {
		t.Error("no second alarm")
	}
	if got := numbers(l.expire(now.Add(holdTime), nil)); !cmp.Equal(got, []int{0}) || l.needsAlarm() {
		t.Errorf("got %v, want the frame and no alarm", got)
	}

	l.pass(numbered(1), now, nil)
	hold := l.held[0].more
	l.setFaults(Faults{}, 0)
	if l.idle() {
		t.Error("idle with a frame held")
	}
	var out []*frame
	for i := range maxHold + 1 {
		out = l.pass(numbered(10+i), now, out)
	}
	want := []int{10, 11, 12, 13}
	want = append(want[:hold], append([]int{1}, want[hold:]...)...)
	if diff := cmp.Diff(want, numbers(out)); diff != "" {
		t.Errorf("held for %d frames, -want +got:\n%s", hold, diff)
	}
}

func TestLineAllocatesNothing(t *testing.T) {
	l, now := newLine(Faults{Loss: 0.1, Duplicate: 0.1, Corrupt: 0.1, Reorder: 0.1}), time.Now()
	var out []*frame
	b := numbered(0)
	allocs := testing.AllocsPerRun(10_000, func() {
		out = l.pass(b, now, out[:0])
		for _, f := range out {
			l.pool.put(f)
		}
	})
	if allocs > 0 && !raceEnabled {
		t.Errorf("%v allocations per frame", allocs)
	}
}

func TestSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSchedule()
		start := time.Now()
		var got []int
		var after []time.Duration
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.run(func(f *frame) {
				got = append(got, numbers([]*frame{f})...)
				after = append(after, time.Since(start))
			})
		}()
		for i, ms := range []time.Duration{30, 10, 20, 10, 3_600_001} {
			s.add(&frame{bytes: numbered(i), due: start.Add(ms * time.Millisecond)})
		}
		time.Sleep(15 * time.Millisecond)
		s.add(&frame{bytes: numbered(5), due: start.Add(16 * time.Millisecond)}) // before the first waiting one
		time.Sleep(2 * time.Hour)
		s.add(&frame{bytes: numbered(6), due: start.Add(3 * time.Hour)})
		s.close()
		<-done
		if diff := cmp.Diff([]int{1, 3, 5, 2, 0, 4}, got); diff != "" {
			t.Errorf("order: -want +got:\n%s", diff)
		}
		if after[0] != 10*time.Millisecond || after[2] != 16*time.Millisecond || after[5] != 3_600_001*time.Millisecond {
			t.Errorf("times: %v", after)
		}
	})
}
