package stack

import (
	"context"
	"sync"
)

// gone is how workers tell that devices are gone, with their pods' namespaces or by somebody's hand.
type gone struct {
	news chan struct{} // has one when there are attachments to look at

	mu          sync.Mutex // guards attachments
	attachments []*attachment
}

// tell never waits: it is called by workers, for which release waits.
func (g *gone) tell(att *attachment) {
	g.mu.Lock()
	g.attachments = append(g.attachments, att)
	g.mu.Unlock()
	select {
	case g.news <- struct{}{}:
	default:
	}
}

func (g *gone) take() []*attachment {
	g.mu.Lock()
	defer g.mu.Unlock()
	taken := g.attachments
	g.attachments = nil
	return taken
}

// release takes attachments whose devices are gone out of the tables until ctx ends.
func (s *Stack) release(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.gone.news:
			for _, att := range s.gone.take() {
				s.lose(att)
			}
		}
	}
}

// lose leaves of an attachment its number, which is the owner's until Detach, and the device, which Detach closes: nothing has
// its addresses any more. Each worker that read the device tells of it.
func (s *Stack) lose(att *attachment) {
	if s.loses(att) {
		s.tellVacated(att)
	}
}

// loses does what lose does to the tables, if nobody has done so.
func (s *Stack) loses(att *attachment) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tables.Load().attachments[att.id] != att {
		return false
	}
	s.removeLocked(att, &attachment{id: att.id, name: att.name, device: att.device, host: att.host, lost: true})
	s.log.Warn("device is gone; its addresses are nobody's until it is attached anew", att.kind(), att.name, "addrs", att.addrs)
	return true
}

// Lost reports whether the device of an attachment is gone. Packets to its addresses are answered as those to nobody; only Detach
// is left to be called.
func (s *Stack) Lost(id uint32) bool {
	attachments := s.tables.Load().attachments
	return int(id) < len(attachments) && attachments[id] != nil && attachments[id].lost
}
