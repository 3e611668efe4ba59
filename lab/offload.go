package lab

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An offload is a feature by which a device takes or gives unfinished packets.
type offload struct {
	name     string // as ethtool -K calls it
	get, set uint32 // ETHTOOL_G…, ETHTOOL_S… of linux/ethtool.h
}

// offloads are the ones that decide whether packets of more than the MTU, or without a checksum, cross a virtual link.
// The order is that of turning off: segmentation needs scatter-gather, which needs checksums. Without scatter-gather
// the kernel drops all other segmentation features of the device as well, UDP's among them.
var offloads = []offload{
	{"generic-receive-offload", 0x2b, 0x2c},
	{"generic-segmentation-offload", 0x23, 0x24},
	{"tcp-segmentation-offload", 0x1e, 0x1f},
	{"scatter-gather", 0x18, 0x19},
	{"tx-checksumming", 0x16, 0x17},
}

// SetOffloads turns checksum offload, scatter-gather, TCP and generic segmentation and generic receive offload of a
// device on or off, as ethtool -K does. Off, a veth behaves like a cable between two machines: each frame fits the MTU
// and has its checksums.
func SetOffloads(n *Namespace, device string, on bool) error {
	value := uint32(0)
	if on {
		value = 1
	}
	return n.Do(func() error {
		for i := range offloads {
			o := offloads[i]
			if on { // what the others need comes first
				o = offloads[len(offloads)-1-i]
			}
			if _, err := ethtoolValue(device, o.set, value); err != nil {
				return fmt.Errorf("namespace %s: set %s of %s: %w", n.name, o.name, device, err)
			}
		}
		return nil
	})
}

// Offloads returns which of the offloads of SetOffloads a device has on, by the names ethtool uses.
func Offloads(n *Namespace, device string) (map[string]bool, error) {
	state := make(map[string]bool, len(offloads))
	err := n.Do(func() error {
		for _, o := range offloads {
			value, err := ethtoolValue(device, o.get, 0)
			if err != nil {
				return fmt.Errorf("namespace %s: get %s of %s: %w", n.name, o.name, device, err)
			}
			state[o.name] = value != 0
		}
		return nil
	})
	return state, err
}

// ethtoolValue makes one SIOCETHTOOL request with a struct ethtool_value in the namespace of the calling thread.
func ethtoolValue(device string, cmd, data uint32) (uint32, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)

	value := struct{ cmd, data uint32 }{cmd, data}
	var ifreq struct { // struct ifreq with ifr_data
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [24 - unsafe.Sizeof(uintptr(0))]byte // the union is 24 bytes
	}
	copy(ifreq.name[:unix.IFNAMSIZ-1], device)
	ifreq.data = unsafe.Pointer(&value)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&ifreq)))
	if errno != 0 {
		return 0, errno
	}
	return value.data, nil
}
