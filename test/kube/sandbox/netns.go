// Package sandbox is what a node of a test cluster lives in: a network namespace with a name and a link to the outside,
// and a folder in each of the machine's cgroup hierarchies; and the way in for a command.
//
// Everything in it is found by name, so that what is left of a cluster can be taken away without knowing how far it came.
// It needs root.
package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// netnsDir is where `ip netns` keeps names of network namespaces.
const netnsDir = "/run/netns"

// Netns is the file of the network namespace of that name.
func Netns(name string) string { return filepath.Join(netnsDir, name) }

// MakeNetns makes a network namespace that lives until DeleteNetns, known to `ip netns` too.
func MakeNetns(name string) error {
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return err
	}
	if err := shareNetnsDir(); err != nil {
		return err
	}
	path := Netns(name)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return fmt.Errorf("make network namespace: %w", err)
	}
	f.Close()
	return onDisposableThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make network namespace %s: %w", name, err)
		}
		if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("keep network namespace at %s: %w", path, err)
		}
		return nil
	})
}

// shareNetnsDir makes of netnsDir a mount whose changes reach other mount namespaces, as `ip netns add` does: else a name that
// is taken away lives on in theirs.
func shareNetnsDir() error {
	err := unix.Mount("", netnsDir, "", unix.MS_SHARED|unix.MS_REC, "")
	if errors.Is(err, unix.EINVAL) { // it is no mount yet
		if err := unix.Mount(netnsDir, netnsDir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("mount %s: %w", netnsDir, err)
		}
		err = unix.Mount("", netnsDir, "", unix.MS_SHARED|unix.MS_REC, "")
	}
	if err != nil {
		return fmt.Errorf("share %s: %w", netnsDir, err)
	}
	return nil
}

// DeleteNetns takes the name away; the namespace and its devices end when no process is left in it. A name that is not there
// is no error.
func DeleteNetns(name string) error {
	path := Netns(name)
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// ListNetns is the names of network namespaces that owned says yes to.
func ListNetns(owned func(string) bool) ([]string, error) {
	entries, err := os.ReadDir(netnsDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		if owned(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// InNetns runs f on a thread in the network namespace of that name. What f opens stays there; f starts no goroutines.
func InNetns(name string, f func() error) error {
	ns, err := os.Open(Netns(name))
	if err != nil {
		return err
	}
	defer ns.Close()
	return onDisposableThread(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", name, err)
		}
		return f()
	})
}

// onDisposableThread runs f on a thread that nothing else ever runs on, and which ends with f.
func onDisposableThread(f func() error) error {
	err := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime ends the thread with its goroutine
		err <- f()
	}()
	return <-err
}

// eventually asks done again and again until it says yes, for at most limit.
func eventually(limit time.Duration, done func() bool) bool {
	for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		if done() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}
