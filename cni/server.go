package cni

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/middleway-net/middleway/cni/ipam"
	"github.com/middleway-net/middleway/unixsock"
)

// Node is what the server needs of the node daemon.
type Node interface {
	// Grant returns what a new interface with these addresses gets. With no address it is the node's MTU and the like.
	Grant(addrs []netip.Addr) Grant
	// Adopt moves the packets of a pod's device from now on, of which another process has opened the queues. It takes
	// ownership of them.
	Adopt(l ipam.Lease, queues []int) (Attachment, error)
	// Reopen is Adopt for a device that a former daemon has left in the pod's namespace; link.ErrGone if it is not there.
	Reopen(l ipam.Lease) (Attachment, error)
}

// Grant is what the node says about a new interface.
type Grant struct {
	Gateways    []netip.Addr // of the families of the addresses
	MTU         int          // bytes
	Queues      int          // of the device
	Portable    bool         // one queue, for the portable back end
	MaxSegments int          // of a super-packet, 0: the kernel's bound
}

// Attachment is a pod's device in the hands of the node.
type Attachment interface {
	// Keep makes the device outlive the daemon.
	Keep() error
	// Lost reports whether somebody else has removed the device.
	Lost() bool
	// Remove ends the attachment and the device.
	Remove() error
}

// Config configures a Server.
type Config struct {
	// Socket is the path of the unix socket; one that nobody answers is replaced. Tombstones lie in the directory
	// "tombstones" beside it, so that a directory has room for one daemon's socket. Required.
	Socket string
	// Leases are the node's. The caller closes them after Run has returned. Required.
	Leases *ipam.Store
	// Node is the node. Required.
	Node Node
	// Changed is called after a lease was committed or released, from any goroutine and already in New; it must not block. Default:
	// nobody is told.
	Changed func()
	// Added is called after a pod was attached, with the time from the plugin's request until it had told the runtime. Default: nobody is told.
	Added func(took time.Duration)
	// Interval is how often the server looks for namespaces that have gone and for tombstones. Default one minute.
	Interval time.Duration
	// Logger takes state changes. Default: none.
	Logger *slog.Logger
}

// DefaultInterval is how often a Server looks for what has gone unless it is told otherwise.
const DefaultInterval = time.Minute

// Server is the daemon's side: it owns the attachments that the plugin makes.
type Server struct {
	socket   string
	interval time.Duration
	leases   *ipam.Store
	node     Node
	changed  func()
	added    func(took time.Duration)
	log      *slog.Logger
	patience time.Duration // with a plugin that has its device, from then on
	listener *unixsock.Listener
	claim    *os.File // lock
	fresh    bool     // the directory of tombstones was made, and Run not called

	mu       sync.Mutex // guards what follows
	stopping bool
	conns    map[conn]bool
	busy     map[ipam.Key]chan struct{} // closed when the key is free again
	attached map[ipam.Key]Attachment
	doubted  map[string]bool // places in which no namespace was to be seen; see doubt
}

// New takes up the attachments that a former daemon left, ends those that have gone, and opens the socket. Plugins wait
// there until Run answers them.
func New(c Config) (*Server, error) {
	if c.Interval == 0 {
		c.Interval = DefaultInterval
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Changed == nil {
		c.Changed = func() {}
	}
	if c.Added == nil {
		c.Added = func(time.Duration) {}
	}
	s := &Server{
		socket: c.Socket, interval: c.Interval, leases: c.Leases, node: c.Node, changed: c.Changed, added: c.Added, log: c.Logger,
		patience: deadline + lastWord,
		conns:    map[conn]bool{}, busy: map[ipam.Key]chan struct{}{}, attached: map[ipam.Key]Attachment{}, doubted: map[string]bool{},
	}
	var err error
	if s.claim, s.fresh, err = claim(s.socket); err != nil {
		return nil, err
	}
	s.reconcile()
	if err := s.listen(); err != nil {
		s.removeDir()
		return nil, errors.Join(err, s.claim.Close())
	}
	return s, nil
}

// Run answers plugins until ctx ends, and returns after the last of them has its answer or was hung up on. Attachments
// stay.
func (s *Server) Run(ctx context.Context) error {
	s.fresh = false
	stopped := make(chan struct{})
	withdraw := context.AfterFunc(ctx, func() {
		defer close(stopped)
		s.stop()
	})
	defer func() {
		if !withdraw() {
			<-stopped // the socket's directory is free for the next server
		}
	}()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { s.watch(ctx) })
	for {
		c, err := s.listener.AcceptUnix()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil: // too many open files, for example
			s.log.Warn("accept a plugin", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		wg.Go(func() { s.serve(conn{c}) })
	}
}

// stop hangs up on everybody.
func (s *Server) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopping = true
	_ = s.Close()
	for c := range s.conns {
		_ = c.Close()
	}
}

// enter takes a connection into account; false: the server is stopping.
func (s *Server) enter(c conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stopping {
		s.conns[c] = true
	}
	return !s.stopping
}

func (s *Server) leave(c conn) {
	_ = c.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// serve answers one plugin.
func (s *Server) serve(c conn) {
	defer s.leave(c)
	if !s.enter(c) {
		return
	}
	if peer, err := unixsock.Peer(c.UnixConn); err != nil {
		s.log.Warn("a process that is not known has asked", "err", err)
		return
	} else if peer.Uid != 0 && int(peer.Uid) != os.Geteuid() {
		s.log.Warn("a process that may not ask has asked", "uid", peer.Uid, "pid", peer.Pid)
		return
	}
	_ = c.SetDeadline(time.Now().Add(deadline))
	var r request
	fds, err := c.receive(&r)
	unixsock.Close(fds...) // none belong here
	if errors.Is(err, io.EOF) {
		return
	}
	if err == nil {
		err = r.check()
	}
	if err != nil {
		s.log.Warn("refused a plugin's request", "err", err)
		_ = c.send(response{Error: coded(err, codeDecode, "invalid request")})
		return
	}
	s.answer(c, &r)
}

// answer does what was asked and says so.
func (s *Server) answer(c conn, r *request) {
	var g grant
	var err error
	switch r.Op {
	case opAdd:
		s.add(c, r)
		return
	case opDel:
		err = s.remove(c, r.Key, "deleted")
	case opCheck:
		g, err = s.check(r)
	case opGC:
		err = s.collect(c, r)
	case opStatus:
		if err = s.leases.Available(); err != nil {
			err = fail(codeUnavailable, ipam.ErrExhausted.Error(), rest(err, ipam.ErrExhausted))
		}
	default:
		err = fail(codeDecode, "invalid request", fmt.Sprintf("%q does not come first", r.Op))
	}
	var e *types.Error
	if err != nil {
		e = coded(err, codeInternal, r.Op)
		s.log.Warn("plugin gets an error", "op", r.Op, "container", r.ContainerID, "ifname", r.IfName, "err", e)
	}
	_ = c.send(response{Error: e, grant: g})
}

// lock waits until nobody else works on a key and takes it; the result frees it.
func (s *Server) lock(k ipam.Key) (unlock func()) {
	for {
		unlock, other := s.tryLock(k)
		if other == nil {
			return unlock
		}
		<-other
	}
}

// tryLock takes a key unless somebody else works on it, until other is closed.
func (s *Server) tryLock(k ipam.Key) (unlock func(), other <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if other := s.busy[k]; other != nil {
		return nil, other
	}
	mine := make(chan struct{})
	s.busy[k] = mine
	return func() {
		s.mu.Lock()
		delete(s.busy, k)
		s.mu.Unlock()
		close(mine)
	}, nil
}

// lockFor is lock for who asks on c. One who has hung up meanwhile has made other arrangements, such as a tombstone, so that
// nothing is to be done for him any more.
func (s *Server) lockFor(c conn, k ipam.Key) (unlock func(), err error) {
	unlock = s.lock(k)
	if c.hungUp() {
		unlock()
		return nil, errors.New("the plugin hung up before its turn came")
	}
	return unlock, nil
}

// remove ends an attachment, whatever there is of it, for who asks on c.
func (s *Server) remove(c conn, k ipam.Key, why string) error {
	unlock, err := s.lockFor(c, k)
	if err != nil {
		return err
	}
	defer unlock()
	return s.removeLocked(k, why)
}

// removeLocked needs k locked. The device goes before the lease: whoever finds the lease looks for the device.
func (s *Server) removeLocked(k ipam.Key, why string) error {
	if a := s.take(k); a != nil {
		if err := a.Remove(); err != nil {
			s.log.Warn("remove a pod's device", "container", k.ContainerID, "ifname", k.IfName, "err", err)
		}
	}
	l, ok := s.leases.Get(k)
	if !ok {
		return nil
	}
	if err := s.leases.Release(k); err != nil {
		return err
	}
	s.changed()
	s.log.Info("pod's addresses are free", "pod", l.Name(), "container", k.ContainerID, "ifname", k.IfName, "addrs", l.Addrs, "reason", why)
	return nil
}

// take takes an attachment out; nil if there is none.
func (s *Server) take(k ipam.Key) Attachment {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.attached[k]
	delete(s.attached, k)
	return a
}

func (s *Server) put(k ipam.Key, a Attachment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attached[k] = a
}

// Attached reports whether the packets of a lease's interface move.
func (s *Server) Attached(k ipam.Key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.attached[k] != nil
}

// Lost reports whether a lease's interface was removed while its packets moved. Its addresses stay leased until the runtime ends the
// attachment.
func (s *Server) Lost(k ipam.Key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.attached[k]
	return a != nil && a.Lost()
}

// check compares what a runtime knows of an attachment with what is so.
func (s *Server) check(r *request) (grant, error) {
	defer s.lock(r.Key)()
	l, ok := s.leases.Get(r.Key)
	switch {
	case !ok || l.State != ipam.Attached:
		return grant{}, fail(codeUnlike, "not as it should be", fmt.Sprintf("%v has no addresses leased; DEL and ADD it", r.Key))
	case l.NetnsDev != r.NetnsID.Dev || l.NetnsInode != r.NetnsID.Inode:
		return grant{}, fail(codeUnlike, "not as it should be", fmt.Sprintf("%s is not the network namespace to which %v was added", r.Netns, r.Key))
	case !ipam.SamePortMappings(l.PortMappings, r.PortMappings):
		return grant{}, fail(codeUnlike, "not as it should be", fmt.Sprintf("%v has host ports %v, and the runtime tells of %v", r.Key, l.PortMappings, r.PortMappings))
	case !s.Attached(r.Key):
		return grant{}, fail(codeUnlike, "not as it should be", fmt.Sprintf("the daemon could not take up %v and tries again; its log says why", r.Key))
	case s.Lost(r.Key):
		return grant{}, fail(codeUnlike, "not as it should be", fmt.Sprintf("somebody has removed the interface of %v; DEL and ADD it", r.Key))
	}
	return s.grantOf(l), nil
}

func (s *Server) grantOf(l ipam.Lease) grant {
	n := s.node.Grant(l.Addrs)
	return grant{Addrs: l.Addrs, Gateways: n.Gateways, MTU: n.MTU, Queues: min(n.Queues, unixsock.MaxFDs), Portable: n.Portable, MaxSegments: n.MaxSegments}
}

// collect ends the attachments of a network that are not among the valid ones, and goes on after an error.
func (s *Server) collect(c conn, r *request) error {
	var errs []error
	for _, l := range s.leases.All() {
		if l.Network == r.Network && !slices.Contains(r.Valid, l.Key) {
			errs = append(errs, s.remove(c, l.Key, "no longer valid (GC)"))
		}
	}
	return errors.Join(errs...)
}
