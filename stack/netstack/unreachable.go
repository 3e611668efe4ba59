package netstack

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/middleway-net/middleway/stack/packet"
)

// A connection is over whose peer is said to be unreachable for as long as certainty, and which hears nothing of it meanwhile, though it
// asks. An error alone may be one of the way, which passes (RFC 1122, section 4.2.3.9), or forged (RFC 5927, section 5.2).
const (
	certainty = 500 * time.Millisecond
	askAfter  = 100 * time.Millisecond
	askedFor  = time.Second // one that answers is asked again until then
)

// conns are the connections that ICMP errors may be about.
type conns struct {
	mu sync.Mutex
	by map[stack.TransportEndpointID]*Conn
}

// tryAdd adds a connection, unless another one has its name.
func (s *conns) tryAdd(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by[c.id] == nil {
		s.by[c.id] = c
	}
}

func (s *conns) add(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.by[c.id] = c
}

func (s *conns) remove(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by[c.id] == c {
		delete(s.by, c.id)
	}
}

func (s *conns) find(id stack.TransportEndpointID) *Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.by[id]
}

// unreachable reports whether packet b, whose headers are p, says that the peer of a connection cannot be reached, and tells that
// connection. gVisor knows some of the codes, and only of connections that are being opened.
func (n *Netstack) unreachable(b []byte, p *packet.Parsed) bool {
	var q packet.Quote
	if !packet.ParseQuote(b, p, &q) || q.Flow.Proto() != packet.TCP || !isUnreachable(b, p) {
		return false
	}
	c := n.conns.find(stack.TransportEndpointID{
		LocalAddress: toAddress(q.Flow.Src()), LocalPort: q.Flow.SrcPort(), RemoteAddress: toAddress(q.Flow.Dst()), RemotePort: q.Flow.DstPort(),
	})
	if c == nil {
		return false
	}
	c.toldUnreachable()
	return true
}

// isUnreachable reports whether an ICMP error says that its destination is unreachable, and not that the packet is too large for its way
// (RFC 792; RFC 4443, section 3.1).
func isUnreachable(b []byte, p *packet.Parsed) bool {
	if p.Version == 4 {
		return b[p.L4] == 3 && b[p.L4+1] != 4
	}
	return b[p.L4] == 1
}

// doubt is whether the peer of a connection is still there.
type doubt struct {
	mu       sync.Mutex
	since    time.Time     // of the first error; zero if there was none
	received uint64        // segments, at that time
	idle     time.Duration // of KeepAlive
	calm     *time.Timer   // ends what Ask began; nil before its first call
}

// toldUnreachable notes that the peer cannot be reached. A connection that is being opened fails at once.
func (c *Conn) toldUnreachable() {
	if !c.open.Load() || c.doubt.confirms(c) {
		c.fail(unix.EHOSTUNREACH)
		return
	}
	c.Ask()
}

// confirms notes an error, and reports whether it says what another one said long enough ago, and nothing contradicted.
func (d *doubt) confirms(c *Conn) bool {
	_, received := c.Segments()
	d.mu.Lock()
	defer d.mu.Unlock()
	if now := time.Now(); d.since.IsZero() || d.received != received {
		d.since, d.received = now, received
	} else if now.Sub(d.since) >= certainty {
		return true
	}
	return false
}

// fail ends the connection, because of errno.
func (c *Conn) fail(errno unix.Errno) {
	c.failure.CompareAndSwap(0, uint32(errno))
	c.Abort()
}

// Ask has the peer show soon that it is there, if KeepAlive is on: it answers, or somebody says that it cannot be reached, which ends the
// connection, or KeepAlive finds it silent.
func (c *Conn) Ask() {
	d := &c.doubt
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.idle == 0 {
		return
	}
	c.setIdle(askAfter)
	if d.calm == nil {
		d.calm = time.AfterFunc(askedFor, c.calmDown)
	} else {
		d.calm.Reset(askedFor)
	}
}

func (c *Conn) calmDown() {
	c.doubt.mu.Lock()
	defer c.doubt.mu.Unlock()
	c.setIdle(c.doubt.idle)
}

func (c *Conn) setIdle(d time.Duration) {
	o := tcpip.KeepaliveIdleOption(d)
	_ = c.ep.SetSockOpt(&o) // never fails
}
