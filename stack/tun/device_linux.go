package tun

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/packet"
)

// clonePath is the device file that makes TUN devices.
const clonePath = "/dev/net/tun"

// flags are the same at every opening: a persistent device takes back a queue only with the flags it was made with
// (drivers/net/tun.c, tun_set_iff).
const flags uint16 = unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_MULTI_QUEUE

// Bits of TUNSETOFFLOAD: what the kernel may hand to us unfinished (include/uapi/linux/if_tun.h). The USO bits exist since
// Linux 6.2 and are set together.
const (
	offloadTCP = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
	offloadUDP = unix.TUN_F_USO4 | unix.TUN_F_USO6
)

// Config describes a device to open.
type Config struct {
	// Name is the interface's name in the namespace of the caller, for example "eth0". Required.
	Name string
	// Queues is how many queues the device gets, one a worker. Default 1, at most 256.
	Queues int
	// MTU is the interface's MTU in bytes, IP header included; it is not set here, only told by Device.MTU. Required.
	MTU int
	// Persist keeps the interface when its last queue closes, so that a restarted daemon can take it up again. Without it
	// an interface that was persistent before stays so (SetPersist ends that).
	Persist bool
}

// Device is a TUN device with one queue a worker. It stays usable from any namespace.
type Device struct {
	name   string
	mtu    int
	uso    bool
	queues []*Queue

	face
}

// Open opens the device named in c in the network namespace of the calling thread: makes it if there is none, takes it up
// again if a former daemon left it. It needs CAP_NET_ADMIN in that namespace; the descriptors need nothing afterwards.
func Open(c Config) (*Device, error) {
	d := &Device{name: c.Name, mtu: c.MTU}
	for range max(1, c.Queues) {
		fd, err := openQueue(c.Name, flags)
		if err != nil {
			_ = d.Close()
			return nil, err
		}
		d.queues = append(d.queues, &Queue{fd: fd})
		uso, err := setOffload(fd)
		if err != nil {
			_ = d.Close()
			return nil, fmt.Errorf("set offloads of tun %q: %w", c.Name, err)
		}
		d.uso = uso
	}
	if err := c.persist(d.queues[0].fd); err != nil {
		_ = d.Close()
		return nil, err
	}
	if err := d.initFace(); err != nil {
		_ = d.Close()
		return nil, err
	}
	return d, nil
}

func openQueue(name string, flags uint16) (int, error) {
	fd, err := unix.Open(clonePath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return -1, fmt.Errorf("open %s: it does not exist; load the tun module (modprobe tun) or make the device (mknod %s c 10 200): %w", clonePath, clonePath, err)
	case errors.Is(err, fs.ErrPermission):
		return -1, fmt.Errorf("open %s: not allowed for uid %d; let it in (chmod 0666 %s, or a device rule of the container runtime): %w", clonePath, os.Geteuid(), clonePath, err)
	case err != nil:
		return -1, fmt.Errorf("open %s: %w", clonePath, err)
	}
	if err := setInterface(fd, name, flags); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// setInterface binds a descriptor to the interface, made if there is none.
func setInterface(fd int, name string, flags uint16) error {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return fmt.Errorf("tun name %q: %w", name, err)
	}
	req.SetUint16(flags)
	switch err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("make tun %q: CAP_NET_ADMIN is missing in this network namespace; run as root, or in a user namespace of its own: %w", name, err)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("take up tun %q: another process has its queues open; end that process: %w", name, err)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("take up tun %q: an interface of that name exists that is not a tun device of this kind; remove it or choose another name: %w", name, err)
	default:
		return fmt.Errorf("make tun %q: %w", name, err)
	}
}

// setOffload allows the kernel to hand over super-packets and open checksums; uso tells whether UDP's are among them.
func setOffload(fd int) (uso bool, err error) {
	if unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloadTCP|offloadUDP) == nil {
		return true, nil
	}
	return false, unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloadTCP)
}

// SetPersist says whether the interface outlives its queues.
func (d *Device) SetPersist(on bool) error { return setPersist(d.queues[0].fd, on) }

func setPersist(fd int, on bool) error {
	v := 0
	if on {
		v = 1
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, v); err != nil {
		return fmt.Errorf("make tun device persistent: %w", err)
	}
	return nil
}

// persist makes a device persistent if that is asked for; one that was so before stays so.
func (c *Config) persist(fd int) error {
	if !c.Persist {
		return nil
	}
	return setPersist(fd, true)
}

// Queues returns the device's queues.
func (d *Device) Queues() []*Queue { return d.queues }

// TakesUDPTrains reports whether the kernel knows UDP super-packets on this device.
func (d *Device) TakesUDPTrains() bool { return d.uso }

// Name returns the interface's name.
func (d *Device) Name() (string, error) { return d.name, nil }

// MTU returns the MTU that the device was opened with; the interface's own would be asked for in the wrong namespace.
func (d *Device) MTU() (int, error) { return d.mtu, nil }

// Close closes all queues. No Read or Write may be under way. A persistent interface stays.
func (d *Device) Close() error {
	errs := []error{d.closeFace()}
	for _, q := range d.queues {
		errs = append(errs, unix.Close(q.fd))
	}
	d.queues = nil
	return errors.Join(errs...)
}

// Queue is one queue of a device. Read is for one goroutine; Write for any.
type Queue struct{ fd int }

// FD returns the descriptor to wait on. It is non-blocking.
func (q *Queue) FD() int { return q.fd }

// Read reads one frame, VnetLen bytes and a packet, into frame, and returns its length. It does not block: without a frame
// it returns unix.EAGAIN.
func (q *Queue) Read(frame []byte) (int, error) {
	for {
		// RawSyscall: the descriptor does not block, so that the scheduler need not know of the call.
		n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(q.fd), uintptr(unsafe.Pointer(unsafe.SliceData(frame))), uintptr(len(frame)))
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
			continue
		}
		return 0, errno
	}
}

// Write writes one frame, whose packet may go on in more: at most packet.MaxTrain parts in all, gathered by the kernel.
func (q *Queue) Write(frame []byte, more [][]byte) error {
	if len(more) == 0 {
		return q.call(unix.SYS_WRITE, unsafe.Pointer(unsafe.SliceData(frame)), len(frame))
	}
	var parts [packet.MaxTrain]unix.Iovec
	setPart(&parts[0], frame)
	for i, m := range more {
		setPart(&parts[i+1], m)
	}
	return q.call(unix.SYS_WRITEV, unsafe.Pointer(&parts[0]), len(more)+1)
}

func (q *Queue) call(trap uintptr, p unsafe.Pointer, n int) error {
	for {
		switch _, _, errno := unix.RawSyscall(trap, uintptr(q.fd), uintptr(p), uintptr(n)); errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}

func setPart(v *unix.Iovec, b []byte) {
	v.Base = unsafe.SliceData(b)
	v.SetLen(len(b))
}
