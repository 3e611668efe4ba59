package proxy

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/icmp"
	"github.com/middleway-net/middleway/stack/packet"
)

// maxOpeningConns is how many connections wait for a socket that somebody else makes.
const maxOpeningConns = 1024

// relays are what the workers' connections have in common. Its methods may be called by any goroutine.
type relays struct {
	mu      sync.Mutex
	all     map[packet.Flow]*relayed
	opening chan *relayed
	pieces  assembler
}

func (r *relays) init() {
	r.all, r.opening = map[packet.Flow]*relayed{}, make(chan *relayed, maxOpeningConns)
	r.pieces.init()
}

// by returns the connection of a flow; nil if there is none.
func (r *relays) by(f *packet.Flow) *relayed {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all[*f]
}

// add enters a connection. It is false if its flow has one.
func (r *relays) add(c *relayed) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all[c.flow] != nil {
		return false
	}
	r.all[c.flow] = c
	return true
}

func (r *relays) remove(c *relayed) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.all, c.flow)
}

// forget ends a pod's connections.
func (r *relays) forget(pod netip.Addr) {
	key := packet.KeyOf(pod)
	r.mu.Lock()
	defer r.mu.Unlock()
	for f, c := range r.all {
		if f.From(key) {
			c.e.tell(c.drop)
		}
	}
}

// open gets sockets for connections until ctx ends: whoever makes them may take its time, which workers have not.
func (r *relays) open(ctx context.Context, sockets Sockets) {
	for {
		select {
		case <-ctx.Done():
			return
		case c := <-r.opening:
			fd, err := c.socket(sockets)
			if !c.e.tell(func() { c.connect(fd, err) }) && err == nil {
				_ = unix.Close(fd)
			}
		}
	}
}

// admit enters a connection, unless there is no room for it. What is admitted is dismissed.
func (t *tcpProxy) admit(c *relayed) bool {
	if !t.relays.add(c) {
		return false
	}
	if _, ok := t.enter(c.flow.Src()); !ok {
		t.relays.remove(c)
		return false
	}
	return true
}

func (t *tcpProxy) dismiss(c *relayed) {
	t.relays.remove(c)
	t.leave(c.flow.Src())
}

// openLater has a connection get its socket from somebody who may take time.
func (t *tcpProxy) openLater(c *relayed) {
	select {
	case t.relays.opening <- c:
	default:
		c.end() // its pod will ask again
	}
}

// decline tells a pod why it gets no connection, as a router on the way or the destination would: by a reset, an ICMP error that quotes
// its SYN, or not at all.
func (t *tcpProxy) decline(c *relayed, err error) {
	errno := t.countFailure(err)
	if isRefusal(errno) {
		c.e.say(&c.back, &said{ack: c.expected, flags: packet.RST | packet.ACK})
		return
	}
	if errors.Is(err, errNoSocket) && t.noSocket.due() {
		t.p.log.Warn("no socket for a pod's connection to the outside", "dst", c.flow.Dst(), "err", err)
	}
	if kind := refusedBy(errno); kind != 0 {
		t.tell(c.head, icmp.Error{Kind: kind})
	}
}

// clock returns the time since the start.
func (t *tcpProxy) clock() time.Duration { return time.Since(t.started) }
