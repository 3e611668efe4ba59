package demo

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/lab"
)

// capture is a packet socket: it gets a copy of every frame that comes or goes by one device.
type capture struct{ file *os.File }

// openCapture listens to a device of a namespace, from now on.
func openCapture(ns *lab.Namespace, device string) (*capture, error) {
	var c *capture
	err := ns.Do(func() error {
		link, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		// Bound to all protocols: a socket of one protocol does not see what leaves.
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: allProtocols, Ifindex: link.Index}); err != nil {
			unix.Close(fd)
			return err
		}
		c = &capture{os.NewFile(uintptr(fd), "capture on "+device)}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("capture on %s of %s: %w", device, ns.Name(), err)
	}
	return c, nil
}

// allProtocols is ETH_P_ALL in network byte order.
var allProtocols = binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})

// first returns the first frame that is wanted, or os.ErrDeadlineExceeded.
func (c *capture) first(wanted func(frame []byte) bool, timeout time.Duration) ([]byte, error) {
	if err := c.file.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return nil, err
	}
	buf := make([]byte, 64<<10+64) // a super-packet and its headers
	for {
		n, err := c.file.Read(buf)
		if err != nil {
			return nil, err
		}
		if wanted(buf[:n]) {
			return buf[:n], nil
		}
	}
}

func (c *capture) close() { _ = c.file.Close() } // nothing to lose
