package cni

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/unixsock"
)

// claim keeps everybody else from a socket and the tombstones beside it, until the result is closed: it locks their
// directory, which it makes if there is none. A socket that somebody answers is an error, whether he heeds locks or not.
func claim(socket string) (lock *os.File, made bool, err error) {
	if len(socket) > unixsock.MaxPath {
		return nil, false, fmt.Errorf("cni.socket: %s is longer than %d bytes; choose a shorter path", socket, unixsock.MaxPath)
	}
	dir := tombstoneDir(socket)
	err = os.Mkdir(dir, 0o700)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, false, fmt.Errorf("make directory beside cni.socket: %w; choose another path", err)
	}
	made = err == nil
	if lock, err = lockDir(dir); err == nil {
		err = checkFree(socket)
	}
	if err != nil && made {
		_ = os.Remove(dir)
	}
	if err != nil && lock != nil {
		err, lock = errors.Join(err, lock.Close()), nil
	}
	return lock, made, err
}

// lockDir locks a directory. The lock ends with the file, and so with the process.
func lockDir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open directory beside cni.socket: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	// Who had the lock before may have removed the directory.
	mine, bad := f.Stat()
	if now, gone := os.Lstat(dir); errors.Is(err, unix.EWOULDBLOCK) || bad == nil && (gone != nil || !os.SameFile(mine, now)) {
		return nil, errors.Join(fmt.Errorf("cni.socket: another daemon has its socket in %s; end it, or choose a path in another directory", filepath.Dir(dir)), f.Close())
	}
	if err = errors.Join(err, bad); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s beside cni.socket: %w; choose another path", dir, err), f.Close())
	}
	return f, nil
}

// checkFree returns an error if what lies at the socket's path is no socket that a process left when it ended.
func checkFree(socket string) error {
	if st, err := os.Lstat(socket); err == nil && st.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("cni.socket: %s exists and is no socket; remove it or choose another path", socket)
	}
	c, err := net.Dial("unix", socket)
	switch {
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return nil
	case err == nil:
		_ = c.Close()
		return fmt.Errorf("cni.socket: another process answers on %s; end it, or choose another path", socket)
	}
	return fmt.Errorf("cni.socket: another process may have it: %w; end it, or choose another path", err)
}

// listen opens the socket, which is claimed.
func (s *Server) listen() error {
	l, err := unixsock.Listen(s.socket)
	if err != nil {
		return fmt.Errorf("listen on cni.socket %s: %w", s.socket, err)
	}
	s.listener = l
	return nil
}

// Close closes the socket, and ends Run. What lies at its path is removed unless somebody else has put it there.
func (s *Server) Close() error {
	err := s.listener.Close()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	s.removeDir()
	return errors.Join(err, s.claim.Close())
}

// removeDir takes back the directory of tombstones that a start made which failed. Otherwise it stays: a plugin may be
// about to leave a tombstone.
func (s *Server) removeDir() {
	if s.fresh {
		_ = os.Remove(tombstoneDir(s.socket)) // unless there is one in it
	}
}
