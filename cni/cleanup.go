package cni

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/middleway-net/middleway/cni/ipam"
	"github.com/middleway-net/middleway/cni/link"
)

// Cleanup removes what a daemon that has ended, and is not to come back, left of its attachments: their devices, where the
// namespaces still are, and the socket with the tombstones beside it. The leases themselves stay. It removes as much as it
// can.
func Cleanup(leases []ipam.Lease, socket string) error {
	var errs []error
	for _, l := range leases {
		if namespaceGone(l) {
			continue
		}
		if err := link.Remove(l.Netns, l.IfName, alias(l.ContainerID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("clean up pod %s: %w", l.Name(), err))
		}
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, fmt.Errorf("remove the plugin's socket: %w", err))
	}
	return errors.Join(append(errs, os.RemoveAll(tombstoneDir(socket)))...)
}
