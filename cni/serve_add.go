package cni

import (
	"errors"
	"fmt"
	"time"

	"github.com/middleway-net/middleway/cni/ipam"
	"github.com/middleway-net/middleway/cni/netns"
	"github.com/middleway-net/middleway/unixsock"
)

// lastWord is for how much longer than it may live the plugin's last word is waited for.
const lastWord = 5 * time.Second

// add serves an ADD from its request to the plugin's last word. Whatever fails or breaks off on the way is taken back.
func (s *Server) add(c conn, r *request) {
	begin := time.Now()
	unlock, err := s.lockFor(c, r.Key)
	if err != nil {
		s.log.Warn("pod was not added", "container", r.ContainerID, "ifname", r.IfName, "err", err)
		return
	}
	defer unlock()
	l, err := s.reserve(r)
	if err == nil {
		if err = s.attach(c, l); err == nil {
			s.added(time.Since(begin))
			return
		}
		err = errors.Join(err, s.removeLocked(l.Key, "ADD failed"))
	}
	e := coded(err, codeInternal, "add pod")
	s.log.Warn("pod was not added", "container", r.ContainerID, "ifname", r.IfName, "err", e)
	_ = c.send(response{Error: e}) // the plugin may have gone
}

// reserve leases addresses to the request's interface.
func (s *Server) reserve(r *request) (l ipam.Lease, err error) {
	// A DEL that found no daemon came before.
	if err := s.obeyLocked(r.Key); err != nil {
		return l, err
	}
	id, err := netns.Identify(r.Netns)
	if err != nil || id != r.NetnsID {
		return l, fail(codeNetns, "the node daemon does not see the pod's network namespace",
			fmt.Sprintf("%s is not there for the daemon, or is another one; let it see the runtime's namespaces (in a container: hostPath /run/netns with mountPropagation HostToContainer, and hostPID) (%v)", r.Netns, err))
	}
	s.trust(r.Netns)
	l, err = s.leases.Reserve(ipam.Lease{
		Key: r.Key, Network: r.Network, Pod: r.Pod, Netns: r.Netns, NetnsDev: id.Dev, NetnsInode: id.Inode, PIDNS: pidNamespace(),
		Portable: s.node.Grant(nil).Portable, PortMappings: r.PortMappings, Since: time.Now(),
	}, r.IPs)
	switch {
	case errors.Is(err, ipam.ErrExhausted):
		err = fail(codeExhausted, ipam.ErrExhausted.Error(), rest(err, ipam.ErrExhausted))
	case errors.Is(err, ipam.ErrUnavailable):
		err = fail(codeAddress, ipam.ErrUnavailable.Error(), rest(err, ipam.ErrUnavailable))
	case errors.Is(err, ipam.ErrHostPort):
		err = fail(codeHostPort, ipam.ErrHostPort.Error(), rest(err, ipam.ErrHostPort))
	case errors.Is(err, ipam.ErrExists):
		err = fail(codeExists, ipam.ErrExists.Error(), rest(err, ipam.ErrExists)+"; DEL comes before another ADD")
	}
	return l, err
}

// attach gives a lease to the plugin, takes over the device that it makes of it, and waits until it has told the runtime.
func (s *Server) attach(c conn, l ipam.Lease) error {
	if err := c.send(response{grant: s.grantOf(l)}); err != nil {
		return fmt.Errorf("answer the plugin: %w", err)
	}
	var r request
	queues, err := c.receive(&r)
	if err == nil && r.Op != opDevice {
		unixsock.Close(queues...)
		err = fmt.Errorf("got %q", r.Op)
	}
	if err != nil {
		return fmt.Errorf("wait for the pod's device: %w", err)
	}
	a, err := s.node.Adopt(l, queues)
	if err != nil {
		return err
	}
	s.put(l.Key, a)
	if err := a.Keep(); err != nil {
		return err
	}
	if err := s.leases.Commit(l.Key, r.Index); err != nil {
		return err
	}
	s.changed()
	if err := c.send(response{}); err != nil {
		return fmt.Errorf("answer the plugin: %w", err)
	}
	// From here on the plugin may succeed at any time, so only its end without a word takes anything back, or that it has
	// said nothing for longer than it may live: it was stopped, and knows that it is late when it goes on.
	_ = c.SetDeadline(time.Now().Add(s.patience))
	fds, err := c.receive(&r)
	unixsock.Close(fds...)
	if s.isStopping() || err == nil && r.Op == opDone {
		return nil
	}
	return fmt.Errorf("the plugin did not say that it has told the container runtime (%v)", err)
}

func (s *Server) isStopping() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopping
}
