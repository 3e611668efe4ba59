package lab

import (
	"math/rand/v2"
	"time"
)

// Faults says what a Link does to frames in one direction. The zero value does nothing. Rates are probabilities from 0
// to 1, independent of each other.
type Faults struct {
	Seed uint64 // of the decisions; the same frames in the same order meet the same fate

	Loss      float64 // frames that vanish
	Reorder   float64 // frames held back until 1 to 3 later ones, or 10 ms, have passed
	Duplicate float64 // frames that arrive twice
	Corrupt   float64 // frames with one bit flipped, anywhere behind the Ethernet addresses
	Mark      float64 // IP packets of senders that know of ECN which arrive with a mark of congestion (RFC 3168)

	// MTU is that of the middle of the way, in bytes: longer IP packets vanish, and nobody is told. 0: none.
	MTU int
	// NoTrains loses IPv4 datagrams that a kernel cut from a train (UDP_SEGMENT), but for the first of each, as a network
	// card or kernel that spoils trains does: those, and no others, may not be fragmented and have an identification that is
	// not 0 (Linux: ip_select_ident, inet_gso_segment).
	NoTrains bool

	Delay  time.Duration // of every frame; order is kept
	Jitter time.Duration // added to Delay, evenly from -Jitter to +Jitter; a frame never overtakes for it
}

const (
	// maxHold is the most frames that may overtake one; TCP takes three for a loss (RFC 5681, section 3.2).
	maxHold = 3
	// holdTime is when a held frame passes though none came after it.
	holdTime = 10 * time.Millisecond
	// corruptFrom is the first byte that may be corrupted: the Ethernet addresses stay, so that the frame arrives.
	corruptFrom = 12
)

// any reports whether the faults do anything.
func (f Faults) any() bool {
	return f.Loss > 0 || f.Reorder > 0 || f.Duplicate > 0 || f.Corrupt > 0 || f.Mark > 0 || f.MTU > 0 || f.NoTrains || f.Delay > 0 || f.Jitter > 0
}

// decision is the fate of one frame.
type decision struct {
	lose, duplicate bool
	mark            bool
	hold            int           // how many frames overtake it; 0 for none
	corrupt         int           // number of the bit to flip, or -1
	delay           time.Duration // not negative
}

// dice decides about the frames of one direction. Every frame takes the same number of draws, so that the fate of a
// frame depends on its position and not on what happened to those before it, and changing one rate leaves the
// others' decisions as they were.
type dice struct {
	faults Faults
	source *rand.PCG
}

// newDice returns the dice of a direction; directions with the same seed decide differently.
func newDice(f Faults, direction uint64) *dice {
	return &dice{faults: f, source: rand.NewPCG(f.Seed, direction)}
}

// next decides about the next frame, which is length bytes long.
func (d *dice) next(length int) decision {
	lose, reorder, hold := d.draw(), d.draw(), d.draw()
	duplicate, corrupt, bit, jitter, mark := d.draw(), d.draw(), d.draw(), d.draw(), d.draw()

	f := d.faults
	v := decision{lose: lose < f.Loss, duplicate: duplicate < f.Duplicate, mark: mark < f.Mark, corrupt: -1, delay: f.Delay}
	if reorder < f.Reorder {
		v.hold = 1 + int(hold*maxHold)
	}
	if corrupt < f.Corrupt && length > corruptFrom {
		v.corrupt = 8*corruptFrom + int(bit*float64(8*(length-corruptFrom)))
	}
	if f.Jitter > 0 {
		v.delay = max(0, f.Delay+time.Duration((2*jitter-1)*float64(f.Jitter)))
	}
	return v
}

// draw returns a number from 0 up to but not including 1.
func (d *dice) draw() float64 { return float64(d.source.Uint64()>>11) / (1 << 53) }
