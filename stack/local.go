package stack

import (
	"context"
	"sync"

	"github.com/middleway-net/middleway/stack/icmp"
	"github.com/middleway-net/middleway/stack/packet"
)

// localWorker forwards packets of the node's own netstack, whose goroutines take turns on it.
type localWorker struct {
	mu sync.Mutex
	forwarder
}

func (l *localWorker) init(s *Stack, c Config) { l.forwarder.init(s, len(s.workers), c.Ports) }

// settle returns when nobody works with tables that were swapped out before.
func (l *localWorker) settle() {
	l.mu.Lock()
	defer l.mu.Unlock()
}

// maxTold bounds the errors that wait to be told to the netstack.
const maxTold = 16

// tell has the netstack told why one of its packets does not get further, later: it waits in Inject, and holds locks that it
// would need. The error comes from the far end, since the netstack takes nothing from its own addresses.
func (s *Stack) tell(e icmp.Error, p *packet.Parsed, head, rest []byte) {
	b := make([]byte, icmp.MaxLen)
	s.tellLater(b[:e.Build(b, p.Flow.Dst(), p, head, rest)])
}

// tellLater has the netstack told a packet.
func (s *Stack) tellLater(b []byte) {
	select {
	case s.told <- b:
	default: // it will send again
	}
}

// tellNode hands over what tell took, until ctx ends.
func (s *Stack) tellNode(ctx context.Context) error {
	var p packet.Parsed
	for {
		select {
		case <-ctx.Done():
			return nil
		case b := <-s.told:
			if s.node != nil && packet.Parse(b, &p) == packet.Kept {
				s.node.Deliver(b, &p, packet.Offload{})
			}
		}
	}
}

// Inject sends a packet of the node itself, given in parts, whose unfinished checksum and segmentation o describes. The
// parts are copied before it returns. A packet of more than packet.MaxSize bytes is dropped.
func (s *Stack) Inject(o packet.Offload, parts ...[]byte) { s.injectFrom(originNode, o, parts) }

func (s *Stack) injectFrom(from origin, o packet.Offload, parts [][]byte) {
	l := &s.local
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begin()
	l.inject(o, parts, from)
	l.flush()
}

func (l *localWorker) inject(o packet.Offload, parts [][]byte, from origin) {
	if b := l.gather(o, parts); b != nil {
		l.fromNode(b, o, from)
	}
}

// gather copies the parts of a packet of the node's own into a buffer, which is the caller's. It is nil if they are too long: the packet
// is dropped.
func (f *forwarder) gather(o packet.Offload, parts [][]byte) *packet.Buffer {
	b := f.pool.Get()
	space := b.Space()
	n := packet.VnetLen
	for _, part := range parts {
		if n+len(part) > packet.VnetLen+packet.MaxSize {
			f.noteTooLong(parts)
			f.refuse(b, packet.DropTooBig)
			return nil
		}
		n += copy(space[n:], part)
	}
	o.Encode(space)
	b.SetFrame(n)
	return b
}
