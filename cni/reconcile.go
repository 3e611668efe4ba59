package cni

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"time"

	"github.com/middleway-net/middleway/cni/ipam"
	"github.com/middleway-net/middleway/cni/link"
)

// reconcile makes of the leases that a former daemon left what is true now. Nothing it finds keeps the daemon from
// starting: a pod that cannot be taken up is tried again later.
func (s *Server) reconcile() {
	s.obeyTombstones()
	s.doubt()
	until := time.Now().Add(reopenPatience)
	for _, l := range s.leases.All() {
		if out := s.leases.Outside(l); len(out) > 0 {
			s.log.Warn("pod has addresses outside podCIDRs; other nodes do not take its packets; delete and remake it", "pod", l.Name(), "addrs", out)
		}
		s.takeUp(l, until)
	}
}

// takeUp takes up or ends one attachment; its key is locked, or nobody else is there. A device that is busy is waited for
// until the given instant.
func (s *Server) takeUp(l ipam.Lease, until time.Time) {
	switch see := s.look(l); {
	case see == gone:
		s.end(l.Key, "network namespace is gone")
		return
	case see == hidden:
		s.log.Error("take up pod; it has no network until the daemon sees its network namespace", "pod", l.Name(), "netns", l.Netns)
		return
	case l.State == ipam.Pending:
		// Nobody was told of it. The device may be persistent already.
		if err := link.Remove(l.Netns, l.IfName, alias(l.ContainerID)); err != nil {
			s.log.Warn("remove what an interrupted ADD left", "pod", l.Name(), "err", err)
			return
		}
		s.end(l.Key, "ADD was interrupted")
		return
	}
	a, err := s.reopen(l, until)
	switch {
	case errors.Is(err, link.ErrGone):
		s.end(l.Key, err.Error())
	case err != nil:
		s.log.Error("take up pod; it has no network until the daemon has tried again", "pod", l.Name(), "err", err)
	default:
		s.put(l.Key, a)
	}
}

// reopenPatience bounds for how long a start waits in all for devices whose plugin is just about to end: it may still have
// the queues open when a daemon that was killed comes back. The rest is left to the watch.
const (
	reopenPatience = time.Second
	reopenPause    = 50 * time.Millisecond
)

func (s *Server) reopen(l ipam.Lease, until time.Time) (a Attachment, err error) {
	for {
		a, err = s.node.Reopen(l)
		if !errors.Is(err, syscall.EBUSY) || time.Now().After(until) {
			return a, err
		}
		time.Sleep(reopenPause)
	}
}

// end is removeLocked for callers that can only log an error.
func (s *Server) end(k ipam.Key, why string) {
	if err := s.removeLocked(k, why); err != nil {
		s.log.Error("release pod's addresses", "container", k.ContainerID, "ifname", k.IfName, "err", err)
	}
}

// watch looks after the attachments until ctx ends: an open queue pins its namespace, so that a pod that ended without a
// DEL would keep it for ever.
func (s *Server) watch(ctx context.Context) {
	// A DEL may have found no socket while New looked for tombstones.
	s.lookAround()
	t := time.NewTicker(s.interval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			s.lookAround()
		}
	}
}

// lookAround waits for nobody: an attachment that somebody works on is left for the next time.
func (s *Server) lookAround() {
	s.obeyTombstones()
	for _, l := range s.leases.All() {
		s.lookAt(l.Key)
	}
}

// lookAt takes up what could not be taken up before, and ends what has gone.
func (s *Server) lookAt(k ipam.Key) {
	unlock, busy := s.tryLock(k)
	if busy != nil {
		return
	}
	defer unlock()
	if l, ok := s.leases.Get(k); ok && (!s.Attached(k) || s.look(l) == gone) {
		s.takeUp(l, time.Time{})
	}
}

// obeyTombstones ends attachments that were deleted while no daemon answered.
func (s *Server) obeyTombstones() {
	names, err := buried(s.socket)
	if err != nil {
		s.log.Warn("look for tombstones; deleted pods keep their addresses until that succeeds", "err", err)
	}
	for _, name := range names {
		if k, ok := s.whose(name); ok {
			s.obey(k)
		}
	}
}

// whose returns whose tombstone has a name. One of nobody is removed: neither has anybody a lease, nor is at work to get one.
func (s *Server) whose(name string) (k ipam.Key, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.busy {
		if tombstoneName(k) == name {
			return k, true
		}
	}
	for _, l := range s.leases.All() {
		if tombstoneName(l.Key) == name {
			return l.Key, true
		}
	}
	if err := exhume(s.socket, name); err != nil {
		s.log.Warn("remove the tombstone of a pod that has ended", "err", err)
	}
	return k, false
}

func (s *Server) obey(k ipam.Key) {
	unlock, busy := s.tryLock(k)
	if busy != nil {
		return
	}
	defer unlock()
	if err := s.obeyLocked(k); err != nil {
		s.log.Error("end a deleted pod; it is tried again", "container", k.ContainerID, "ifname", k.IfName, "err", err)
	}
}

// obeyLocked does what the tombstone of k says, if there is one.
func (s *Server) obeyLocked(k ipam.Key) error {
	name := tombstoneName(k)
	if there, err := isBuried(s.socket, name); !there {
		return err
	}
	if l, ok := s.leases.Get(k); ok {
		if see, _ := sightOf(l); see == present && !s.Attached(k) {
			if err := link.Remove(l.Netns, l.IfName, alias(l.ContainerID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("remove its device: %w", err)
			}
		}
		if err := s.removeLocked(k, "deleted while no daemon answered"); err != nil {
			return err
		}
	}
	return exhume(s.socket, name)
}
