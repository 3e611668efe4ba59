package node

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/middleway-net/middleway/cni"
)

const (
	readyPause       = 50 * time.Millisecond // between looks whether this node serves, until it does for the first time
	conflistInterval = time.Minute           // between looks at the directory, whatever the kernel tells
)

// conflist is the network configuration that this node writes.
func (c *Config) conflist() cni.Conflist {
	return cni.Conflist{Path: c.CNI.Conflist, Socket: c.CNI.Socket}
}

// keepConflist writes the network configuration once this node serves, so that the runtime attaches no pod before, and again whenever it
// is another or has gone, until ctx ends. It stays when the daemon ends: the next one is about to start.
func (n *Node) keepConflist(ctx context.Context) error {
	if !n.awaitReady(ctx) {
		return nil
	}
	var p pace
	for ctx.Err() == nil {
		changed, stop := n.watchConflist()
		for more := true; more; {
			wait(ctx, p.left(time.Now()))
			if n.writeConflist() {
				p.tried(time.Now()) // somebody else may write there too, and an attempt that fails leaves events behind it itself
			}
			select {
			case <-ctx.Done():
				more = false
			case <-changed:
			case <-time.After(conflistInterval): // the directory may be another one
				more = false
			}
		}
		stop()
	}
	return nil
}

// awaitReady waits until this node serves for the first time. It returns false if ctx ends before.
func (n *Node) awaitReady(ctx context.Context) bool {
	for n.readiness() != nil {
		if !wait(ctx, readyPause) {
			return false
		}
	}
	return true
}

// wait waits for d. It returns false if ctx ends before.
func wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// watchConflist tells of changes in the configuration's directory until stop. Where the kernel has no watch left it tells of none.
func (n *Node) watchConflist() (changed <-chan fsnotify.Event, stop func()) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, func() {}
	}
	_ = w.Add(filepath.Dir(n.config.CNI.Conflist)) // it is made when the file is first written, and then looked at after the interval
	return w.Events, func() { _ = w.Close() }
}

// writeConflist makes the configuration what it is to be, and looks whether another one comes before it. It reports whether it had to write,
// successfully or not.
func (n *Node) writeConflist() (tried bool) {
	c := n.config.conflist()
	wrote, err := c.Write()
	if err != nil {
		n.troubles.begin("conflist", reasonConflist, sentence(err)+"; no pod of this node gets a network before")
		return true
	}
	n.troubles.end("conflist", "the network configuration could be written")
	if wrote {
		n.log.Info("the network configuration is written", "path", c.Path)
	}
	switch other, err := c.Before(); {
	case err != nil:
		n.log.Warn("look for other network configurations", "err", err)
	case other != "":
		n.troubles.begin("other", reasonOtherCNI, fmt.Sprintf(
			"new pods of this node get the network of %s, which comes before %s by name; remove it, if that network is no longer wanted, or rename it so that it comes after",
			filepath.Base(other), filepath.Base(c.Path)))
	default:
		n.troubles.end("other", "the network configuration is the first one by name")
	}
	return wrote
}
