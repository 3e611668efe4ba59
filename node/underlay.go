package node

import (
	"context"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/node/parent"
	"github.com/middleway-net/middleway/node/underlay"
)

// UnderlayStatus is what a daemon tells of the network between the nodes.
type UnderlayStatus struct {
	underlay.Choice
	// Sockets is the path at which a parent process hands the sockets in; empty if they are the daemon's own.
	Sockets string `json:"sockets,omitempty"`
	// Changed says what became of the interface since the start, which only the next start takes into account; empty if
	// nothing did.
	Changed string `json:"changed,omitempty"`
}

// outside is the network namespace of the underlay: this process's own, or a parent's.
type outside interface {
	Socket(domain, typ, proto int) (fd int, err error)
	Interfaces() ([]underlay.Interface, error)
	Watch(ctx context.Context, changed func()) error
}

var (
	_ outside = here{}
	_ outside = (*parent.Client)(nil)
)

// here is the network namespace of this process.
type here struct{}

func (here) Socket(domain, typ, proto int) (int, error) { return unix.Socket(domain, typ, proto) }
func (here) Interfaces() ([]underlay.Interface, error)  { return underlay.Interfaces() }
func (here) Watch(ctx context.Context, changed func()) error {
	return underlay.Watch(ctx, changed)
}

// wayOut is the node's place on the underlay.
type wayOut struct {
	outside
	underlay.Choice
	mtu     int                    // of the whole interface at the start, bytes
	changed atomic.Pointer[string] // what became of it; nil if nothing did
}

// findUnderlay finds the node's address, or checks the one that was configured, and checks the configuration against it.
func (n *Node) findUnderlay() error {
	n.out.outside = here{}
	if n.config.Sockets != "" {
		client, err := parent.Dial(n.config.Sockets)
		if err != nil {
			return err
		}
		n.out.outside = client
	}
	interfaces, err := n.out.Interfaces()
	if err != nil {
		return err
	}
	if n.out.Choice, err = n.chooseUnderlay(interfaces); err != nil {
		return err
	}
	own, err := underlay.ByAddress(n.out.Address, interfaces)
	if err != nil {
		return err
	}
	n.out.mtu = own.MTU
	n.config.Underlay = underlay.Config{} // it has served
	n.config.setAddress(n.out.Address)
	return unusable(n.config.check())
}

func (n *Node) chooseUnderlay(interfaces []underlay.Interface) (underlay.Choice, error) {
	if n.config.Address.IsValid() {
		return underlay.ByAddress(n.config.Address, interfaces)
	}
	toward := func(dst netip.Addr) (underlay.Path, error) { return underlay.Toward(n.out.Socket, dst) }
	choice, err := underlay.Choose(n.config.Underlay, interfaces, n.config.podRanges(), toward)
	if err == nil {
		return choice, nil
	}
	// An address that only the pods' ranges keep from being chosen was hardly meant for pods.
	if other, e := underlay.Choose(n.config.Underlay, interfaces, nil, toward); e == nil {
		for _, r := range n.config.podRanges() {
			if r.Contains(other.Address) {
				err = addressAmongPods(other.Address, r)
			}
		}
	}
	return choice, err
}

// watchUnderlay warns of changes of the interface, and of the end of the parent, until ctx ends. What is open goes on.
func (n *Node) watchUnderlay(ctx context.Context) error {
	for lost := false; ctx.Err() == nil; {
		err := n.out.Watch(ctx, func() {
			if lost {
				n.log.Info("the underlay is watched again")
				lost = false
			}
			n.lookAtUnderlay()
		})
		if ctx.Err() == nil && !lost {
			n.log.Warn("the underlay is not watched until this is mended; what is connected goes on", "err", err)
			lost = true
		}
		select {
		case <-ctx.Done():
		case <-time.After(watchRetry):
		}
	}
	return nil
}

// lookAtUnderlay compares the interface with what it was at the start.
func (n *Node) lookAtUnderlay() {
	interfaces, err := n.out.Interfaces()
	if err != nil {
		n.log.Warn("look at the underlay", "err", err)
		return
	}
	var change string
	switch now, err := underlay.ByAddress(n.out.Address, interfaces); {
	case err != nil:
		change = err.Error()
	case now.MTU != n.out.mtu:
		change = fmt.Sprintf("%s has an MTU of %d bytes, and had %d at the start", now.Interface, now.MTU, n.out.mtu)
	}
	if change == n.underlayStatus().Changed {
		return
	}
	n.out.changed.Store(&change)
	if change == "" {
		n.log.Info("the underlay is as it was at the start")
		return
	}
	n.log.Warn("the underlay has changed; if it stays so, restart the daemon", "change", change)
}

func (n *Node) underlayStatus() UnderlayStatus {
	st := UnderlayStatus{Choice: n.out.Choice, Sockets: n.config.Sockets}
	if change := n.out.changed.Load(); change != nil {
		st.Changed = *change
	}
	return st
}
