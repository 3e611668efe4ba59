package link

import (
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// dumpTries bounds how often the kernel is asked for a list that changed while it told it.
const dumpTries = 5

// Look returns what there is of the host's attachment now, with Index 0 if the device is gone, and what is missing, in words;
// "" if nothing is. The calling thread has to be in the namespace of the process.
func (h Host) Look() (now Host, missing string, err error) {
	for range dumpTries {
		if now, missing, err = h.look(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return Host{Name: h.Name}, "", fmt.Errorf("look at %s: %w", h.Name, err)
	}
	return now, missing, nil
}

func (h Host) look() (now Host, missing string, err error) {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return now, "", fmt.Errorf("open netlink: %w", err)
	}
	defer nl.Close()
	now.Name = h.Name
	dev, err := nl.LinkByName(h.Name)
	var none netlink.LinkNotFoundError
	switch {
	case errors.As(err, &none):
		return now, h.Name + " is gone", nil
	case err != nil:
		return now, "", err
	case dev.Attrs().Index != h.Index:
		return now, h.Name + " is gone; another interface has its name", nil
	}
	now.Index = h.Index
	addrs, err := nl.AddrList(dev, netlink.FAMILY_ALL)
	if err != nil {
		return now, "", fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range h.Addrs {
		if slices.ContainsFunc(addrs, func(has netlink.Addr) bool { return has.IP.Equal(a.AsSlice()) }) {
			now.Addrs = append(now.Addrs, a)
		} else {
			missing = fmt.Sprintf("%s does not have the address %v", h.Name, a)
		}
	}
	_, ours, err := routesOf(nl, h.Index)
	if err != nil {
		return now, "", err
	}
	for _, r := range h.Routes {
		if slices.ContainsFunc(ours, func(has netlink.Route) bool { return prefixOf(has.Dst) == r }) {
			now.Routes = append(now.Routes, r)
		} else {
			missing = fmt.Sprintf("no route to %v leads through %s", r, h.Name)
		}
	}
	if dev.Attrs().Flags&net.FlagUp == 0 {
		missing = h.Name + " is down"
	}
	return now, missing, nil
}

// RestoreHost sets up the host's device, which is there, and gives it addresses and routes as OpenHost does.
func RestoreHost(c HostConfig) (Host, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return Host{}, fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	if err := freeName(h, c.Name); err != nil {
		return Host{}, err
	}
	return configureHost(h, c)
}
