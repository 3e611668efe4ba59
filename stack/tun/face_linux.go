package tun

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
	wgtun "golang.zx2c4.com/wireguard/tun"

	"github.com/middleway-net/middleway/stack/packet"
)

// wgtun.Device is the plain face of a device, for programs written for golang.zx2c4.com/wireguard/tun: packets without
// vnet headers, super-packets split and checksums complete. The stack does not use it.
var _ wgtun.Device = (*Device)(nil)

// face is the state behind the plain Read: a frame that was read and the segments of it not handed out yet.
type face struct {
	events  chan wgtun.Event
	stop    int // eventfd that ends a blocked Read; valid iff events is not nil
	stopped sync.Once
	polled  []unix.PollFd // all queues, and stop
	pool    packet.Pool
	current *packet.Buffer
	split   packet.Segments

	mu sync.RWMutex // held for reading while the queues are in use, for writing to close them
}

// plainBatch is how many packets one plain Read hands out at most: more than a super-packet has at any usual MTU.
const plainBatch = 128

func (d *Device) initFace() (err error) {
	if d.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("make eventfd for tun %q: %w", d.name, err)
	}
	d.events = make(chan wgtun.Event, 1)
	d.events <- wgtun.EventUp
	for _, q := range d.queues {
		d.polled = append(d.polled, unix.PollFd{Fd: int32(q.fd), Events: unix.POLLIN})
	}
	d.polled = append(d.polled, unix.PollFd{Fd: int32(d.stop), Events: unix.POLLIN})
	return nil
}

// stopFace ends a blocked Read.
func (d *Device) stopFace() (err error) {
	if d.events != nil {
		d.stopped.Do(func() { _, err = unix.Write(d.stop, []byte{1, 0, 0, 0, 0, 0, 0, 0}) })
	}
	return err
}

// closeFace needs d.mu held.
func (d *Device) closeFace() error {
	if d.polled == nil {
		return nil
	}
	d.polled = nil
	close(d.events)
	return unix.Close(d.stop)
}

// File returns a duplicate of the first queue's descriptor, nil if there is none any more; the caller closes it.
func (d *Device) File() *os.File {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if len(d.queues) == 0 {
		return nil
	}
	fd, err := unix.FcntlInt(uintptr(d.queues[0].fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(fd), clonePath)
}

// Events tells that the device is up; it is closed with the device.
func (d *Device) Events() <-chan wgtun.Event { return d.events }

// BatchSize returns the most packets that one Read hands out.
func (d *Device) BatchSize() int { return plainBatch }

// Read blocks until packets are there and copies them, without headers of the device, to bufs[i][offset:]. It is for one
// goroutine, and not to be mixed with reading the queues. A packet that does not fit its buffer is lost, with those that
// the kernel had joined to it, and reported (io.ErrShortBuffer). Close ends Read with os.ErrClosed.
func (d *Device) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	for {
		if d.current != nil {
			return d.handOut(bufs, sizes, offset)
		}
		b := d.pool.Get()
		n, err := d.readAny(b.Space())
		if err == nil && n > packet.VnetLen {
			b.SetFrame(n)
			d.take(b)
		}
		if d.current == nil {
			b.Release()
		}
		if err != nil {
			return 0, err
		}
	}
}

// readAny reads a frame from whichever queue has one.
func (d *Device) readAny(space []byte) (int, error) {
	for len(d.queues) > 0 {
		switch _, err := unix.Poll(d.polled, -1); {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 0, fmt.Errorf("wait for tun %q: %w", d.name, err)
		}
		if d.polled[len(d.queues)].Revents != 0 {
			return 0, os.ErrClosed
		}
		for i, q := range d.queues {
			if d.polled[i].Revents == 0 {
				continue
			}
			switch n, err := q.Read(space); {
			case err == nil:
				return n, nil
			case errors.Is(err, unix.EBADFD): // the interface is gone
				return 0, os.ErrClosed
			case !errors.Is(err, unix.EAGAIN):
				return 0, fmt.Errorf("read tun %q: %w", d.name, err)
			}
		}
	}
	return 0, os.ErrClosed
}

// take makes b the current frame. A frame that contradicts itself is passed over, as a pod can cause one.
func (d *Device) take(b *packet.Buffer) {
	o, err := packet.DecodeOffload(b.Frame())
	var p packet.Parsed
	if err != nil || packet.Parse(b.Packet(), &p) != packet.Kept || o.Check(b.Packet(), &p) != packet.Kept {
		return
	}
	b.Trim(p.Len)
	d.split = packet.Segments{}
	if o.GSO == packet.GSONone {
		packet.FinishChecksum(b.Packet(), &o)
	} else if split, ok := packet.Split(b.Packet(), &p, o, false); ok {
		d.split = split
	} else {
		return
	}
	d.current = b
}

// handOut copies the current frame's packets to the caller.
func (d *Device) handOut(bufs [][]byte, sizes []int, offset int) (n int, err error) {
	if head := d.split.HeaderLen(); head == 0 {
		if n, err = 1, d.fits(bufs[0], offset, len(d.current.Packet())); err != nil {
			n = 0
		} else {
			sizes[0] = copy(bufs[0][offset:], d.current.Packet())
		}
	} else {
		for ; n < len(bufs) && d.split.Left(); n++ {
			if err = d.fits(bufs[n], offset, d.split.NextLen()); err != nil {
				break
			}
			payload, _ := d.split.Next(bufs[n][offset:])
			sizes[n] = head + copy(bufs[n][offset+head:], payload)
		}
	}
	if err != nil || !d.split.Left() || d.split.HeaderLen() == 0 {
		d.current.Release()
		d.current = nil
	}
	return n, err
}

func (d *Device) fits(buf []byte, offset, size int) error {
	if len(buf)-offset >= size {
		return nil
	}
	return fmt.Errorf("read tun %q: %d bytes for a packet of %d: %w", d.name, max(0, len(buf)-offset), size, io.ErrShortBuffer)
}

// Write writes packets whose headers and checksums are complete, one a buffer, from offset on; offset must leave room for
// the vnet header (packet.VnetLen). It returns how many were written.
func (d *Device) Write(bufs [][]byte, offset int) (int, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if len(d.queues) == 0 {
		return 0, os.ErrClosed
	}
	if offset < packet.VnetLen {
		return 0, fmt.Errorf("write tun %q: offset %d leaves no room for the %d bytes of the vnet header", d.name, offset, packet.VnetLen)
	}
	for i, b := range bufs {
		frame := b[offset-packet.VnetLen:]
		packet.Offload{}.Encode(frame)
		if err := d.queues[0].Write(frame, nil); err != nil {
			return i, fmt.Errorf("write tun %q: %w", d.name, err)
		}
	}
	return len(bufs), nil
}
