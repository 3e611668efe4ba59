package fdstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/unixsock"
)

// How often Run looks whether the store is there, how often it tries to reach one that is not, and how long one may take until it has given
// what it has.
const (
	pingEvery    = 2 * time.Second
	retryEvery   = time.Second
	openPatience = 5 * time.Second
)

// Client has descriptors kept by a store. Where there is none, or it was started again, it gets all of them as soon as it is there. Keep and
// Drop may be called by several goroutines, and wait for nobody.
type Client struct {
	path string
	log  *slog.Logger
	wake chan struct{} // has one when kept has changed

	// Of Open and Run.
	conn *net.UnixConn  // nil: the store is not there
	has  map[string]int // what the store has, by the numbers of entries
	told string         // the problem that was logged last

	mu    sync.Mutex // guards what follows
	kept  map[string]entry
	trash []int // descriptors that a message may still name
	last  int   // number of an entry
}

// entry is what is to be kept under a name.
type entry struct {
	fd     int // a copy, for a store that was started again; -1: it is the store's alone, from a former client
	number int // another one under the same name has another number
}

// Open returns a client of the store at path, and the descriptors that a former client left there, by name; the caller closes them. That
// the store is not there is logged. The caller closes the client too. The end of ctx ends the wait for a store that hangs.
func Open(ctx context.Context, path string, log *slog.Logger) (*Client, map[string]int) {
	c := &Client{path: path, log: log, wake: make(chan struct{}, 1), has: map[string]int{}, kept: map[string]entry{}}
	left := c.connect(ctx)
	for name := range left {
		c.kept[name] = entry{fd: -1}
	}
	return c, left
}

// connect reaches the store, and returns what it has, nothing if it is not there.
func (c *Client) connect(ctx context.Context) (left map[string]int) {
	conn, left, err := connect(ctx, c.path)
	if err != nil {
		c.tell(ctx, err)
		return nil
	}
	c.conn = conn
	clear(c.has)
	for name := range left {
		c.has[name] = 0
	}
	return left
}

func connect(ctx context.Context, path string) (*net.UnixConn, map[string]int, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED):
		return nil, nil, fmt.Errorf("nobody serves %s; start `middleway fdstore %[1]s`: %[2]w", path, errors.Unwrap(err))
	case err != nil:
		return nil, nil, fmt.Errorf("connect to %s: %w", path, errors.Unwrap(err))
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	left, err := inherit(conn)
	if err != nil {
		closeAll(left)
		return nil, nil, errors.Join(fmt.Errorf("%s: %w", path, err), conn.Close())
	}
	return conn, left, nil
}

// inherit receives what the store has.
func inherit(conn *net.UnixConn) (left map[string]int, err error) {
	if err := unixsock.CheckUser(conn); err != nil {
		return nil, err
	}
	if err := send(conn, message{Kind: kindOpen}); err != nil {
		return nil, err
	}
	left = map[string]int{}
	for end := time.Now().Add(openPatience); ; {
		_ = conn.SetDeadline(end)
		m, fds, err := receive(conn)
		if err != nil {
			return left, err
		}
		switch m.Kind {
		case kindKeep:
			for i, name := range m.Names {
				if former, ok := left[name]; ok {
					unixsock.Close(former)
				}
				left[name] = fds[i]
			}
		case kindDone:
		default:
			return left, fmt.Errorf("it sent %s", m.Kind)
		}
		if err := acknowledge(conn); err != nil || m.Kind == kindDone {
			return left, err
		}
	}
}

// Keep has a copy of fd kept under a name, in place of one that has that name already. fd stays the caller's.
func (c *Client) Keep(name string, fd int) error {
	if err := checkName(name); err != nil {
		return fmt.Errorf("keep a descriptor: %w", err)
	}
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("keep %s: %w", name, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(name)
	c.last++
	c.kept[name] = entry{own, c.last}
	c.changed()
	return nil
}

// Drop has what is kept under a name closed, of a former client too.
func (c *Client) Drop(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(name)
	c.changed()
}

// remove takes an entry out; c.mu is held.
func (c *Client) remove(name string) {
	if e, ok := c.kept[name]; ok && e.fd >= 0 {
		c.trash = append(c.trash, e.fd)
	}
	delete(c.kept, name)
}

func (c *Client) changed() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Run has the store keep what is to be kept until ctx ends.
func (c *Client) Run(ctx context.Context) error {
	for {
		wait := pingEvery
		if c.Sync(ctx); c.conn == nil {
			wait = retryEvery
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-c.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// Sync finds out whether the store is there, and has it keep what it does not yet, and drop what it should not, until ctx ends. It is what Run
// does again and again, and is not called beside that.
func (c *Client) Sync(ctx context.Context) {
	if c.conn != nil {
		c.send(ctx, message{Kind: kindPing})
	}
	if c.conn == nil && ctx.Err() == nil {
		closeAll(c.connect(ctx)) // the client has better ones
	}
	for c.conn != nil {
		m, fds, numbers := c.next()
		if len(m.Names) == 0 {
			c.tell(ctx, nil)
			return
		}
		if !c.send(ctx, m, fds...) {
			return
		}
		for i, name := range m.Names {
			if m.Kind == kindKeep {
				c.has[name] = numbers[i]
			} else {
				delete(c.has, name)
			}
		}
	}
}

// next returns the next message by which the store comes to what is to be kept; one without names if it has come there. The descriptors
// are open until the next call.
func (c *Client) next() (m message, fds, numbers []int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	unixsock.Close(c.trash...)
	c.trash = nil
	m.Kind = kindDrop
	for name := range c.has {
		if _, ok := c.kept[name]; !ok && len(m.Names) < maxBatch {
			m.Names = append(m.Names, name)
		}
	}
	if len(m.Names) > 0 {
		return m, nil, nil
	}
	m.Kind = kindKeep
	for name, e := range c.kept {
		number, ok := c.has[name]
		switch {
		case e.fd < 0 && !ok:
			delete(c.kept, name) // it ended with a former store
		case e.fd >= 0 && (!ok || number != e.number) && len(m.Names) < maxBatch:
			m.Names, fds, numbers = append(m.Names, name), append(fds, e.fd), append(numbers, e.number)
		}
	}
	return m, fds, numbers
}

// send sends a message, and reports whether the store is still there.
func (c *Client) send(ctx context.Context, m message, fds ...int) bool {
	conn := c.conn
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // nobody waits for a store that hangs
	defer stop()
	err := send(conn, m, fds...)
	if err != nil {
		c.tell(ctx, err)
		_ = conn.Close()
		c.conn = nil
	}
	return err == nil
}

// tell logs a problem that is new, or nil that it is over. What goes wrong because ctx has ended is none.
func (c *Client) tell(ctx context.Context, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	switch {
	case text == c.told || ctx.Err() != nil:
		return
	case err != nil:
		c.log.Warn("clients of listeners would be refused while this daemon is started again; the store is tried again", "err", err)
	default:
		c.log.Info("the store keeps this daemon's listeners", "path", c.path)
	}
	c.told = text
}

// Close leaves what is kept to the store. Run has returned, or was never called.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name := range c.kept {
		c.remove(name)
	}
	unixsock.Close(c.trash...)
	c.trash = nil
	if c.conn == nil {
		return nil
	}
	err := c.conn.Close()
	c.conn = nil
	return err
}

func closeAll(fds map[string]int) {
	for _, fd := range fds {
		unixsock.Close(fd)
	}
}
