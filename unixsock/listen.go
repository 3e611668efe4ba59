package unixsock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// MaxPath is the kernel's bound on a socket's path (sockaddr_un.sun_path), in bytes.
const MaxPath = 107

// Listener is a listening unix socket at a path.
type Listener struct {
	*net.UnixListener
	path   string
	file   fs.FileInfo // at path, when it was ours for certain; its number is not another's as long as the socket is open
	closed atomic.Bool
}

// Listen makes a unix socket at path on which this user alone can connect. It takes the place of one on which nobody listens any more;
// where somebody does, it is an error. Errors do not name the path, and go on after words like "serve sockets at PATH: ".
func Listen(path string) (*Listener, error) {
	switch {
	case path == "" || path[0] == '@': // to Go the latter is in the abstract namespace
		return nil, fmt.Errorf("%q is no path of a file; choose another path", path)
	case len(path) > MaxPath:
		return nil, fmt.Errorf("the path is longer than %d bytes; choose a shorter one", MaxPath)
	}
	defer lockDirectory(filepath.Dir(path))()
	if err := makeWay(path); err != nil {
		return nil, err
	}
	c := net.ListenConfig{Control: ownerOnly}
	l, err := c.Listen(context.Background(), "unix", path)
	if err != nil {
		if op := (*net.OpError)(nil); errors.As(err, &op) {
			err = op.Err // without the path once more
		}
		return nil, fmt.Errorf("%w; choose a path in a directory that exists and is writable, for example in $XDG_RUNTIME_DIR", err)
	}
	made := &Listener{UnixListener: l.(*net.UnixListener), path: path}
	made.SetUnlinkOnClose(false)
	if made.file, err = os.Lstat(path); err != nil {
		return nil, errors.Join(err, made.UnixListener.Close())
	}
	return made, nil
}

// makeWay removes a socket on which nobody listens.
func makeWay(path string) error {
	st, err := os.Lstat(path)
	if err != nil {
		return nil // what is wrong with the path the kernel says when it is bound
	}
	if st.Mode()&fs.ModeSocket == 0 {
		return errors.New("a file is there; choose another path")
	}
	conn, err := net.Dial("unix", path)
	switch {
	case err == nil:
		conn.Close()
		return ErrTaken
	case errors.Is(err, unix.EAGAIN): // its backlog is full
		return ErrTaken
	case errors.Is(err, fs.ErrNotExist): // removed meanwhile
		return nil
	case !errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("a socket is there that cannot be asked: %w; choose another path", errors.Unwrap(err))
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove what a former process left: %w", err)
	}
	return nil
}

// ErrTaken is the error of Listen, by errors.Is, where another process listens.
var ErrTaken = errors.New("another process does so; end it, or choose another path")

// ownerOnly gives a socket the mode with which it appears at its path: nobody else can connect in between.
func ownerOnly(_, _ string, c syscall.RawConn) error {
	var err error
	controlErr := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) })
	return errors.Join(controlErr, err)
}

// Close closes the socket, and removes it if what is at the path is still it. The second time it is net.ErrClosed.
func (l *Listener) Close() error {
	if l.closed.Swap(true) {
		return net.ErrClosed
	}
	defer lockDirectory(filepath.Dir(l.path))()
	var err error
	if st, gone := os.Lstat(l.path); gone == nil && os.SameFile(st, l.file) {
		err = os.Remove(l.path)
	}
	return errors.Join(err, l.UnixListener.Close())
}

// lockPatience is how long the lock of a directory is waited for. It is held for a few system calls.
const lockPatience = time.Second

// lockDirectory keeps others who listen by this package from the directory until unlock is called: a socket that was bound and does not
// listen yet looks to them as if it were left behind. It is no error to do without, where the directory may not be read, or somebody
// who is none of us holds the lock.
func lockDirectory(dir string) (unlock func()) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return func() {}
	}
	for end := time.Now().Add(lockPatience); ; time.Sleep(time.Millisecond) {
		if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err == nil || !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(end) {
			return func() { _ = unix.Close(fd) }
		}
	}
}
