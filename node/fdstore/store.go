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
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/unixsock"
)

// KeepFor is how long descriptors are kept while there is no client that works. Whoever waited in vain until then is refused, as a dead
// daemon's clients are.
const KeepFor = time.Minute

// How long no client is accepted after an error, and until a path is tried again that another store has.
const (
	acceptPause = 100 * time.Millisecond
	takenPause  = 100 * time.Millisecond
)

// Listen makes the unix socket that Serve serves, for this user alone. It takes the place of one that nobody serves any more; where
// another store serves the path it waits for its end, or that of ctx.
func Listen(ctx context.Context, path string, log *slog.Logger) (*unixsock.Listener, error) {
	for told := false; ; told = true {
		l, err := unixsock.Listen(path)
		if err == nil {
			return l, nil
		}
		if !errors.Is(err, unixsock.ErrTaken) {
			return nil, fmt.Errorf("keep descriptors at %s: %w", path, err)
		}
		if !told {
			log.Info("another process serves the path; this one takes its place when it ends", "path", path)
		}
		awaitEnd(ctx, path)
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(takenPause):
		}
	}
}

// awaitEnd waits until the store at a path ends, if it is one.
func awaitEnd(ctx context.Context, path string) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if err := send(conn, message{Kind: kindWait}); err != nil {
		return
	}
	_ = conn.SetDeadline(time.Time{})
	_, _ = conn.Read(make([]byte, 1))
}

// store has the descriptors. One client after the other is served: a second daemon waits until the first one has gone.
type store struct {
	log     *slog.Logger
	keepFor time.Duration
	serving chan struct{} // full while there is a client

	mu     sync.Mutex // guards what follows
	kept   map[string]int
	expiry *time.Timer // nil while there is a client that works
	told   string      // why a client was sent away, as it was logged last
}

// Serve keeps the descriptors of the clients of a listener, which it closes, until ctx ends. It then closes them too.
func Serve(ctx context.Context, l *unixsock.Listener, log *slog.Logger) error {
	return serve(ctx, l, log, KeepFor)
}

func serve(ctx context.Context, l *unixsock.Listener, log *slog.Logger, keepFor time.Duration) error {
	s := &store{log: log, keepFor: keepFor, serving: make(chan struct{}, 1), kept: map[string]int{}}
	var clients sync.WaitGroup
	defer s.end()
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
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("keep descriptors: %w", err)
		case err != nil:
			log.Warn("a client waits", "err", err)
			time.Sleep(acceptPause)
			continue
		}
		clients.Go(func() {
			defer conn.Close()
			stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
			defer stop()
			if err := s.serve(ctx, conn); err != nil && ctx.Err() == nil {
				s.sentAway(err)
			}
		})
	}
}

func (s *store) serve(ctx context.Context, conn *net.UnixConn) error {
	if err := unixsock.CheckUser(conn); err != nil {
		return err
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	m, fds, err := receive(conn)
	unixsock.Close(fds...)
	if err == nil {
		err = acknowledge(conn)
	}
	switch {
	case gone(err):
		return nil // it looked whether somebody is here
	case err != nil:
		return err
	case m.Kind == kindWait:
		_ = conn.SetDeadline(time.Time{})
		_, _ = conn.Read(make([]byte, 1))
		return nil
	case m.Kind != kindOpen:
		return fmt.Errorf("it begins with %s", m.Kind)
	}
	if !s.await(ctx, conn) {
		return nil
	}
	defer func() { <-s.serving }()
	if err := s.client(conn); !gone(err) {
		return err
	}
	return nil
}

// gone reports whether the other side has closed the connection.
func gone(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE)
}

// await waits until there is no other client, and reports whether this one is still there. It says nothing meanwhile.
func (s *store) await(ctx context.Context, conn *net.UnixConn) bool {
	_ = conn.SetDeadline(time.Time{})
	ended := make(chan error, 1)
	go func() {
		_, err := conn.Read(make([]byte, 1))
		ended <- err
	}()
	select {
	case <-ctx.Done():
		return false
	case <-ended:
		return false
	case s.serving <- struct{}{}:
	}
	_ = conn.SetReadDeadline(time.Unix(1, 0))
	if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
		<-s.serving
		return false
	}
	return true
}

// client serves a client until it has gone. What it leaves is kept from then on for as long as for the one before if it never worked: one
// that takes what is kept, and fails before it uses that, does not have clients wait any longer.
func (s *store) client(conn *net.UnixConn) error {
	if err := s.give(conn); err != nil {
		return err
	}
	works := false
	defer func() {
		if works {
			s.expire()
		}
	}()
	for {
		_ = conn.SetDeadline(time.Time{})
		m, fds, err := receive(conn)
		if err != nil {
			return err
		}
		if !works {
			works = true
			s.goOn()
		}
		s.do(m, fds)
		if err := acknowledge(conn); err != nil {
			return err
		}
	}
}

// give sends all that is kept.
func (s *store) give(conn *net.UnixConn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for names := range slices.Chunk(slices.Collect(maps.Keys(s.kept)), maxBatch) {
		var fds []int
		for _, name := range names {
			fds = append(fds, s.kept[name])
		}
		if err := send(conn, message{kindKeep, names}, fds...); err != nil {
			return err
		}
	}
	return send(conn, message{Kind: kindDone})
}

// do does what a client wants. The descriptors are the store's.
func (s *store) do(m message, fds []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, name := range m.Names { // of keep and drop alone
		if fd, ok := s.kept[name]; ok {
			unixsock.Close(fd)
			delete(s.kept, name)
		}
		if m.Kind == kindKeep {
			s.kept[name] = fds[i]
		}
	}
}

// goOn keeps descriptors for as long as there is a client.
func (s *store) goOn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.expiry != nil {
		s.expiry.Stop()
		s.expiry = nil
	}
	s.log.Info("a client has what was kept", "descriptors", len(s.kept))
}

// expire keeps descriptors for a while.
func (s *store) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log.Info("the client has gone; what it left is kept for a while", "descriptors", len(s.kept), "for", s.keepFor)
	var own *time.Timer
	own = time.AfterFunc(s.keepFor, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.expiry != own {
			return // it went off as somebody came
		}
		if len(s.kept) > 0 {
			s.log.Warn("nobody came for the descriptors, they are closed", "descriptors", len(s.kept), "after", s.keepFor)
		}
		s.close()
	})
	s.expiry = own
}

// sentAway logs why a client was sent away, once for each reason.
func (s *store) sentAway(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err.Error() != s.told {
		s.told = err.Error()
		s.log.Warn("a client was sent away", "err", err)
	}
}

// end closes everything. There is no client any more.
func (s *store) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.expiry != nil {
		s.expiry.Stop()
		s.expiry = nil
	}
	s.close()
}

// close closes the descriptors; s.mu is held.
func (s *store) close() {
	for _, fd := range s.kept {
		unixsock.Close(fd)
	}
	clear(s.kept)
}
