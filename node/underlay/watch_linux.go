package underlay

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// settle is how long a watch waits for more after a change: what comes at once is one change.
const settle = 100 * time.Millisecond

// What the kernel tells of.
const (
	interfaceGroups = unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR
	routeGroups     = unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE
)

// Watch calls changed once it watches the interfaces and addresses of the process's network namespace, and after changes, until
// ctx ends. All changes within 100 ms are one call.
func Watch(ctx context.Context, changed func()) error { return watch(ctx, interfaceGroups, changed) }

// WatchRoutes is Watch for routes too.
func WatchRoutes(ctx context.Context, changed func()) error {
	return watch(ctx, interfaceGroups|routeGroups, changed)
}

func watch(ctx context.Context, groups uint32, changed func()) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("watch interfaces: %w", err)
	}
	file := os.NewFile(uintptr(fd), "netlink")
	defer file.Close()
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		return fmt.Errorf("watch interfaces: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { file.Close() })
	defer stop()
	changed()
	for buf := make([]byte, 1<<16); ; changed() {
		_ = file.SetReadDeadline(time.Time{})
		_, err := file.Read(buf)
		for _ = file.SetReadDeadline(time.Now().Add(settle)); heard(err); {
			_, err = file.Read(buf)
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("watch interfaces: %w", err)
		}
	}
}

// heard reports whether the kernel told of changes. With ENOBUFS some were lost, which is one too.
func heard(err error) bool { return err == nil || errors.Is(err, unix.ENOBUFS) }
