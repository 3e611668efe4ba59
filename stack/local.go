package stack

import (
	"sync"

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

// Inject sends a packet of the node itself, given in parts, whose unfinished checksum and segmentation o describes. The
// parts are copied before it returns. A packet of more than packet.MaxSize bytes is dropped.
func (s *Stack) Inject(o packet.Offload, parts ...[]byte) {
	l := &s.local
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.pool.Get()
	space := b.Space()
	n := packet.VnetLen
	for _, part := range parts {
		if n+len(part) > packet.VnetLen+packet.MaxSize {
			l.refuse(b, packet.DropTooBig)
			return
		}
		n += copy(space[n:], part)
	}
	o.Encode(space)
	b.SetFrame(n)
	l.begin()
	l.fromNode(b, o)
	l.flush()
}
