// Package fdstore keeps the descriptors of a process that may die, as the file descriptor store of systemd does (sd_notify(3), FDSTORE=1)
// where systemd starts it, which is not so in a pod.
//
// The kernel goes on with a listening socket as long as somebody has a descriptor of it: clients connect, and wait to be accepted. So a
// daemon that was killed is nothing that a client of a NodePort is refused by.
//
//	container node                       container fdstore
//	  middleway node ── keep, drop ──►     middleway fdstore
//	      │ killed, started again            │ has what was kept
//	      ◄──────────── keep … done ─────────┘
package fdstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/unixsock"
)

// KeepFor is how long descriptors are kept while nobody is connected. Whoever waited in vain until then is refused, as a dead daemon's
// clients are.
const KeepFor = time.Minute

// acceptPause is how long no client is accepted after an error.
const acceptPause = 100 * time.Millisecond

// store has the descriptors. One client after the other is served: a second daemon waits until the first one has gone.
type store struct {
	log     *slog.Logger
	keepFor time.Duration
	kept    map[string]int
	told    string // why a client was sent away, as it was logged last
}

// Listen makes the unix socket that Serve serves, for this user alone. It takes the place of one that nobody serves any more.
func Listen(path string) (*unixsock.Listener, error) {
	l, err := unixsock.Listen(path)
	if err != nil {
		return nil, fmt.Errorf("keep descriptors at %s: %w", path, err)
	}
	return l, nil
}

// Serve keeps the descriptors of the clients of a listener, which it closes, until ctx ends. It then closes them too.
func Serve(ctx context.Context, l *unixsock.Listener, log *slog.Logger) error {
	return serve(ctx, l, log, KeepFor)
}

func serve(ctx context.Context, l *unixsock.Listener, log *slog.Logger, keepFor time.Duration) error {
	s := &store{log: log, keepFor: keepFor, kept: map[string]int{}}
	defer s.reset()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	defer l.Close()
	for {
		s.await(l)
		conn, err := l.AcceptUnix()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			log.Warn("nobody came for the descriptors, they are closed", "descriptors", len(s.kept), "after", keepFor)
			s.reset()
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("keep descriptors: %w", err)
		case err != nil:
			log.Warn("a client waits", "err", err)
			time.Sleep(acceptPause)
		default:
			end := context.AfterFunc(ctx, func() { _ = conn.Close() })
			err := s.client(conn)
			end()
			_ = conn.Close()
			if err != nil && err.Error() != s.told && ctx.Err() == nil {
				s.told = err.Error()
				log.Warn("a client was sent away", "err", err)
			}
		}
	}
}

// await has l wait for a client no longer than descriptors are kept.
func (s *store) await(l *unixsock.Listener) {
	var until time.Time
	if len(s.kept) > 0 {
		until = time.Now().Add(s.keepFor)
	}
	_ = l.SetDeadline(until)
}

// client serves a client until it has gone.
func (s *store) client(conn *net.UnixConn) error {
	if err := unixsock.CheckUser(conn); err != nil {
		return err
	}
	for name, fd := range s.kept {
		if err := send(conn, message{kindKeep, name}, fd); err != nil {
			return err
		}
	}
	if err := send(conn, message{Kind: kindDone}); err != nil {
		return err
	}
	s.log.Info("a client has what was kept", "descriptors", len(s.kept))
	for {
		_ = conn.SetDeadline(time.Time{})
		m, fd, err := receive(conn)
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET):
			s.log.Info("the client has gone; its descriptors are kept", "descriptors", len(s.kept), "for", s.keepFor)
			return nil
		case err != nil:
			return err
		}
		switch m.Kind {
		case kindKeep:
			s.drop(m.Name)
			s.kept[m.Name] = fd
		case kindDrop:
			s.drop(m.Name)
		case kindReset:
			s.reset()
		}
	}
}

func (s *store) drop(name string) {
	if fd, ok := s.kept[name]; ok {
		unixsock.Close(fd)
		delete(s.kept, name)
	}
}

func (s *store) reset() {
	for name := range s.kept {
		s.drop(name)
	}
}
