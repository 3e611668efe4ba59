package tun

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/packet"
)

// clonePath is the device file that makes TUN devices.
const clonePath = "/dev/net/tun"

// flags are the same at every opening: a persistent device takes back a queue only with the flags it was made with
// (drivers/net/tun.c, tun_set_iff).
const flags uint16 = unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_MULTI_QUEUE

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
	// Without are offloads that are not to be used, though the kernel may have them. Default: all are used that it has.
	Without Offloads
	// NetnsInode is the inode number of the namespace in which an adopted device must be. Default: any.
	NetnsInode uint64

	clonePath string // default clonePath; another one in tests
}

func (c *Config) setDefaults() error {
	if c.clonePath == "" {
		c.clonePath = clonePath
	}
	c.Queues = max(1, c.Queues)
	// The kernel would make up a name for "" and for "eth%d".
	if c.Name == "" || len(c.Name) >= unix.IFNAMSIZ || strings.ContainsAny(c.Name, "%/: \x00") {
		return fmt.Errorf("open tun %q: not an interface name: want 1 to %d bytes without %%, /, : and space", c.Name, unix.IFNAMSIZ-1)
	}
	if c.Queues > maxQueues {
		return fmt.Errorf("open tun %q: %d queues are more than the kernel's %d", c.Name, c.Queues, maxQueues)
	}
	return nil
}

// maxQueues is the kernel's MAX_TAP_QUEUES.
const maxQueues = 256

// Device is a TUN device with one queue a worker. It stays usable from any namespace.
type Device struct {
	name     string
	mtu      int
	offloads Offloads
	queues   []*Queue

	face
}

// Open opens the device named in c in the network namespace of the calling thread: makes it if there is none, takes it up
// again if a former daemon left it. It needs CAP_NET_ADMIN in that namespace; the descriptors need nothing afterwards.
func Open(c Config) (*Device, error) {
	if err := c.setDefaults(); err != nil {
		return nil, err
	}
	d := &Device{name: c.Name, mtu: c.MTU}
	for range c.Queues {
		fd, err := openQueue(c, flags)
		if err != nil {
			_ = d.Close()
			return nil, err
		}
		if err := d.start(d.add(fd), c.Without); err != nil {
			_ = d.Close()
			return nil, fmt.Errorf("set offloads of tun %q: %w", c.Name, err)
		}
	}
	if err := d.alone(); err != nil {
		_ = d.Close()
		return nil, err
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

// add makes fd a queue of the device, which closes it.
func (d *Device) add(fd int) *Queue {
	q := &Queue{fd: fd}
	q.one = q.writeOne
	d.queues = append(d.queues, q)
	return q
}

// start sets the offloads of a queue; all queues of a device have the same.
func (d *Device) start(q *Queue, without Offloads) (err error) {
	d.offloads, err = setOffloads(q.fd, without)
	q.finish.offloads = d.offloads
	return err
}

// alone makes sure that nobody else reads the device: the kernel gives a queue to each process that asks, and a former
// daemon that still runs would get its share of the packets. A kernel that does not tell (before 4.19) is believed.
func (d *Device) alone() error {
	link, err := netlink.LinkByName(d.name)
	if err != nil {
		return fmt.Errorf("ask for the queues of tun %q: %w", d.name, err)
	}
	t, ok := link.(*netlink.Tuntap)
	if !ok {
		return nil
	}
	if others := t.Queues + t.DisabledQueues - len(d.queues); others > 0 {
		return fmt.Errorf("take up tun %q: another process has %d of its queues open; end that process: %w", d.name, others, unix.EBUSY)
	}
	return nil
}

// ErrUnavailable is the error, by errors.Is, of a machine or container that gives this process no TUN devices.
var ErrUnavailable = errors.New("no tun devices")

type unavailable struct{ error }

func (u unavailable) Unwrap() error        { return u.error }
func (u unavailable) Is(target error) bool { return target == ErrUnavailable }

func openQueue(c Config, flags uint16) (int, error) {
	path := c.clonePath
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return -1, unavailable{fmt.Errorf("open %s: it does not exist; load the tun module (modprobe tun) or make the device (mknod %s c 10 200), and let a container see it: %w", path, path, err)}
	case errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return -1, unavailable{fmt.Errorf("open %s: the kernel has no tun devices; load the tun module (modprobe tun): %w", path, err)}
	case errors.Is(err, unix.EPERM): // the device controller of the cgroup (device_cgroup.c)
		return -1, unavailable{fmt.Errorf("open %s: the container's device rules forbid it; add a rule for c 10:200 rw, or use a container runtime whose rules have it (runc 1.2.0 to 1.2.3 has not): %w", path, err)}
	case errors.Is(err, fs.ErrPermission):
		return -1, unavailable{fmt.Errorf("open %s: not allowed for uid %d; let it in (chmod 0666 %s, or a mount without nodev): %w", path, os.Geteuid(), path, err)}
	case err != nil:
		return -1, unavailable{fmt.Errorf("open %s: %w", path, err)}
	}
	if err := setInterface(fd, c.Name, flags); err != nil {
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
	name = strings.TrimSuffix(name, "%d") // for people
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

// SetPersist says whether the interface outlives its queues.
func (d *Device) SetPersist(on bool) error {
	if len(d.queues) == 0 {
		return os.ErrClosed
	}
	return setPersist(d.queues[0].fd, on)
}

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

// Offloads returns what the device and its driver leave to each other.
func (d *Device) Offloads() Offloads { return d.offloads }

// Name returns the interface's name.
func (d *Device) Name() (string, error) { return d.name, nil }

// MTU returns the MTU that the device was opened with; the interface's own would be asked for in the wrong namespace.
func (d *Device) MTU() (int, error) { return d.mtu, nil }

// Close closes all queues and ends the device's own Read and Write. No Read or Write of a queue may be under way. A
// persistent interface stays. A second Close does nothing.
func (d *Device) Close() error {
	err := d.stopFace()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, q := range d.queues {
		err = errors.Join(err, unix.Close(q.fd))
	}
	d.queues = nil
	return errors.Join(err, d.closeFace())
}

// Queue is one queue of a device. Read is for one goroutine; Write for any.
type Queue struct {
	fd     int
	finish finisher
	one    func(frame []byte) error // writeOne, made once
}

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

// Takes reports whether the device takes super-packets of a kind whole.
func (q *Queue) Takes(kind packet.GSO) bool { return q.finish.takes(kind) }

// Write writes one frame, whose packet may go on in more: at most packet.MaxTrain parts in all, gathered by the kernel. What
// the device does not take unfinished is cut and summed here first.
func (q *Queue) Write(frame []byte, more [][]byte) error {
	if !q.finish.takesFrame(frame) {
		return q.finish.write(frame, more, q.one)
	}
	if len(more) == 0 {
		return q.writeOne(frame)
	}
	var parts [packet.MaxTrain]unix.Iovec
	setPart(&parts[0], frame)
	for i, m := range more {
		setPart(&parts[i+1], m)
	}
	return q.call(unix.SYS_WRITEV, unsafe.Pointer(&parts[0]), len(more)+1)
}

// writeOne writes a frame in one part.
func (q *Queue) writeOne(frame []byte) error {
	return q.call(unix.SYS_WRITE, unsafe.Pointer(unsafe.SliceData(frame)), len(frame))
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
