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

// How often Run looks whether the store is there, and tries to reach one that is not.
const (
	pingEvery  = 2 * time.Second
	retryEvery = time.Second
)

// Client has descriptors kept by a store. Where there is none, or it was started again, it gets all of them as soon as it is there. The
// methods may be called by several goroutines.
type Client struct {
	path string
	log  *slog.Logger

	mu   sync.Mutex // guards what follows
	conn *net.UnixConn
	kept map[string]int // copies, for a store that was started again
	told string         // the problem that was logged last
}

// Open returns a client of the store at path, and the descriptors that a former client left there, by name; the caller closes them. That
// the store is not there is logged. The caller closes the client too.
func Open(path string, log *slog.Logger) (*Client, map[string]int) {
	c := &Client{path: path, log: log, kept: map[string]int{}}
	conn, left, err := connect(path)
	c.conn = conn
	c.tell(err)
	return c, left
}

func connect(path string) (*net.UnixConn, map[string]int, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED):
		return nil, nil, fmt.Errorf("nobody serves %s; start `middleway fdstore %[1]s`: %[2]w", path, errors.Unwrap(err))
	case err != nil:
		return nil, nil, fmt.Errorf("connect to %s: %w", path, errors.Unwrap(err))
	}
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
	left = map[string]int{}
	for {
		_ = conn.SetDeadline(time.Now().Add(patience))
		m, fd, err := receive(conn)
		if err != nil {
			return left, err
		}
		switch m.Kind {
		case kindKeep:
			if former, ok := left[m.Name]; ok {
				unixsock.Close(former)
			}
			left[m.Name] = fd
		case kindDone:
			return left, nil
		default:
			return left, fmt.Errorf("it sent %s", m.Kind)
		}
	}
}

// Keep has a copy of fd kept under a name, in place of one that has that name already. fd stays the caller's.
func (c *Client) Keep(name string, fd int) error {
	if name == "" || len(name) > MaxName {
		return fmt.Errorf("keep a descriptor: its name %q is not of 1 to %d bytes", name, MaxName)
	}
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("keep %s: %w", name, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if former, ok := c.kept[name]; ok {
		unixsock.Close(former)
	}
	c.kept[name] = own
	c.send(message{kindKeep, name}, own)
	return nil
}

// Drop closes what is kept under a name, by a former client too.
func (c *Client) Drop(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if fd, ok := c.kept[name]; ok {
		unixsock.Close(fd)
		delete(c.kept, name)
	}
	c.send(message{kindDrop, name})
}

// send sends a message if the store is there; c.mu is held.
func (c *Client) send(m message, fds ...int) {
	if c.conn == nil {
		return
	}
	if err := send(c.conn, m, fds...); err != nil {
		c.tell(err)
		_ = c.conn.Close()
		c.conn = nil
	}
}

// tell logs a problem that is new, or nil that it is over; c.mu is held.
func (c *Client) tell(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	switch {
	case text == c.told:
	case err != nil:
		c.log.Warn("clients of listeners would be refused while this daemon is started again; the store is tried again", "err", err)
	default:
		c.log.Info("the store keeps this daemon's listeners", "path", c.path)
	}
	c.told = text
}

// Run keeps the connection to the store until ctx ends.
func (c *Client) Run(ctx context.Context) error {
	for {
		wait := retryEvery
		if c.look() {
			wait = pingEvery
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// look finds out whether the store is there, and gives everything to one that has come. It reports whether it is.
func (c *Client) look() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.send(message{Kind: kindPing}); c.conn != nil {
		return true
	}
	conn, left, err := connect(c.path)
	closeAll(left)
	if err != nil {
		c.tell(err)
		return false
	}
	c.conn = conn
	c.send(message{Kind: kindReset})
	for name, fd := range c.kept {
		c.send(message{kindKeep, name}, fd)
	}
	if c.conn != nil {
		c.tell(nil)
	}
	return c.conn != nil
}

// Close leaves the descriptors to the store.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	closeAll(c.kept)
	clear(c.kept)
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
