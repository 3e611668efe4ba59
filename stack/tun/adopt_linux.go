package tun

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/packet"
)

// Make makes the device named in c in the network namespace of the calling thread and returns its open queues for another
// process to adopt: several, or a single one as OpenPortable's. An interface of that name is an fs.ErrExist and stays
// untouched. Until somebody makes it persistent the device ends with its queues.
func Make(c Config, portable bool) (queues []int, err error) {
	if err := c.setDefaults(); err != nil {
		return nil, err
	}
	kind := flags
	if portable {
		kind, c.Queues = portableFlags, 1
	}
	exclusive := uint16(unix.IFF_TUN_EXCL)
	for range c.Queues {
		fd, err := openQueue(c, kind|exclusive)
		if err != nil {
			CloseQueues(queues)
			if exclusive != 0 && errors.Is(err, unix.EBUSY) {
				return nil, fmt.Errorf("make tun %q: %w", c.Name, fs.ErrExist)
			}
			return nil, err
		}
		queues = append(queues, fd)
		exclusive = 0
	}
	return queues, nil
}

// Keep makes the device of an open queue outlive its queues, or not.
func Keep(queue int, on bool) error { return setPersist(queue, on) }

// CloseQueues closes queues that Make returned.
func CloseQueues(queues []int) {
	for _, fd := range queues {
		_ = unix.Close(fd)
	}
}

// Adopt is Open for queues that another process has opened and handed over. It takes ownership of them, and of each asks
// the kernel whether it is what the process claims: a queue of the device named in c, in the namespace that c says, with
// the flags of Open.
func Adopt(c Config, queues []int) (*Device, error) {
	if err := c.setDefaults(); err != nil {
		CloseQueues(queues)
		return nil, err
	}
	if len(queues) == 0 || len(queues) > maxQueues {
		CloseQueues(queues)
		return nil, fmt.Errorf("adopt tun %q: %d queues, want 1 to %d", c.Name, len(queues), maxQueues)
	}
	d := &Device{name: c.Name, mtu: c.MTU}
	for _, fd := range queues {
		d.add(fd)
	}
	for _, q := range d.queues {
		err := c.verify(q.fd, flags)
		if err == nil {
			err = d.start(q, c.Without)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("adopt tun %q: %w", c.Name, err), d.Close())
		}
	}
	if err := d.initFace(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// AdoptPortable is Adopt for a device with a single queue.
func AdoptPortable(c Config, queues []int) (*Portable, error) {
	err := c.setDefaults()
	if err == nil && len(queues) != 1 {
		err = fmt.Errorf("adopt tun %q: %d queues, want one", c.Name, len(queues))
	}
	if err == nil {
		if err = c.verify(queues[0], portableFlags); err != nil {
			err = fmt.Errorf("adopt tun %q: %w", c.Name, err)
		}
	}
	if err != nil {
		CloseQueues(queues)
		return nil, err
	}
	return newPortable(c, queues[0])
}

// kindFlags are those of a device's flags that Open chooses.
const kindFlags uint16 = unix.IFF_TUN | unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_MULTI_QUEUE

// verify asks the kernel what a descriptor is.
func (c *Config) verify(fd int, want uint16) error {
	req, err := unix.NewIfreq("")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.TUNGETIFF, req); err != nil {
		return fmt.Errorf("descriptor %d is no queue of a tun device: %w", fd, err)
	}
	switch got := req.Uint16(); {
	case req.Name() != c.Name:
		return fmt.Errorf("descriptor %d is a queue of %q", fd, req.Name())
	case got&kindFlags != want:
		return fmt.Errorf("descriptor %d is a queue with flags %#x, want %#x", fd, got&kindFlags, want)
	case got&unix.IFF_DETACH_QUEUE != 0:
		return fmt.Errorf("descriptor %d is a queue that was detached", fd)
	}
	mode, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return fmt.Errorf("ask for flags of descriptor %d: %w", fd, err)
	}
	if mode&unix.O_ACCMODE != unix.O_RDWR {
		return fmt.Errorf("descriptor %d is not open for reading and writing", fd)
	}
	if header, err := unix.IoctlGetInt(fd, unix.TUNGETVNETHDRSZ); err != nil || header != packet.VnetLen {
		return fmt.Errorf("descriptor %d has a header of %d bytes, want %d (%v)", fd, header, packet.VnetLen, err)
	}
	if err := c.verifyNamespace(fd); err != nil {
		return err
	}
	return unix.SetNonblock(fd, true)
}

// verifyNamespace asks for the namespace in which the device is. A kernel before 5.6 does not tell, and the process that
// made the device is believed.
func (c *Config) verifyNamespace(fd int) error {
	if c.NetnsInode == 0 {
		return nil
	}
	ns, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNGETDEVNETNS, 0)
	switch errno {
	case 0:
	case unix.EINVAL, unix.ENOTTY:
		return nil
	default:
		return fmt.Errorf("ask for the namespace of descriptor %d: %w", fd, errno)
	}
	defer unix.Close(int(ns))
	var st unix.Stat_t
	if err := unix.Fstat(int(ns), &st); err != nil {
		return fmt.Errorf("ask for the namespace of descriptor %d: %w", fd, err)
	}
	if st.Ino != c.NetnsInode {
		return fmt.Errorf("descriptor %d is a queue in namespace %d, want %d", fd, st.Ino, c.NetnsInode)
	}
	return nil
}
