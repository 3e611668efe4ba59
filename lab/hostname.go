package lab

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Hostname is a UTS namespace: processes in it see its host name in place of the machine's. It ends when it is closed and no
// process is in it any more.
type Hostname struct{ file *os.File }

// NewHostname makes a UTS namespace with a host name of at most 64 bytes.
func (n *Namespace) NewHostname(name string) (*Hostname, error) {
	h := &Hostname{}
	err := n.Do(func() (err error) { // on a thread that ends afterwards
		if err := unix.Unshare(unix.CLONE_NEWUTS); err != nil {
			return fmt.Errorf("make UTS namespace: %w", err)
		}
		if err := unix.Sethostname([]byte(name)); err != nil {
			return fmt.Errorf("set host name %s: %w", name, err)
		}
		h.file, err = os.Open("/proc/thread-self/ns/uts")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("namespace %s: %w", n.name, err)
	}
	return h, nil
}

// Close lets go of the namespace.
func (h *Hostname) Close() error { return h.file.Close() }
