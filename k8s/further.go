package k8s

import (
	"sync"

	"github.com/middleway-net/middleway/stack/service"
)

// further are Services that no object describes.
type further struct {
	changed chan struct{} // has room for one

	mu     sync.Mutex // guards the following
	wanted map[string]*service.Service
	unseen bool // wanted has not been taken yet

	names map[string]bool // of those in the table; follow alone uses them
}

// SetFurther makes all the Services of which the source knows nothing, by names that no Service of it has: host ports of pods. They are in
// force from the start on, whatever the source has told yet. The map, and what is in it, are the pipeline's afterwards.
func (p *Pipeline) SetFurther(all map[string]*service.Service) {
	p.further.mu.Lock()
	p.further.wanted, p.further.unseen = all, true
	p.further.mu.Unlock()
	select {
	case p.further.changed <- struct{}{}:
	default: // it is about to be looked at
	}
}

// take returns what differs from what was taken last: nil for those that are gone.
func (f *further) take() map[string]*service.Service {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.unseen {
		return nil
	}
	changed := f.wanted
	f.wanted, f.unseen = nil, false
	names := make(map[string]bool, len(changed))
	for name := range changed {
		names[name] = true
	}
	for name := range f.names {
		if !names[name] {
			if changed == nil {
				changed = map[string]*service.Service{}
			}
			changed[name] = nil
		}
	}
	f.names = names
	return changed
}

// applyFurther brings the further Services into force.
func (p *Pipeline) applyFurther() {
	if changed := p.further.take(); len(changed) > 0 {
		p.table = p.table.With(changed)
		p.handServices()
	}
}
