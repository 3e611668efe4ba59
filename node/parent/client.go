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
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/node/underlay"
	"github.com/middleway-net/middleway/unixsock"
)

// ErrGone is the error of Watch, by errors.Is, when the parent ended.
var ErrGone = errors.New("the parent process that hands sockets in has ended")

// Client asks a parent. It holds no connection: each request makes one, so that it goes on when a parent was started again. Its
// methods may be called by several goroutines.
type Client struct{ path string }

// Dial returns a client of the parent that serves path, after a look whether one does.
func Dial(path string) (*Client, error) {
	c := &Client{path}
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
	if err := checkPeer(conn); err != nil {
		conn.Close()
		return nil, fmt.Errorf("sockets: %s: %w", c.path, err)
	}
	return conn, nil
}

// Socket is socket(2) in the parent's network namespace, with its own descriptor here. Only TCP, UDP and ICMP echo sockets are
// to be had.
func (c *Client) Socket(domain, typ, proto int) (fd int, err error) {
	_, fd, err = c.ask(request{Kind: kindSocket, Domain: domain, Type: typ, Protocol: proto})
	if err == nil && typ&unix.SOCK_CLOEXEC == 0 {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			unix.Close(fd)
			return -1, err
		}
	}
	return fd, err
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

// ask sends a request and returns the response with its descriptor, -1 for requests of other kinds than socket.
func (c *Client) ask(q request) (r response, fd int, err error) {
	conn, err := c.connect()
	if err != nil {
		return r, -1, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if err := send(conn, q); err != nil {
		return r, -1, err
	}
	b, fd, err := receive(conn)
	if err == nil {
		r, err = decodeResponse(b, q.Kind == kindSocket, fd >= 0)
	}
	if err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return response{}, -1, fmt.Errorf("sockets: %w", err)
	}
	return r, fd, nil
}

// receive reads a response and the descriptor that came with it, -1 if none did.
func receive(conn *net.UnixConn) (b []byte, fd int, err error) {
	r := unixsock.NewReader(conn, 1)
	defer r.Close()
	if b, err = io.ReadAll(io.LimitReader(r, maxResponse)); err != nil {
		return nil, -1, fmt.Errorf("receive from the parent: %w", err)
	}
	if fds := r.Take(); len(fds) == 1 {
		return b, fds[0], nil
	}
	return b, -1, nil
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

// decodeResponse reads a response: an error, or exactly what was asked for.
func decodeResponse(b []byte, wantSocket, hasSocket bool) (response, error) {
	var r response
	if err := unixsock.Decode(b, &r); err != nil {
		return response{}, fmt.Errorf("the parent's answer is none: %w; is it of another version?", err)
	}
	switch {
	case r.Error != "":
		return response{}, &refused{r.Error, r.Errno}
	case wantSocket != hasSocket || wantSocket && len(r.Interfaces) > 0:
		return response{}, errors.New("the parent answered another question; is it of another version?")
	}
	return r, nil
}
