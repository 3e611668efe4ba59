package service

import (
	"math/rand/v2"
	"slices"
	"sync/atomic"

	"github.com/middleway-net/middleway/stack/packet"
)

// Scheduler is how backends are picked.
type Scheduler uint8

// Schedulers.
const (
	// Random picks any with the same probability.
	Random Scheduler = iota
	// RoundRobin picks them in turn.
	RoundRobin
	// LeastConnections picks one with the fewest connections through this node.
	LeastConnections
	// Maglev picks by a hash of the client's addresses and ports, the same one on all nodes, and mostly the same when other
	// backends come and go (Eisenbud et al., Maglev, NSDI 2016, section 3.4).
	Maglev
)

var schedulerNames = [...]string{Random: "random", RoundRobin: "round-robin", LeastConnections: "least-connections", Maglev: "maglev"}

// String returns the scheduler's name in annotations and traces.
func (s Scheduler) String() string {
	if int(s) < len(schedulerNames) {
		return schedulerNames[s]
	}
	return "unknown"
}

// ParseScheduler returns the scheduler of a name; "" is random. ok is false for a name that none has.
func ParseScheduler(name string) (s Scheduler, ok bool) {
	if name == "" {
		return Random, true
	}
	for s, known := range schedulerNames {
		if name == known {
			return Scheduler(s), true
		}
	}
	return Random, false
}

// state is what a scheduler keeps of a Choice.
type state struct {
	turn   atomic.Uint32  // RoundRobin: whose it is
	active []atomic.Int32 // LeastConnections: connections, by number of the backend
	table  []uint16       // Maglev: numbers of backends
}

// prepare makes what the scheduler needs, before any table has the port. Turns and counts go on where those of the former
// port, if it is not nil, have come to.
func (p *Port) prepare(former *Port) {
	if former == p {
		return // a table has it
	}
	if former == nil || former.Scheduler != p.Scheduler {
		former = &Port{}
	}
	p.shareLists()
	p.Internal.prepare(p.Scheduler, &former.Internal)
	p.External.prepare(p.Scheduler, &former.External)
	p.Inside.prepare(p.Scheduler, &former.Inside)
}

// shareLists has lists of backends that are equal share their memory: mostly all are.
func (p *Port) shareLists() {
	for _, list := range [...]*[]Backend{&p.External.Backends, &p.Inside.Backends, &p.Serving} {
		if slices.Equal(*list, p.Internal.Backends) {
			*list = p.Internal.Backends
		}
	}
}

func (c *Choice) prepare(s Scheduler, former *Choice) {
	if len(c.Backends) == 0 {
		return
	}
	switch s {
	case RoundRobin:
		c.state = &state{}
		if former.state != nil {
			c.state.turn.Store(former.state.turn.Load())
		}
	case LeastConnections:
		c.state = &state{active: make([]atomic.Int32, len(c.Backends))}
		for i := range former.Backends {
			b := &former.Backends[i]
			if at := c.Index(b.Addr, b.Port); at >= 0 {
				c.state.active[at].Store(former.state.active[i].Load())
			}
		}
	case Maglev:
		c.state = &state{table: maglev(c.Backends)}
	}
}

// counted returns 1 if the port's connections have to be counted.
func (p *Port) counted() int {
	if p.Scheduler == LeastConnections {
		return 1
	}
	return 0
}

// Choose returns which of a choice's backends a new flow goes to. It changes nothing: Chosen tells when the flow was entered.
// Precondition: there are backends. It never allocates.
func (p *Port) Choose(c *Choice, f *packet.Flow) int {
	n := len(c.Backends)
	switch {
	case n == 1:
		return 0
	case p.Scheduler == RoundRobin:
		return int(c.state.turn.Load() % uint32(n))
	case p.Scheduler == LeastConnections:
		return c.state.least()
	case p.Scheduler == Maglev:
		return int(c.state.table[f.Hash(0)%uint64(len(c.state.table))])
	}
	return rand.IntN(n)
}

// Chosen tells that a flow to backend i was entered.
func (p *Port) Chosen(c *Choice, i int) {
	switch {
	case c.state == nil:
	case p.Scheduler == RoundRobin:
		c.state.turn.Store(uint32(i+1) % uint32(len(c.Backends)))
	case p.Scheduler == LeastConnections:
		c.state.active[i].Add(1)
	}
}

// least returns one of those with the fewest connections, any of them with the same probability: nodes that all began with the
// first would send it everything.
func (s *state) least() int {
	best, fewest, ties := 0, s.active[0].Load(), uint32(1)
	for i := 1; i < len(s.active); i++ {
		switch n := s.active[i].Load(); {
		case n < fewest:
			best, fewest, ties = i, n, 1
		case n == fewest:
			if ties++; rand.Uint32N(ties) == 0 {
				best = i
			}
		}
	}
	return best
}

func (p *Port) choices() [3]*Choice { return [...]*Choice{&p.Internal, &p.External, &p.Inside} }

// Counts are the connections to backends as they were counted, by which LeastConnections goes from then on.
type Counts struct {
	table  *Table
	counts map[*Choice][]int32
}

// NewCounts returns counts of zero for the ports of a table that count connections.
func NewCounts(t *Table) *Counts { return &Counts{t, map[*Choice][]int32{}} }

// Add counts a connection that a port of the table opened and that leaves as a flow.
func (n *Counts) Add(p *Port, leavesAs *packet.Flow) {
	if p.Scheduler != LeastConnections {
		return
	}
	for _, c := range p.choices() {
		i := c.Index(leavesAs.DstKey(), leavesAs.DstPort())
		if i < 0 {
			continue
		}
		if n.counts[c] == nil {
			n.counts[c] = make([]int32, len(c.Backends))
		}
		n.counts[c][i]++
	}
}

// Set makes the counts those of the table's ports. Connections that were entered while others were counted may be missing until
// the next time.
func (n *Counts) Set() {
	for p := range n.table.ports() {
		if p.Scheduler != LeastConnections {
			continue
		}
		for _, c := range p.choices() {
			if c.state != nil {
				c.set(n.counts[c])
			}
		}
	}
}

// set stores counts, nil for all zero.
func (c *Choice) set(counts []int32) {
	for i := range c.state.active {
		var n int32
		if counts != nil {
			n = counts[i]
		}
		c.state.active[i].Store(n)
	}
}
