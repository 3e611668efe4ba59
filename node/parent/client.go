package parent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/node/underlay"
	"github.com/middleway-net/middleway/unixsock"
)

// ErrGone is the error of Watch, by errors.Is, when the parent ended.
var ErrGone = errors.New("the parent process that hands sockets in has ended")

// Client asks a parent. It holds no connection: each request makes one, so that it goes on when a parent was started again. Its
// methods may be called by several goroutines.
type Client struct {
	path string

	mu     sync.Mutex // guards what follows
	asking map[*net.UnixConn]struct{}
	closed bool
}

// Dial returns a client of the parent that serves path, after a look whether one does.
func Dial(path string) (*Client, error) {
	c := &Client{path: path, asking: map[*net.UnixConn]struct{}{}}
	conn, err := c.connect()
	if err != nil {
		return nil, err
	}
	return c, conn.Close()
}

func (c *Client) connect() (*net.UnixConn, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: c.path, Net: "unix"})
	if err != nil {
		const start = "start `middleway sockets %[1]s` outside of the node's namespaces, as the same user"
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("sockets: nothing is at %[1]s; "+start+": %[2]w", c.path, unix.ENOENT)
		case errors.Is(err, unix.ECONNREFUSED):
			return nil, fmt.Errorf("sockets: nobody serves %[1]s any more; "+start+": %[2]w", c.path, unix.ECONNREFUSED)
		}
		return nil, fmt.Errorf("sockets: connect to %s: %w", c.path, errors.Unwrap(err))
	}
	if err := unixsock.CheckUser(conn); err != nil {
		conn.Close()
		return nil, fmt.Errorf("sockets: %s: %w", c.path, err)
	}
	return conn, nil
}

// Socket is socket(2) in the parent's network namespace, with its own descriptor here. Only TCP, UDP and ICMP echo sockets are
// to be had.
func (c *Client) Socket(domain, typ, proto int) (fd int, err error) {
	fds, err := c.sockets(domain, typ, proto, 1)
	if err != nil {
		return -1, err
	}
	return fds[0], nil
}

// sockets makes up to count sockets, at least one, by one request.
func (c *Client) sockets(domain, typ, proto, count int) ([]int, error) {
	_, fds, err := c.ask(request{Kind: kindSocket, Domain: domain, Type: typ, Protocol: proto, Count: count})
	if err != nil || typ&unix.SOCK_CLOEXEC != 0 {
		return fds, err
	}
	for _, fd := range fds {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			unixsock.Close(fds...)
			return nil, err
		}
	}
	return fds, nil
}

// Interfaces returns the interfaces of the parent's network namespace.
func (c *Client) Interfaces() ([]underlay.Interface, error) {
	r, _, err := c.ask(request{Kind: kindInterfaces})
	return r.Interfaces, err
}

// Route returns the way toward an address in the parent's network namespace.
func (c *Client) Route(dst netip.Addr) (underlay.Path, error) { return underlay.Toward(c.Socket, dst) }

// Watch calls changed once the parent watches the interfaces of its network namespace, and after changes, until ctx ends. The
// error is ErrGone, by errors.Is, if the parent ends before.
func (c *Client) Watch(ctx context.Context, changed func()) error {
	conn, err := c.connect()
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if err := send(conn, request{Kind: kindWatch}); err != nil && ctx.Err() == nil {
		return err
	}
	for buf := make([]byte, 64); ; {
		_, err := conn.Read(buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return ErrGone
		}
		changed()
	}
}

func send(conn *net.UnixConn, r request) error {
	b, err := json.Marshal(r)
	if err == nil {
		_, err = conn.Write(append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("sockets: ask the parent: %w", err)
	}
	return nil
}

// errClosed is what Close has left for requests.
var errClosed = fmt.Errorf("sockets: %w", os.ErrClosed)

// Close ends the requests that are under way, and refuses others: they would wait for a parent that hangs. Sockets that were handed
// over stay open, and Watch has a context of its own.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for conn := range c.asking {
		_ = conn.Close()
	}
}

func (c *Client) begin(conn *net.UnixConn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.asking[conn] = struct{}{}
	}
	return !c.closed
}

func (c *Client) finish(conn *net.UnixConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.asking, conn)
}

// ask sends a request and returns the response with its descriptors, none for requests of other kinds than socket.
func (c *Client) ask(q request) (r response, fds []int, err error) {
	conn, err := c.connect()
	if err != nil {
		return r, nil, err
	}
	defer conn.Close()
	if !c.begin(conn) {
		return r, nil, errClosed
	}
	defer c.finish(conn)
	_ = conn.SetDeadline(time.Now().Add(patience))
	if err := send(conn, q); err != nil {
		return r, nil, err
	}
	b, fds, err := receive(conn, max(q.sockets(), 1))
	if err == nil {
		r, err = decodeResponse(b, q.sockets(), len(fds))
	}
	if err != nil {
		unixsock.Close(fds...)
		return response{}, nil, fmt.Errorf("sockets: %w", err)
	}
	return r, fds, nil
}

// receive reads a response and the descriptors that came with it, at most room.
func receive(conn *net.UnixConn, room int) (b []byte, fds []int, err error) {
	r := unixsock.NewReader(conn, room)
	defer r.Close()
	if b, err = io.ReadAll(io.LimitReader(r, maxResponse)); err != nil {
		return nil, nil, fmt.Errorf("receive from the parent: %w", err)
	}
	return b, r.Take(), nil
}

// refused is an error that the parent told.
type refused struct {
	text  string
	errno unix.Errno
}

func (e *refused) Error() string { return e.text }

func (e *refused) Unwrap() error {
	if e.errno == 0 {
		return nil
	}
	return e.errno
}

// decodeResponse reads a response: an error, or what was asked for, has sockets of at most want.
func decodeResponse(b []byte, want, has int) (response, error) {
	var r response
	if err := unixsock.Decode(b, &r); err != nil {
		return response{}, fmt.Errorf("the parent's answer is none: %w; is it of another version?", err)
	}
	switch {
	case r.Error != "":
		return response{}, &refused{r.Error, r.Errno}
	case has > want || want > 0 && (has == 0 || len(r.Interfaces) > 0):
		return response{}, errors.New("the parent answered another question; is it of another version?")
	}
	return r, nil
}
