// Package netns runs a func inside a network namespace.
//
// The CNI plugin's half of a pod's way begins here: the pod's device is made, addressed and routed by calls that the
// kernel answers for the namespace of the calling thread. A Go program has no thread of its own, so every call gets a
// fresh one: a new goroutine locks its thread, moves it into the namespace, runs the func and ends locked, upon
// which the runtime destroys the thread. No thread ever comes back from a foreign namespace, so none can be left in
// the wrong one.
//
// What was opened inside (sockets, /dev/net/tun, netlink) stays in the namespace and may be used anywhere afterwards.
package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// errGoexit is what the caller sees when f ended its goroutine (t.FailNow does) instead of returning.
var errGoexit = errors.New("the func ended its goroutine by runtime.Goexit")

// ID tells namespaces apart as long as they live; the number of one that has ended comes to be used again.
type ID struct {
	Dev   uint64 `json:"dev"`
	Inode uint64 `json:"inode"`
}

// Identify returns which namespace a path names now. It opens nothing and enters nothing.
func Identify(path string) (ID, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return ID{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return ID{Dev: st.Dev, Inode: st.Ino}, nil
}

// Do runs f inside the network namespace at path (/proc/PID/ns/net, /proc/PID/fd/N, /run/netns/NAME) and returns its
// error unchanged. See Handle.Do for what f may do.
func Do(path string, f func() error) error {
	h, err := Open(path)
	if err != nil {
		return err
	}
	defer h.Close()
	return h.Do(f)
}

// Handle holds a network namespace by an open file: as long as it is open the namespace lives, whether or not any
// process is in it.
type Handle struct {
	file *os.File
	name string // for messages: the path it was opened by
}

// Open returns a handle of the network namespace at path.
func Open(path string) (*Handle, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open network namespace: %w; has its pod ended, or is its netns another one?", err)
	}
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	return &Handle{file: file, name: path}, nil
}

// New makes a network namespace that has no name and no process and ends with its handle. Everything in it is down,
// the loopback device too. It needs CAP_SYS_ADMIN in the user namespace of the process.
func New() (*Handle, error) {
	var file *os.File
	err := onDisposableThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make network namespace: %w", err)
		}
		var err error
		file, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		return nil, err
	}
	h := &Handle{file: file}
	h.name = h.Path()
	return h, nil
}

// Do runs f inside the namespace, on a thread of its own, and returns after f did. The error of f comes back
// unchanged.
//
// The thread ends with f. So f must not start a process with Pdeathsig (the signal is sent when the thread ends, not
// when the process does), and goroutines started by f are not in the namespace.
func (h *Handle) Do(f func() error) error {
	return onDisposableThread(func() error {
		err := unix.Setns(int(h.file.Fd()), unix.CLONE_NEWNET)
		runtime.KeepAlive(h.file)
		switch {
		case errors.Is(err, unix.EINVAL):
			return fmt.Errorf("enter network namespace %s: it is none; a path like /proc/4711/ns/net is needed: %w", h.name, err)
		case errors.Is(err, unix.EPERM):
			return fmt.Errorf("enter network namespace %s: CAP_SYS_ADMIN is missing; run as root, or in the user namespace in which it was made: %w", h.name, err)
		case err != nil:
			return fmt.Errorf("enter network namespace %s: %w", h.name, err)
		}
		return f()
	})
}

// Path returns where other processes of the same user find the namespace while the handle is open: /proc/PID/fd/N.
func (h *Handle) Path() string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), h.file.Fd())
}

// File returns the open file, which stays the handle's: to be handed to a child process or asked for its inode, not
// to be closed.
func (h *Handle) File() *os.File { return h.file }

// Close lets go of the namespace. The kernel removes it with all its devices when no process, socket or other open
// file is in it any more.
func (h *Handle) Close() error { return h.file.Close() }

// onDisposableThread runs f on a thread that is destroyed afterwards and waits for it.
func onDisposableThread(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The runtime cannot destroy the main thread; it would park it for ever, and with it the namespace. While
			// it is locked here no other goroutine runs on it, so the next attempt gets another thread.
			err := onDisposableThread(f)
			runtime.UnlockOSThread()
			result <- err
			return
		}
		err := errGoexit
		defer func() { result <- err }()
		err = f()
	}()
	return <-result
}
