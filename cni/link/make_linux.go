package link

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/cni/netns"
	"github.com/middleway-net/middleway/stack/tun"
)

// ErrGone tells that the interface that was to be taken up is no longer there.
var ErrGone = errors.New("the pod's interface is gone")

// Queues are the open queues of a device that Make made. The caller closes them; the device ends with them, unless another
// process has duplicates or made it persistent.
type Queues struct {
	FDs   []int
	Index int // the interface's number in its namespace
}

// Close closes the queues.
func (q *Queues) Close() {
	tun.CloseQueues(q.FDs)
	q.FDs = nil
}

// Abandon makes the device end with its queues, whoever wanted to keep it, and closes them.
func (q *Queues) Abandon() {
	if len(q.FDs) > 0 {
		_ = tun.Keep(q.FDs[0], false)
	}
	q.Close()
}

// Make makes the device in the pod's namespace, configures it, and returns its queues for another process. An interface of
// that name is an fs.ErrExist and stays untouched.
func Make(c Config, portable bool) (q *Queues, err error) {
	err = netns.Do(c.Netns, func() error {
		fds, err := tun.Make(tun.Config{Name: c.Name, Queues: c.Queues, MTU: c.MTU}, portable)
		if err != nil {
			return err
		}
		made := &Queues{FDs: fds}
		if err := configure(c); err != nil {
			made.Close()
			return err
		}
		dev, err := net.InterfaceByName(c.Name)
		if err != nil {
			made.Close()
			return fmt.Errorf("find %s: %w", c.Name, err)
		}
		made.Index = dev.Index
		q = made
		return nil
	})
	return q, err
}

// Adopt takes over queues that Make returned in another process; see tun.Adopt.
func Adopt(c Config, inode uint64, fds []int) (*tun.Device, error) {
	return tun.Adopt(tun.Config{Name: c.Name, MTU: c.MTU, NetnsInode: inode, Without: c.Without}, fds)
}

// AdoptPortable is Adopt for a device with a single queue.
func AdoptPortable(c Config, inode uint64, fds []int) (*tun.Portable, error) {
	return tun.AdoptPortable(tun.Config{Name: c.Name, MTU: c.MTU, NetnsInode: inode}, fds)
}

// expect returns ErrGone if the calling thread's namespace has no device c.Name with the number c.Index.
func expect(c Config) error {
	if c.Index == 0 {
		return nil
	}
	dev, err := netlink.LinkByName(c.Name)
	var missing netlink.LinkNotFoundError
	switch {
	case errors.As(err, &missing):
		return fmt.Errorf("%w: %s in %s", ErrGone, c.Name, c.Netns)
	case err != nil:
		return fmt.Errorf("find %s: %w", c.Name, err)
	case dev.Attrs().Index != c.Index:
		return fmt.Errorf("%w: %s in %s is another one (number %d, was %d)", ErrGone, c.Name, c.Netns, dev.Attrs().Index, c.Index)
	}
	return nil
}

// Remove removes the TUN device of that name and alias from a namespace. It is no error if there is none; what has
// another alias is left alone.
func Remove(path, name, alias string) error {
	return netns.Do(path, func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("open netlink: %w", err)
		}
		defer h.Close()
		return remove(h, name, alias)
	})
}

func remove(h *netlink.Handle, name, alias string) error {
	dev, err := h.LinkByName(name)
	var missing netlink.LinkNotFoundError
	switch {
	case errors.As(err, &missing):
		return nil
	case err != nil:
		return fmt.Errorf("find %s: %w", name, err)
	case dev.Type() != "tuntap" && dev.Type() != "tun" || dev.Attrs().Alias != alias:
		return nil
	}
	if err := h.LinkDel(dev); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

// Exists reports whether a namespace has an interface of that name.
func Exists(path, name string) (exists bool, err error) {
	err = netns.Do(path, func() error {
		_, err := netlink.LinkByName(name)
		var missing netlink.LinkNotFoundError
		if errors.As(err, &missing) {
			return nil
		}
		exists = err == nil
		return err
	})
	return exists, err
}
