package cni

import (
	"context"
	"errors"
	"io/fs"
	"syscall"
	"time"

	"github.com/middleway-net/middleway/cni/ipam"
	"github.com/middleway-net/middleway/cni/link"
	"github.com/middleway-net/middleway/cni/netns"
)

// reconcile makes of the leases that a former daemon left what is true now. Nothing it finds keeps the daemon from
// starting: a pod that cannot be taken up is tried again later.
func (s *Server) reconcile() {
	s.obeyTombstones()
	for _, l := range s.leases.All() {
		if out := s.leases.Outside(l); len(out) > 0 {
			s.log.Warn("pod has addresses outside podCIDRs; other nodes do not take its packets; delete and remake it", "pod", l.Name(), "addrs", out)
		}
		s.takeUp(l)
	}
}

// takeUp takes up or ends one attachment; its key is locked, or nobody else is there.
func (s *Server) takeUp(l ipam.Lease) {
	switch gone := namespaceGone(l); {
	case gone:
		s.end(l.Key, "network namespace is gone")
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
	a, err := s.reopen(l)
	switch {
	case errors.Is(err, link.ErrGone):
		s.end(l.Key, err.Error())
	case err != nil:
		s.log.Error("take up pod; it has no network until the daemon has tried again", "pod", l.Name(), "err", err)
	default:
		s.put(l.Key, a)
	}
}

// reopenTries and reopenPause bound how long a device is waited for whose plugin is just about to end: it may still have
// the queues open when a daemon that was killed comes back.
const (
	reopenTries = 20
	reopenPause = 50 * time.Millisecond
)

func (s *Server) reopen(l ipam.Lease) (a Attachment, err error) {
	for try := range reopenTries {
		if try > 0 {
			time.Sleep(reopenPause)
		}
		if a, err = s.node.Reopen(l); !errors.Is(err, syscall.EBUSY) {
			break
		}
	}
	return a, err
}

// end is removeLocked for callers that can only log an error.
func (s *Server) end(k ipam.Key, why string) {
	if err := s.removeLocked(k, why); err != nil {
		s.log.Error("release pod's addresses", "container", k.ContainerID, "ifname", k.IfName, "err", err)
	}
}

// namespaceGone reports whether the path of a lease no longer names the namespace that it named. What cannot be told is
// not gone.
func namespaceGone(l ipam.Lease) bool {
	id, err := netns.Identify(l.Netns)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
	}
	return id != netns.ID{Dev: l.NetnsDev, Inode: l.NetnsInode}
}

// watch looks after the attachments until ctx ends: an open queue pins its namespace, so that a pod that ended without a
// DEL would keep it for ever.
func (s *Server) watch(ctx context.Context) {
	// A DEL may have found no socket while New looked for tombstones.
	s.look()
	t := time.NewTicker(s.interval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			s.look()
		}
	}
}

func (s *Server) look() {
	s.obeyTombstones()
	for _, l := range s.leases.All() {
		s.lookAt(l.Key)
	}
}

// lookAt takes up what could not be taken up before, and ends what has gone. An attachment that somebody works on is left
// for the next time.
func (s *Server) lookAt(k ipam.Key) {
	s.mu.Lock()
	_, busy := s.busy[k]
	s.mu.Unlock()
	if busy {
		return
	}
	defer s.lock(k)()
	if l, ok := s.leases.Get(k); ok && (!s.Attached(k) || namespaceGone(l)) {
		s.takeUp(l)
	}
}

// obeyTombstones ends attachments that were deleted while no daemon answered.
func (s *Server) obeyTombstones() {
	keys, err := buried(s.socket)
	if err != nil {
		s.log.Warn("tombstones", "err", err)
	}
	for _, k := range keys {
		s.obey(k)
	}
}

func (s *Server) obey(k ipam.Key) {
	defer s.lock(k)()
	if err := s.obeyLocked(k); err != nil {
		s.log.Error("end a deleted pod; it is tried again", "container", k.ContainerID, "ifname", k.IfName, "err", err)
	}
}

// obeyLocked does what the tombstone of k says, if there is one: an ADD may have done it while we waited for k.
func (s *Server) obeyLocked(k ipam.Key) error {
	if !isBuried(s.socket, k) {
		return nil
	}
	if l, ok := s.leases.Get(k); ok {
		if !s.Attached(k) && !namespaceGone(l) {
			if err := link.Remove(l.Netns, l.IfName, alias(l.ContainerID)); err != nil {
				return err
			}
		}
		if err := s.removeLocked(k, "deleted while no daemon answered"); err != nil {
			return err
		}
	}
	return exhume(s.socket, k)
}
