package cni

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/cni/ipam"
	"github.com/middleway-net/middleway/cni/link"
)

// Cleanup removes what a daemon that has ended, and is not to come back, left of its attachments: their devices, where the
// namespaces still are, and the socket with the tombstones beside it, unless another daemon has them now. The leases
// themselves stay. It removes as much as it can, and nothing that is not ours.
func Cleanup(leases []ipam.Lease, socket string) error {
	var errs []error
	for _, l := range leases {
		if see, _ := sightOf(l); see != present {
			continue
		}
		if err := link.Remove(l.Netns, l.IfName, alias(l.ContainerID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("clean up pod %s: %w", l.Name(), err))
		}
	}
	return errors.Join(append(errs, cleanupSocket(socket))...)
}

// cleanupSocket removes the socket and the tombstones.
func cleanupSocket(socket string) error {
	if _, err := os.Stat(filepath.Dir(socket)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	lock, _, err := claim(socket)
	if err != nil {
		return fmt.Errorf("clean up what lies at the plugin's socket: %w", err)
	}
	var errs []error
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, fmt.Errorf("remove the plugin's socket: %w", err))
	}
	dir := tombstoneDir(socket)
	entries, err := os.ReadDir(dir)
	errs = append(errs, err)
	for _, e := range entries {
		if whole, unfinished := isTombstone(e); whole || unfinished {
			errs = append(errs, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	if err := os.Remove(dir); !errors.Is(err, unix.ENOTEMPTY) {
		errs = append(errs, err)
	}
	return errors.Join(append(errs, lock.Close())...)
}
