//go:build race

package lab

// raceEnabled: the race detector makes sync.Pool drop things at random.
const raceEnabled = true
