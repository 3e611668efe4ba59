package link

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/cni/netns"
)

// Remove removes the device that Open left in a pod's namespace; a name of "" is eth0. That there is none, or one of another
// kind, is no error; that the namespace is gone is one, fs.ErrNotExist by errors.Is.
func Remove(netnsPath, name string) error {
	if name == "" {
		name = defaultName
	}
	return netns.Do(netnsPath, func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("open netlink: %w", err)
		}
		defer h.Close()
		return removeTUN(h, name)
	})
}

// RemoveHost removes the host's device, and with it its routes. That there is none is no error; one that is not ours stays,
// and is one.
func RemoveHost(name string) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	if err := freeName(h, name); err != nil {
		return err
	}
	return removeTUN(h, name)
}

func removeTUN(h *netlink.Handle, name string) error {
	l, err := h.LinkByName(name)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for %s: %w", name, err)
	}
	if _, ok := l.(*netlink.Tuntap); !ok {
		return nil
	}
	if err := h.LinkDel(l); err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}
