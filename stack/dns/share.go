package dns

import (
	"net/netip"
	"sync"
)

// share bounds how much of something there is, and how much of it one client may have, so that who asks for all of it leaves others some.
type share struct {
	most, each int

	mu    sync.Mutex
	taken int
	by    map[netip.Addr]int
}

func newShare(most, each int) *share { return &share{most: most, each: each, by: map[netip.Addr]int{}} }

// take takes one for a client, which gives it back, and reports whether there was one.
func (s *share) take(client netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken >= s.most || s.by[client] >= s.each {
		return false
	}
	s.taken++
	s.by[client]++
	return true
}

func (s *share) give(client netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken--
	if s.by[client]--; s.by[client] == 0 {
		delete(s.by, client)
	}
}
