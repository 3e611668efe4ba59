package cni

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/middleway-net/middleway/cni/ipam"
	"github.com/middleway-net/middleway/cni/netns"
)

// sight is what a daemon sees of the network namespace of a lease.
type sight int

const (
	hidden  sight = iota // it may or may not be there
	present              // it is there
	gone                 // it is not
)

// sightOf looks for the namespace of a lease at the path that the runtime gave. proof: a namespace is to be seen at that
// path, be it this or another one.
//
// That there is nothing tells of an end only where namespaces would be seen: the directory must be there, and for a path
// below /proc it must be that of the same pid namespace, in which the number means the same process. A file that is no
// namespace is what a bind mount hides that this process does not see.
func sightOf(l ipam.Lease) (see sight, proof bool) {
	place := placeOf(l.Netns)
	if place == procPlace && l.PIDNS != pidNamespace() {
		return hidden, false
	}
	switch id, err := netns.Identify(l.Netns); {
	case err == nil && id == netns.ID{Dev: l.NetnsDev, Inode: l.NetnsInode}:
		return present, true
	case err == nil && id.Dev == l.NetnsDev:
		return gone, true
	case err == nil, !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR):
		return hidden, false
	}
	if st, err := os.Stat(place); err != nil || !st.IsDir() {
		return hidden, false
	}
	return gone, false
}

// procPlace is there wherever /proc is.
const procPlace = "/proc/self"

// placeOf returns what is there if namespaces with paths like this one are to be seen at all.
func placeOf(path string) string {
	if strings.HasPrefix(path, "/proc/") {
		return procPlace
	}
	return filepath.Dir(path)
}

// pidNamespace returns the inode number of this process' pid namespace, 0 if it cannot be told.
func pidNamespace() uint64 {
	id, err := netns.Identify("/proc/self/ns/pid")
	if err != nil {
		return 0
	}
	return id.Inode
}

// look is sightOf, but in a doubted place nothing is gone because nothing is there. Where a namespace is seen, doubt ends.
func (s *Server) look(l ipam.Lease) sight {
	see, proof := sightOf(l)
	if proof {
		s.trust(l.Netns)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if see == gone && s.doubted[placeOf(l.Netns)] {
		return hidden
	}
	return see
}

func (s *Server) trust(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.doubted, placeOf(path))
}

// doubt finds the places in which several pods had their namespaces and none is to be seen. Sooner than that all pods have
// ended without a DEL, this daemon is in a container that lacks what the former one saw. Their addresses must not come to
// other pods while they live, so they are kept until the runtime deletes them, or a namespace is seen in that place.
func (s *Server) doubt() {
	pods, seen := map[string]int{}, map[string]bool{}
	for _, l := range s.leases.All() {
		place := placeOf(l.Netns)
		if l.State == ipam.Attached {
			pods[place]++
		}
		if _, proof := sightOf(l); proof {
			seen[place] = true
		}
	}
	for place, n := range pods {
		if n == 1 || seen[place] {
			continue
		}
		s.log.Error("no network namespace of the node's pods is to be seen; they have no network, and keep their addresses until they are deleted; let the daemon see the runtime's namespaces (in a container: hostPath /run/netns with mountPropagation HostToContainer, and hostPID)",
			"in", place, "pods", n)
		s.mu.Lock()
		s.doubted[place] = true
		s.mu.Unlock()
	}
}
