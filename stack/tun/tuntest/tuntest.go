// Package tuntest is a TUN device in memory, for tests of what stands on devices.
package tuntest

import (
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Device is a device in memory. What a test injects, the stack reads; what the stack writes, the test gets.
type Device struct {
	queues  []*Queue
	mu      sync.Mutex
	written []Written
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

// Queues returns the device's queues.
func (d *Device) Queues() []*Queue { return d.queues }

// Inject puts a frame into a queue, as if the pod had sent it.
func (d *Device) Inject(queue int, frame []byte) {
	q := d.queues[queue]
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = append(q.waiting, slices.Clone(frame))
	_, _ = unix.Write(q.fd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

// Written returns the frames written since the last call, in the order of writing.
func (d *Device) Written() []Written {
	d.mu.Lock()
	defer d.mu.Unlock()
	w := d.written
	d.written = nil
	return w
}

// Close closes the queues. No Read may be under way.
func (d *Device) Close() error {
	for _, q := range d.queues {
		_ = unix.Close(q.fd)
	}
	d.queues = nil
	return nil
}

// FD returns the descriptor to wait on.
func (q *Queue) FD() int { return q.fd }

// Read reads one frame, or returns unix.EAGAIN.
func (q *Queue) Read(frame []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var count [8]byte
	if _, err := unix.Read(q.fd, count[:]); err != nil {
		return 0, unix.EAGAIN
	}
	n := copy(frame, q.waiting[0])
	q.waiting = q.waiting[1:]
	return n, nil
}

// Write keeps one frame for Written.
func (q *Queue) Write(frame []byte, more [][]byte) error {
	w := Written{Queue: q.number, Frame: slices.Concat(append([][]byte{frame}, more...)...)}
	q.device.mu.Lock()
	defer q.device.mu.Unlock()
	q.device.written = append(q.device.written, w)
	return nil
}
