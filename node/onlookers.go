package node

import (
	"errors"
	"fmt"
	"sync"
)

// Bounds of those who look at the stack at one time.
const (
	// maxCaptures: each has rings of some megabytes a worker, and copies packets.
	maxCaptures = 8
	// maxQuestions: each may walk through the whole flow table.
	maxQuestions = 32
)

// onlookers are those who look at the stack, which must not end before them.
type onlookers struct {
	what string // for messages
	max  int

	mu     sync.Mutex // guards number and ended
	number int
	ended  bool
	none   sync.WaitGroup
}

// begin counts one in, or says why not. end counts it out.
func (o *onlookers) begin() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.ended:
		return errors.New("the node ends")
	case o.number == o.max:
		return fmt.Errorf("%d %s of this node are under way, more there cannot be; end one of them", o.max, o.what)
	}
	o.number++
	o.none.Add(1)
	return nil
}

func (o *onlookers) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.number--
	o.none.Done()
}

// refuse lets none begin any more.
func (o *onlookers) refuse() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
}

// wait returns when all have ended.
func (o *onlookers) wait() { o.none.Wait() }
