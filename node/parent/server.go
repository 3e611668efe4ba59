// Package parent gives a rootless node sockets of the machine's own network.
//
// A rootless node lives in a user and network namespace of its own, from which nothing leads out. A small process of the same
// user stays outside and serves a unix socket; the daemon asks it for sockets, which come by SCM_RIGHTS, are bound and used
// inside, and stay in the namespace in which they were made. So no second userspace network stands in the way, and the node's
// public address is the machine's.
//
//	machine's namespace                    │ node's user and network namespace
//	  middleway sockets PATH ◄── request ──┼── middleway node (sockets: PATH)
//	            └── UDP socket ────────────┼──► the tunnel
package parent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/node/underlay"
	"github.com/middleway-net/middleway/unixsock"
)

// patience is how long either side waits for the other's next byte.
const patience = 30 * time.Second

// Listen makes the unix socket that Serve serves, for this user alone. It takes the place of one that nobody serves any more.
func Listen(path string) (*unixsock.Listener, error) {
	l, err := unixsock.Listen(path)
	if err != nil {
		return nil, fmt.Errorf("serve sockets at %s: %w", path, err)
	}
	return l, nil
}

// Listener is what Serve serves: what Listen makes, or what another process has made and handed over.
type Listener interface {
	AcceptUnix() (*net.UnixConn, error)
	Close() error
}

// Serve answers the clients of a listener, which it closes, until ctx ends. Sockets that were handed over stay open.
func Serve(ctx context.Context, l Listener, log *slog.Logger) error {
	var clients sync.WaitGroup
	defer clients.Wait()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	defer l.Close()
	for {
		conn, err := l.AcceptUnix()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE):
			log.Warn("no descriptor is left for a client; the next attempt is in a second", "err", err)
			time.Sleep(time.Second)
			continue
		case err != nil:
			return fmt.Errorf("serve sockets: %w", err)
		}
		clients.Go(func() {
			defer conn.Close()
			stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
			defer stop()
			if err := serve(ctx, conn); err != nil && ctx.Err() == nil {
				log.Warn("a client was refused", "err", err)
			}
		})
	}
}

// serve answers one client. The error is one that the client was not told.
func serve(ctx context.Context, conn *net.UnixConn) error {
	if err := unixsock.CheckUser(conn); err != nil {
		return err
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	b, err := bufio.NewReaderSize(conn, maxRequest).ReadSlice('\n')
	switch {
	case errors.Is(err, io.EOF) && len(b) == 0:
		return nil // it only looked whether somebody is here
	case errors.Is(err, bufio.ErrBufferFull):
		return answer(conn, response{Error: fmt.Sprintf("the request is longer than %d bytes", maxRequest)})
	case err != nil:
		return fmt.Errorf("receive request: %w", err)
	}
	r, err := decodeRequest(b)
	if err != nil {
		return answer(conn, response{Error: "bad request: " + err.Error()})
	}
	switch r.Kind {
	case kindSocket:
		return serveSocket(conn, r)
	case kindInterfaces:
		interfaces, err := underlay.Interfaces()
		if err != nil {
			return answer(conn, response{Error: err.Error()})
		}
		return answer(conn, response{Interfaces: interfaces})
	}
	return serveWatch(ctx, conn)
}

func serveSocket(conn *net.UnixConn, r request) error {
	fds := make([]int, 0, r.sockets())
	defer func() { unixsock.Close(fds...) }()
	for len(fds) < cap(fds) {
		fd, err := unix.Socket(r.Domain, r.Type|unix.SOCK_CLOEXEC, r.Protocol)
		if err != nil && len(fds) == 0 {
			return answer(conn, refusal(r, err))
		}
		if err != nil {
			break // the client takes fewer, and asks again
		}
		fds = append(fds, fd)
	}
	return answer(conn, response{}, fds...)
}

// refusal says why the kernel gave no socket, and what to do.
func refusal(r request, err error) response {
	text := "make socket outside: " + err.Error()
	switch {
	case errors.Is(err, unix.EACCES) && (r.Protocol == unix.IPPROTO_ICMP || r.Protocol == unix.IPPROTO_ICMPV6):
		text = fmt.Sprintf("ICMP echo is forbidden to group %d outside; as root run `sysctl -w net.ipv4.ping_group_range='0 2147483647'`", os.Getegid())
	case errors.Is(err, unix.EAFNOSUPPORT):
		text = "the machine's kernel has no IPv6; use IPv4 between the nodes"
	}
	var errno unix.Errno
	errors.As(err, &errno)
	return response{Error: text, Errno: errno}
}

// serveWatch sends a byte for each change until the client closes its connection.
func serveWatch(ctx context.Context, conn *net.UnixConn) error {
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var reader sync.WaitGroup
	defer reader.Wait()
	defer conn.Close()
	defer cancel()
	reader.Go(func() {
		_, _ = conn.Read(make([]byte, 1)) // until the client or the parent ends
		cancel()
	})
	return underlay.Watch(ctx, func() {
		_ = conn.SetWriteDeadline(time.Now().Add(patience))
		if _, err := conn.Write([]byte{'\n'}); err != nil {
			cancel() // the client has gone, or does not read
		}
	})
}

func answer(conn *net.UnixConn, r response, fds ...int) error {
	b, err := json.Marshal(r)
	if err == nil && len(b) > maxResponse {
		b, err = json.Marshal(response{Error: fmt.Sprintf("the machine has %d interfaces, which is more than an answer holds; set address", len(r.Interfaces))})
	}
	if err != nil {
		return err
	}
	if err := unixsock.Send(conn, b, fds...); err != nil {
		return fmt.Errorf("send response: %w", err)
	}
	return nil
}
