package lab

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Directory holds a cluster's files: configurations, and the run directories of the daemons. It is a tmpfs that is mounted
// nowhere, so that it ends with this process, however that ends; children find it under /proc/PID/fd/N.
type Directory struct{ mount *os.File }

// NewDirectory makes an empty directory.
func NewDirectory() (*Directory, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open tmpfs: %w", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, fmt.Errorf("make tmpfs: %w", err)
	}
	mount, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("mount tmpfs: %w", err)
	}
	return &Directory{os.NewFile(uintptr(mount), "tmpfs")}, nil
}

// Path returns the directory's path, which is valid for this process and its children, and as long as this process lives.
func (d *Directory) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), d.mount.Fd()) }

// Close removes the directory with all that is in it.
func (d *Directory) Close() error { return d.mount.Close() }
