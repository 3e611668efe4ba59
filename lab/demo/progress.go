package demo

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// progress shows on a terminal what is being checked and for how long, in a line that gives way to the next one.
type progress struct {
	w    io.Writer
	stop chan struct{}
	done sync.WaitGroup
}

const (
	// progressStep is how often the time is shown anew: in tenths of a second.
	progressStep = 100 * time.Millisecond
	// toStart goes to the line's first column, and wipeLine clears from there to its end (ECMA-48, EL).
	toStart  = "\r"
	wipeLine = toStart + "\x1b[K"
)

func (p *progress) begin(name string) {
	p.stop = make(chan struct{})
	p.show(name, 0)
	p.done.Go(func() {
		started := time.Now()
		tick := time.NewTicker(progressStep)
		defer tick.Stop()
		for {
			select {
			case <-p.stop:
				return
			case <-tick.C:
				p.show(name, time.Since(started))
			}
		}
	})
}

func (p *progress) show(name string, d time.Duration) {
	_, _ = fmt.Fprintf(p.w, "%s  ..    %5.1f s  %s", toStart, d.Seconds(), name)
}

// end wipes the line, if there is one; then others may write again.
func (p *progress) end() {
	if p.stop == nil {
		return
	}
	close(p.stop)
	p.done.Wait()
	p.stop = nil
	_, _ = io.WriteString(p.w, wipeLine)
}
