package tun

import (
	"errors"
	"fmt"
	"os"

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
	closed  int // eventfd that ends a blocked Read
	pool    packet.Pool
	current *packet.Buffer
	split   packet.Segments
}

// plainBatch is how many packets one plain Read hands out at most: more than a super-packet has at any usual MTU.
const plainBatch = 128

func (d *Device) initFace() (err error) {
	if d.closed, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("make eventfd for tun %q: %w", d.name, err)
	}
	d.events = make(chan wgtun.Event, 1)
	d.events <- wgtun.EventUp
	return nil
}

func (d *Device) closeFace() error {
	if d.events == nil {
		return nil
	}
	close(d.events)
	d.events = nil
	_, err := unix.Write(d.closed, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	return errors.Join(err, unix.Close(d.closed))
}

// File returns a duplicate of the first queue's descriptor; the caller closes it.
func (d *Device) File() *os.File {
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
// goroutine, and not to be mixed with reading the queues. Close ends it with os.ErrClosed.
func (d *Device) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	for {
		if d.current != nil {
			return d.handOut(bufs, sizes, offset)
		}
		b := d.pool.Get()
		n, err := d.readAny(b.Space())
		if err == nil && n > packet.VnetLen {
			b.SetFrame(n)
			err = d.take(b)
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
	polled := make([]unix.PollFd, 0, len(d.queues)+1)
	for _, q := range d.queues {
		polled = append(polled, unix.PollFd{Fd: int32(q.fd), Events: unix.POLLIN})
	}
	polled = append(polled, unix.PollFd{Fd: int32(d.closed), Events: unix.POLLIN})
	for {
		if _, err := unix.Poll(polled, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return 0, fmt.Errorf("wait for tun %q: %w", d.name, err)
		}
		if polled[len(d.queues)].Revents != 0 {
			return 0, os.ErrClosed
		}
		for _, q := range d.queues {
			n, err := q.Read(space)
			if !errors.Is(err, unix.EAGAIN) {
				return n, err
			}
		}
	}
}

// take makes b the current frame. A frame that contradicts itself is passed over, as a pod can cause one.
func (d *Device) take(b *packet.Buffer) error {
	o, err := packet.DecodeOffload(b.Frame())
	if err != nil {
		return err
	}
	var p packet.Parsed
	if packet.Parse(b.Packet(), &p) != packet.Kept || o.Check(b.Packet(), &p) != packet.Kept {
		return nil
	}
	if o.GSO == packet.GSONone {
		packet.FinishChecksum(b.Packet(), &o)
		d.split = packet.Segments{}
	} else {
		split, ok := packet.Split(b.Packet(), &p, o, false)
		if !ok {
			return nil
		}
		d.split = split
	}
	d.current = b
	return nil
}

// handOut copies the current frame's packets to the caller.
func (d *Device) handOut(bufs [][]byte, sizes []int, offset int) (n int, err error) {
	if d.split.HeaderLen() == 0 {
		sizes[0] = copy(bufs[0][offset:], d.current.Packet())
		if sizes[0] < len(d.current.Packet()) {
			err = fmt.Errorf("read tun %q: buffer of %d bytes is too small for a packet of %d", d.name, len(bufs[0])-offset, len(d.current.Packet()))
		}
		d.current.Release()
		d.current = nil
		return 1, err
	}
	for n < len(bufs) && d.split.Left() {
		head := d.split.HeaderLen()
		if len(bufs[n])-offset < head+d.split.Size() {
			return n, fmt.Errorf("read tun %q: buffer of %d bytes is too small for a segment of %d", d.name, len(bufs[n])-offset, head+d.split.Size())
		}
		payload, _ := d.split.Next(bufs[n][offset:])
		sizes[n] = head + copy(bufs[n][offset+head:], payload)
		n++
	}
	if !d.split.Left() {
		d.current.Release()
		d.current = nil
	}
	return n, nil
}

// Write writes packets whose headers and checksums are complete, one a buffer, from offset on; offset must leave room for
// the vnet header (packet.VnetLen). It returns how many were written.
func (d *Device) Write(bufs [][]byte, offset int) (int, error) {
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
