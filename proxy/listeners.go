package proxy

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/middleway-net/middleway/stack/packet"
)

// Between two tries to open a listener, doubled with each. An address that was added to an interface a moment ago may be
// tentative yet (RFC 4862, section 5.4), a port may be that of somebody who is about to leave it.
const (
	firstRetry = 250 * time.Millisecond
	lastRetry  = 30 * time.Second
)

// place is where a listener is; there is one at each.
type place struct {
	addr  netip.AddrPort
	proto packet.Proto
	here  bool
	own   bool
}

func (l Listener) place() place { return place{l.Addr, l.Proto, l.Here, l.Own} }

// held is a listener that is wanted, open or not.
type held struct {
	Listener
	who    string
	server server // nil: not open
	silent bool   // as the server is
	err    error  // of the last try
	wait   time.Duration
	next   time.Time // of the next try; valid iff err is not nil
}

func (h *held) settled() bool { return h.err == nil && h.server != nil && h.silent == h.Silent }

// listenerSet opens and closes listeners, in one goroutine.
type listenerSet struct {
	p       *Proxy
	changed chan struct{}      // has room for one
	leaving chan chan struct{} // what comes is closed once all was left
	at      map[place]*held    // of run alone
	serving sync.WaitGroup

	mu       sync.Mutex
	wanted   map[Listener]string
	open     int
	problems int
}

func (s *listenerSet) init(p *Proxy) {
	s.p, s.changed, s.leaving, s.at = p, make(chan struct{}, 1), make(chan chan struct{}), map[place]*held{}
}

func (s *listenerSet) set(wanted map[Listener]string) {
	s.mu.Lock()
	s.wanted = wanted
	s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func (s *listenerSet) count() (open, problems int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open, s.problems
}

func (s *listenerSet) run(ctx context.Context) error {
	defer s.serving.Wait()
	defer s.closeAll()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	defer s.p.inheritance.close()
	unwanted := time.NewTimer(inheritFor)
	defer unwanted.Stop()
	for {
		timer.Reset(s.settle(time.Now()))
		select {
		case <-ctx.Done():
			return nil
		case done := <-s.leaving:
			s.leaveAll()
			close(done)
			<-ctx.Done()
			return nil
		case <-unwanted.C:
			s.p.inheritance.refuse(s.p.config.Keeper)
		case <-s.changed:
		case <-timer.C:
		}
	}
}

// settle brings the listeners to what is wanted, as far as it can, and returns when to try the rest again.
func (s *listenerSet) settle(now time.Time) time.Duration {
	s.take()
	again := time.Hour
	open, problems := 0, 0
	for _, h := range s.at {
		if !h.settled() && !now.Before(h.next) {
			s.try(h, now)
		}
		if h.server != nil {
			open++
		}
		if h.err != nil {
			problems++
			again = min(again, h.next.Sub(now))
		}
	}
	s.mu.Lock()
	s.open, s.problems = open, problems
	s.mu.Unlock()
	return again
}

// take makes s.at what is wanted, and closes what is not wanted any more.
func (s *listenerSet) take() {
	s.mu.Lock()
	wanted := s.wanted
	s.mu.Unlock()
	want := make(map[place]Listener, len(wanted))
	for l := range wanted {
		at := l.place()
		if other, both := want[at]; both && !other.Silent {
			continue // of two at one place the one that serves
		}
		want[at] = l
	}
	for at, h := range s.at {
		if _, ok := want[at]; !ok {
			s.end(h)
			delete(s.at, at)
		}
	}
	for at, l := range want {
		h := s.at[at]
		if h == nil {
			h = &held{}
			s.at[at] = h
		}
		h.Listener, h.who = l, wanted[l]
	}
}

// try opens a listener, or makes an open one silent or not.
func (s *listenerSet) try(h *held, now time.Time) {
	before := h.err
	if h.server == nil {
		h.server, h.err = s.p.open(h.Listener)
		if h.err == nil {
			s.serving.Go(h.server.serve)
			s.keep(h)
		}
	} else {
		h.err = h.server.setSilent(h.Silent)
	}
	if h.err == nil {
		h.silent, h.wait, h.next = h.Silent, 0, time.Time{}
	} else {
		h.wait = min(max(2*h.wait, firstRetry), lastRetry)
		h.next = now.Add(h.wait)
	}
	s.tell(h, before)
}

// keep has the socket of a listener of TCP that has opened kept.
func (s *listenerSet) keep(h *held) {
	l, ok := h.server.(*tcpListener)
	if !ok {
		return
	}
	if err := l.lend(h.Listener, s.p.config.Keeper.Keep); err != nil {
		s.p.log.Warn("clients of a listener would be refused while this daemon is started again", "listener", h.Listener, "err", err)
	}
}

// tell reports a problem that is new or over.
func (s *listenerSet) tell(h *held, before error) {
	if text(h.err) == text(before) {
		return
	}
	if h.err != nil {
		s.p.log.Warn("listener cannot be opened", "listener", h.Listener, "for", h.who, "err", h.err)
	} else {
		s.p.log.Info("listener is open", "listener", h.Listener, "for", h.who)
	}
	s.p.config.Problem(h.Listener, h.who, h.err)
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// end closes a listener that is not wanted any more.
func (s *listenerSet) end(h *held) {
	switch server := h.server.(type) {
	case nil:
	case *tcpListener:
		server.hangUp(h.Listener)
		s.p.config.Keeper.Drop(h.Listener)
	default:
		server.close()
	}
	if h.err != nil {
		s.p.config.Problem(h.Listener, h.who, nil)
	}
}

func (s *listenerSet) closeAll() {
	for _, h := range s.at {
		if h.server != nil {
			h.server.close()
		}
	}
	clear(s.at)
	s.mu.Lock()
	s.open, s.problems = 0, 0
	s.mu.Unlock()
}
