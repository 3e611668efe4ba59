package doctor

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/cni/link"
	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/stack"
	"github.com/middleway-net/middleway/stack/tun"
)

// podMTU is that of the pods on an Ethernet, in bytes.
const podMTU = 1450

// openTUN opens the device file.
func openTUN() (string, error) { return "may be opened", lab.CheckTUN() }

// makeTUN makes a device as the daemon does where it is told portableDevices.
func makeTUN() (string, error) {
	queues, err := tun.Make(tun.Config{Name: "doctor-one", MTU: podMTU}, true)
	tun.CloseQueues(queues)
	return "made, with headers for super-packets", err
}

// makeQueues makes a device with as many queues as the daemon would.
func makeQueues() (string, error) {
	want := max(2, stack.Workers(0))
	queues, err := tun.Make(tun.Config{Name: "doctor-many", MTU: podMTU, Queues: want}, false)
	tun.CloseQueues(queues)
	return fmt.Sprintf("%d made on one device", want), err
}

// keepTUN makes a device outlive its queues, and not any more.
func keepTUN() (string, error) {
	queues, err := tun.Make(tun.Config{Name: "doctor-kept", MTU: podMTU}, false)
	if err != nil {
		return "", err
	}
	defer tun.CloseQueues(queues)
	return "", errors.Join(tun.Keep(queues[0], true), tun.Keep(queues[0], false))
}

// attachPod gives a pod's namespace its interface, as the daemon does.
func attachPod() (string, error) {
	pod, err := lab.NewNamespace("pod")
	if err != nil {
		return "", err
	}
	defer pod.Close()
	dev, err := link.Open(link.Config{
		// Not by this process's number, which /proc may not know: whether it can be mounted anew is tried at the same time.
		Netns: "/proc/self/fd/" + path.Base(pod.Path()), MTU: podMTU, Queues: stack.Workers(0), MaxSegments: 44, // what fits one train of that MTU
		Addrs:    []netip.Addr{netip.MustParseAddr("10.244.1.2")},
		Gateways: []netip.Addr{netip.MustParseAddr("10.244.1.1")},
	})
	if err != nil {
		return "", err
	}
	return "made in a pod's namespace, with address and routes", dev.Close()
}

// tunOffloads are those of TUN devices.
var tunOffloads = sync.OnceValues(func() (tun.Offloads, error) { return tun.Probe(tun.Offloads{}) })

// hasOffload asks for one of them.
func hasOffload(has func(tun.Offloads) bool) func() (string, error) {
	return func() (string, error) {
		all, err := tunOffloads()
		if err == nil && !has(all) {
			err = errors.New("the kernel's TUN devices do not have it")
		}
		return "", err
	}
}

// makeTAP makes a device of the userspace underlay.
func makeTAP() (string, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", fmt.Errorf("open /dev/net/tun: %w", err)
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("doctor-tap")
	if err != nil {
		return "", err
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return "", fmt.Errorf("make tap: %w", err)
	}
	tap, err := netlink.LinkByName("doctor-tap")
	if err != nil {
		return "", fmt.Errorf("find the tap: %w", err)
	}
	return "", errors.Join(netlink.LinkSetMTU(tap, podMTU), netlink.LinkSetUp(tap))
}

// openPacketSocket opens what the demo draws a packet with.
func openPacketSocket() (string, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", missingInKernel(err, "packet sockets")
	}
	return "", os.NewSyscallError("close", unix.Close(fd))
}
