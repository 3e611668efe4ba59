package lab

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// tapQueue is the length of a TAP's queue toward us, in frames: the kernel's 500 overflows within one window of a fast
// TCP stream.
const tapQueue = 2000

// OpenTAP makes a TAP device in a namespace and sets it up. A read or write of the file is one whole Ethernet frame
// with all checksums done; closing the file removes the device and ends a waiting read with os.ErrClosed.
func OpenTAP(n *Namespace, device string, mac net.HardwareAddr, mtu int) (*os.File, error) {
	var file *os.File
	err := n.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("open /dev/net/tun: %w", err)
		}
		request, err := unix.NewIfreq(device)
		if err != nil {
			unix.Close(fd)
			return err
		}
		request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
			unix.Close(fd)
			return fmt.Errorf("make tap: %w", err)
		}
		file = os.NewFile(uintptr(fd), device) // after TUNSETIFF: before, the runtime cannot poll it
		return nil
	})
	if err == nil {
		err = configureTAP(n, device, mac, mtu)
	}
	if err != nil {
		if file != nil {
			file.Close()
		}
		return nil, fmt.Errorf("namespace %s: tap %s: %w", n.name, device, err)
	}
	return file, nil
}

func configureTAP(n *Namespace, device string, mac net.HardwareAddr, mtu int) error {
	nl, link, err := n.link(device)
	if err != nil {
		return err
	}
	if err := nl.LinkSetHardwareAddr(link, mac); err != nil {
		return fmt.Errorf("set address %s: %w", mac, err)
	}
	if err := nl.LinkSetMTU(link, mtu); err != nil {
		return fmt.Errorf("set mtu %d: %w", mtu, err)
	}
	if err := nl.LinkSetTxQLen(link, tapQueue); err != nil {
		return fmt.Errorf("set queue length: %w", err)
	}
	return n.SetUp(device)
}
