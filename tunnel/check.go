package tunnel

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/middleway-net/middleway/tunnel/hello"
	"github.com/middleway-net/middleway/tunnel/vxlan"
)

// checks find out what gets through to the peers. Workers hand arrivals over; one goroutine does the rest.
type checks struct {
	t        *Tunnel
	instance uint64
	arrivals chan arrival
	changed  chan struct{} // one slot: the peers are others

	mu    sync.Mutex // guards paths, and the paths
	paths map[netip.Addr]*path
}

// arrival is a message of a peer.
type arrival struct {
	from netip.Addr
	m    hello.Message
}

// maxArrivals bounds the messages that wait; those that come on top of it are lost, as on a wire.
const maxArrivals = 256

// spread is how far apart the first rounds of peers are on average, that became peers at the same time: their answers come in
// no faster than one goroutine takes them.
const spread = time.Millisecond

func newChecks(t *Tunnel) checks {
	return checks{
		t: t, instance: rand.Uint64() | 1, arrivals: make(chan arrival, maxArrivals), changed: make(chan struct{}, 1),
		paths: map[netip.Addr]*path{},
	}
}

// sender sends messages, whose Length and Part it sets: one for each probe.
type sender func(p *peer, m hello.Message, probes []probe)

// Run checks the ways to the peers until ctx ends.
func (t *Tunnel) Run(ctx context.Context) error {
	t.checks.run(ctx, t.herald.send)
	return nil
}

func (c *checks) run(ctx context.Context, send sender) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var due time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case a := <-c.arrivals:
			due = earlier(due, c.take(a, send))
		case <-c.changed:
			due = c.advanceAll(send)
		case <-timer.C:
			due = c.advanceAll(send)
		}
		timer.Reset(time.Until(due))
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// set makes paths for peers that are new, and forgets those that are gone.
func (c *checks) set(table *peerTable) {
	c.mu.Lock()
	old, now := c.paths, time.Now()
	c.paths = make(map[netip.Addr]*path, len(table.byAddr))
	for addr, p := range table.byAddr {
		path := old[addr]
		if path == nil || path.peer.way != p.way {
			path = newPath(c.t, p, now, now.Add(rand.N(time.Duration(len(table.byAddr))*spread)))
		}
		path.peer = p
		c.paths[addr] = path
	}
	c.mu.Unlock()
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// take takes a message of a peer, and answers a probe. It returns when the path is to be looked at next.
func (c *checks) take(a arrival, send sender) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, now := c.paths[a.from], time.Now()
	if p == nil { // no longer a peer
		return now.Add(steadyTime)
	}
	p.take(a.m, now)
	if a.m.Kind == hello.Probe {
		m := c.announce(hello.Answer)
		m.Nonce, m.Part, m.Length = a.m.Nonce, a.m.Part, a.m.Length
		if p.peer.given != (vxlan.MAC{}) && m.Length >= hello.LeastProbe { // an answer is not longer than its probe
			m.Can, m.Token = m.Can|hello.Tokens, p.peer.given
		}
		send(p.peer, m, nil)
	}
	return c.advanceLocked(p, now, send)
}

// announce returns a message with what this node can do.
func (c *checks) announce(k hello.Kind) hello.Message {
	m := hello.Message{Version: hello.Version, Kind: k, MTU: uint16(c.t.config.MTU), Can: hello.Trains, Instance: c.instance}
	if c.t.uses.RemoteChecksum {
		m.Can |= hello.RemoteChecksum
	}
	return m
}

// advanceAll looks at all paths and returns when to look again.
func (c *checks) advanceAll(send sender) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	due := now.Add(steadyTime)
	for _, p := range c.paths {
		due = earlier(due, c.advanceLocked(p, now, send))
	}
	return due
}

// advanceLocked ends and begins rounds whose time has come.
func (c *checks) advanceLocked(p *path, now time.Time, send sender) time.Time {
	if !p.peer.Hello {
		if !now.Before(p.next) {
			p.refusal()
			p.peer.to.RetryTrains()
			p.next = now.Add(c.t.jitter(steadyTime))
		}
		return p.next
	}
	if p.probes != nil && (p.complete() || now.Sub(p.began) >= answerTime) {
		p.end(now)
	}
	if p.probes == nil && !now.Before(p.next) {
		p.peer.to.RetryTrains()
		m := c.announce(hello.Probe)
		probes := p.begin(now)
		m.Nonce = p.nonce
		send(p.peer, m, probes)
		if probes[len(probes)-1].train {
			p.refusal()
		}
	}
	if p.probes != nil {
		return p.began.Add(answerTime)
	}
	return p.next
}

// jitter returns d, a fifth more or less: peers that started together shall not ask all at once.
func (t *Tunnel) jitter(d time.Duration) time.Duration { return d*4/5 + rand.N(d*2/5) }

// PeerStatus is what is known of a peer.
type PeerStatus struct {
	Name  string
	Addr  netip.Addr
	State State
	// Since is when the state began.
	Since time.Time
	// RTT is the last round trip, 0 if there was none.
	RTT time.Duration
	// MTU is the largest inner packet that reaches it, in bytes, as far as known.
	MTU int
	// Trains and RemoteChecksum: what it gets.
	Trains, RemoteChecksum bool
	// Why says what is amiss; empty if nothing is.
	Why string
}

// Peers returns what is known of the peers, by address.
func (t *Tunnel) Peers() []PeerStatus {
	c := &t.checks
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]PeerStatus, 0, len(c.paths))
	for addr, p := range c.paths {
		all = append(all, PeerStatus{
			Name: p.peer.Name, Addr: addr, State: p.state, Since: p.since, RTT: p.rtt, MTU: int(p.peer.mtu.Load()),
			Trains: p.peer.train(t, 1) > 1, RemoteChecksum: p.peer.remote.Load(), Why: p.why(),
		})
	}
	slices.SortFunc(all, func(a, b PeerStatus) int { return a.Addr.Compare(b.Addr) })
	return all
}
