package lab

import (
	"math"
	"slices"
	"testing"
	"time"
)

func decisions(f Faults, direction uint64, count int) []decision {
	d := newDice(f, direction)
	all := make([]decision, count)
	for i := range all {
		all[i] = d.next(100)
	}
	return all
}

func TestDiceRates(t *testing.T) {
	const count = 200_000
	f := Faults{Seed: 1, Loss: 0.1, Reorder: 0.05, Duplicate: 0.02, Corrupt: 0.01, Delay: 10 * time.Millisecond, Jitter: 4 * time.Millisecond}
	var lost, held, doubled, corrupted, holds int
	var delay, least, most time.Duration
	least = time.Hour
	bits := map[int]int{}
	for _, v := range decisions(f, 0, count) {
		if v.lose {
			lost++
		}
		if v.hold > 0 {
			held++
			holds += v.hold
		}
		if v.duplicate {
			doubled++
		}
		if v.corrupt >= 0 {
			corrupted++
			bits[v.corrupt]++
		}
		if v.corrupt >= 0 && (v.corrupt < 8*corruptFrom || v.corrupt >= 8*100) {
			t.Fatalf("bit %d of a frame of 100 bytes", v.corrupt)
		}
		delay += v.delay
		least, most = min(least, v.delay), max(most, v.delay)
	}
	for _, tt := range []struct {
		name string
		got  int
		rate float64
	}{
		{"lost", lost, f.Loss}, {"reordered", held, f.Reorder}, {"duplicated", doubled, f.Duplicate}, {"corrupted", corrupted, f.Corrupt},
	} {
		want := tt.rate * count
		bound := 4 * math.Sqrt(want*(1-tt.rate)) // four standard deviations of a binomial distribution
		if math.Abs(float64(tt.got)-want) > bound {
			t.Errorf("%s: got %d, want %.0f ± %.0f", tt.name, tt.got, want, bound)
		}
	}
	if mean := float64(holds) / float64(held); mean < 1.95 || mean > 2.05 {
		t.Errorf("mean hold: got %.2f, want 2", mean)
	}
	if mean := delay / count; mean < 9900*time.Microsecond || mean > 10100*time.Microsecond {
		t.Errorf("mean delay: got %s, want 10ms", mean)
	}
	if least < 6*time.Millisecond || most > 14*time.Millisecond {
		t.Errorf("delay: got %s to %s, want 6ms to 14ms", least, most)
	}
	if want := 8 * (100 - corruptFrom); len(bits) < want*9/10 {
		t.Errorf("corrupted %d different bits of %d", len(bits), want)
	}
}

func TestDiceReproducible(t *testing.T) {
	f := Faults{Seed: 42, Loss: 0.1, Reorder: 0.1, Duplicate: 0.1, Corrupt: 0.1, Jitter: time.Millisecond}
	want := decisions(f, 1, 1000)
	if !slices.Equal(decisions(f, 1, 1000), want) {
		t.Error("same seed, different decisions")
	}
	if slices.Equal(decisions(f, 2, 1000), want) {
		t.Error("two directions decide alike")
	}
	other := f
	other.Seed++
	if slices.Equal(decisions(other, 1, 1000), want) {
		t.Error("two seeds decide alike")
	}

	// Turning one fault off leaves the others where they were.
	fewer := f
	fewer.Loss, fewer.Jitter = 0, 0
	for i, v := range decisions(fewer, 1, 1000) {
		v.lose, v.delay = want[i].lose, want[i].delay
		if v != want[i] {
			t.Fatalf("frame %d: got %+v, want %+v", i, v, want[i])
		}
	}
}

func TestDiceShortFrame(t *testing.T) {
	d := newDice(Faults{Corrupt: 1}, 0)
	for _, length := range []int{0, 1, corruptFrom} {
		if v := d.next(length); v.corrupt != -1 {
			t.Errorf("frame of %d bytes: bit %d", length, v.corrupt)
		}
	}
	if v := d.next(corruptFrom + 1); v.corrupt < 8*corruptFrom || v.corrupt >= 8*(corruptFrom+1) {
		t.Errorf("bit %d", v.corrupt)
	}
}
