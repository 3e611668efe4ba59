// Package tuntest is a TUN device in memory, for tests of what stands on devices.
package tuntest

import (
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/packet"
)

// Device is a device in memory. What a test injects, the stack reads; what the stack writes, the test gets. All methods may
// be called by any goroutine.
type Device struct {
	queues  []*Queue
	mu      sync.Mutex
	written []Written
	gone    bool
	plain   bool // takes no super-packets
}

// Written is a frame that was written to the device, its parts joined.
type Written struct {
	Queue int
	Frame []byte
}

// Queue is one queue of a Device. It implements the stack's Queue.
type Queue struct {
	device *Device
	number int
	fd     int // an eventfd that counts the frames waiting, so that it is readable while there are any

	mu      sync.Mutex
	waiting [][]byte
	gone    bool // the interface was removed, or the queue closed
}

// New returns a device with the given number of queues.
func New(queues int) (*Device, error) {
	d := &Device{}
	for i := range queues {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK|unix.EFD_SEMAPHORE)
		if err != nil {
			_ = d.Close()
			return nil, err
		}
		d.queues = append(d.queues, &Queue{device: d, number: i, fd: fd})
	}
	return d, nil
}

// Frame returns packet b behind the vnet header that describes it, as Inject takes it.
func Frame(o packet.Offload, b []byte) []byte {
	frame := make([]byte, packet.VnetLen, packet.VnetLen+len(b))
	o.Encode(frame)
	return append(frame, b...)
}

// TakeNoTrains makes the device one that takes no super-packets. It is called before the device is used.
func (d *Device) TakeNoTrains() { d.plain = true }

// Queues returns the device's queues.
func (d *Device) Queues() []*Queue { return d.queues }

// Inject puts a frame into a queue, as if the pod had sent it. A device that was removed or closed loses it.
func (d *Device) Inject(queue int, frame []byte) {
	q := d.queues[queue]
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.gone {
		return
	}
	q.waiting = append(q.waiting, slices.Clone(frame))
	q.count()
}

// Written returns the frames written since the last call, in the order of writing.
func (d *Device) Written() []Written {
	d.mu.Lock()
	defer d.mu.Unlock()
	w := d.written
	d.written = nil
	return w
}

// Remove makes the device fail like one whose interface was removed, by somebody's hand or with its pod's namespace: its
// descriptors stay readable, reading and writing returns unix.EBADFD.
func (d *Device) Remove() {
	for _, q := range d.queues {
		q.mu.Lock()
		if !q.gone {
			q.gone = true
			q.count()
		}
		q.mu.Unlock()
	}
	d.mu.Lock()
	d.gone = true
	d.mu.Unlock()
}

// Close closes the queues' descriptors. No Read or Write may be under way, and nobody may wait for them. A second Close
// does nothing.
func (d *Device) Close() error {
	d.Remove()
	for _, q := range d.queues {
		q.mu.Lock()
		if q.fd >= 0 {
			_ = unix.Close(q.fd)
			q.fd = -1
		}
		q.mu.Unlock()
	}
	return nil
}

// FD returns the descriptor to wait on, -1 after Close.
func (q *Queue) FD() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.fd
}

// count makes the descriptor readable once more. It needs q.mu held.
func (q *Queue) count() { _, _ = unix.Write(q.fd, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }

// Read reads one frame, or returns unix.EAGAIN. What does not fit is cut off, as the kernel does.
func (q *Queue) Read(frame []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.gone {
		return 0, unix.EBADFD
	}
	if len(q.waiting) == 0 {
		return 0, unix.EAGAIN
	}
	var count [8]byte
	_, _ = unix.Read(q.fd, count[:])
	n := copy(frame, q.waiting[0])
	q.waiting = q.waiting[1:]
	return n, nil
}

// Takes reports whether the device takes super-packets of a kind.
func (q *Queue) Takes(kind packet.GSO) bool { return kind == packet.GSONone || !q.device.plain }

// Write keeps one frame for Written.
func (q *Queue) Write(frame []byte, more [][]byte) error {
	w := Written{Queue: q.number, Frame: slices.Concat(append([][]byte{frame}, more...)...)}
	q.device.mu.Lock()
	defer q.device.mu.Unlock()
	if q.device.gone {
		return unix.EBADFD
	}
	q.device.written = append(q.device.written, w)
	return nil
}
