package node

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/middleway-net/middleway/cni/link"
	"github.com/middleway-net/middleway/node/underlay"
)

// host is the host's attachment.
type host struct {
	device  string        // empty if it is turned off
	changed chan struct{} // has one when links, addresses or routes have changed

	// Of keepHost, once it runs:
	id       uint32 // in the stack
	attached bool   // id is valid
	pace     pace

	stale atomic.Bool // the routes that it has to have are others than those of whole

	mu     sync.Mutex // guards what follows
	whole  link.Host  // as it has to be
	failed error      // why it could not be put back; nil if it was
}

// renew has the routes made those to the peers that there are now.
func (h *host) renew() {
	h.stale.Store(true)
	select {
	case h.changed <- struct{}{}:
	default: // without a device, or about to be looked at
	}
}

// want returns the attachment as it has to be.
func (h *host) want() link.Host {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.whole
}

func (h *host) setWant(whole link.Host) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.whole = whole
}

// fail keeps why the attachment could not be put back, and reports whether that is news.
func (h *host) fail(err error) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	news := err != nil && (h.failed == nil || err.Error() != h.failed.Error())
	h.failed = err
	return news
}

func (h *host) failure() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.failed
}

// look returns what there is of the attachment, and what is missing, in words.
func (h *host) look() (now link.Host, missing string) {
	now, missing, err := h.want().Look()
	if err != nil {
		return now, err.Error()
	}
	if failed := h.failure(); failed != nil {
		missing = cmp.Or(missing, h.device+" is not as it has to be") + "; it could not be put back, which is tried again: " + failed.Error()
	}
	return now, missing
}

// watchRetry is how long to wait before the kernel is asked again, after it did not answer.
const watchRetry = time.Second

// watchHost notes changes of the host's links, addresses and routes until ctx ends.
func (n *Node) watchHost(ctx context.Context) error {
	for ctx.Err() == nil {
		err := underlay.WatchRoutes(ctx, func() {
			select {
			case n.host.changed <- struct{}{}:
			default:
			}
		})
		if err != nil {
			n.log.Warn("the host's device and addresses are not watched for a moment", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(watchRetry):
		}
	}
	return nil
}

// keepHost keeps the host's attachment whole, and the stack's knowledge of the host's addresses true, until ctx ends.
func (n *Node) keepHost(ctx context.Context) error {
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.host.changed:
		case <-again:
		}
		again = nil
		if err := n.setHostAddrs(); err != nil {
			n.log.Warn("the host's addresses are looked at again in a moment", "err", err)
			again = time.After(watchRetry)
		}
		if wait := cmp.Or(n.renewHost(), n.putHostBack()); wait > 0 {
			again = time.After(wait)
		}
	}
}

// renewHost makes the routes of the host's attachment those to the peers. It returns when to try again, 0 if that is not needed.
func (n *Node) renewHost() time.Duration {
	if !n.host.attached || !n.host.stale.Swap(false) {
		return 0
	}
	err := n.restoreHost()
	if err == nil {
		n.host.fail(nil)
		return 0
	}
	n.host.stale.Store(true)
	if n.host.fail(err) {
		n.log.Error("the host does not reach the pods of all peers; it is tried again", "err", err)
	}
	return longestPause
}

// putHostBack restores what is missing of the host's attachment. It returns when to look again, 0 if only after a change.
func (n *Node) putHostBack() time.Duration {
	now, missing, err := n.host.want().Look()
	if err != nil {
		n.log.Warn("the host's device is looked at again in a moment", "err", err)
		return watchRetry
	}
	if n.host.attached && (now.Index == 0 || n.stack.Lost(n.host.id)) {
		missing = cmp.Or(missing, n.host.device+" is gone")
		err = n.detachHost()
	}
	if missing == "" && n.host.attached {
		if !n.host.stale.Load() {
			n.host.fail(nil)
		}
		return 0
	}
	if wait := n.host.pace.left(time.Now()); wait > 0 {
		return wait
	}
	n.host.pace.tried(time.Now())
	if err = errors.Join(err, n.restoreHost()); err == nil {
		n.host.fail(nil)
		n.log.Warn("the host's device is put back", "was", missing)
		return 0
	}
	if n.host.fail(err) {
		n.log.Error("the host's device is not as it has to be, and could not be put back; it is tried again", "was", missing, "err", err)
	}
	return n.host.pace.left(time.Now())
}

// restoreHost makes the host's attachment whole, with a new device if it is not attached.
func (n *Node) restoreHost() error {
	c := n.hostConfig()
	if n.host.attached {
		whole, err := link.RestoreHost(c)
		if err != nil {
			return err
		}
		if slices.Equal(whole.Addrs, n.host.want().Addrs) {
			n.host.setWant(whole)
			return nil
		}
		if err := n.detachHost(); err != nil { // a family was turned off meanwhile
			return err
		}
	}
	dev, err := n.openHost(c)
	if err != nil {
		return err
	}
	return dev.SetPersist(true)
}

func (n *Node) detachHost() error {
	n.host.attached = false
	return n.stack.Detach(n.host.id)
}

// hostStatus returns the state of the host's attachment.
func (n *Node) hostStatus() HostStatus {
	st := HostStatus{Device: n.host.device, Addresses: []netip.Addr{}, Routes: []netip.Prefix{}}
	if n.host.device == "" {
		return st
	}
	now, missing := n.host.look()
	st.Addresses, st.Routes = append(st.Addresses, now.Addrs...), append(st.Routes, now.Routes...)
	st.Missing, st.DirectRouting = missing, n.takesDirectRouting()
	return st
}

// pace spaces attempts: those that come soon after each other have to wait ever longer.
type pace struct {
	last  time.Time
	pause time.Duration // after last
}

const (
	shortestPause = 100 * time.Millisecond
	longestPause  = 30 * time.Second
)

// left returns how long the next attempt has to wait.
func (p *pace) left(now time.Time) time.Duration { return max(0, p.last.Add(p.pause).Sub(now)) }

// tried notes an attempt.
func (p *pace) tried(now time.Time) {
	if now.Sub(p.last) > 2*longestPause {
		p.pause = 0
	}
	p.last, p.pause = now, min(max(2*p.pause, shortestPause), longestPause)
}
