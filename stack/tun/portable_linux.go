package tun

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"
	wgtun "golang.zx2c4.com/wireguard/tun"

	"github.com/middleway-net/middleway/stack/packet"
)

// portableFlags make a device with a single queue.
const portableFlags uint16 = unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR

// Portable is a device with one queue, driven by golang.zx2c4.com/wireguard/tun: that package splits every super-packet
// on reading and merges again on writing, so a stack on it does the same work slower. It is one Queue by itself.
type Portable struct {
	dev  wgtun.Device
	fd   int // of the device, owned by dev
	mtu  int
	bufs [][]byte
	size []int
	next int // bufs[next:n] were read and not handed out
	n    int
	held int // eventfd that is readable while there are such
	wait int // epoll over fd and held

	count [8]byte // what held is read into

	mu    sync.Mutex // guards what follows
	flat  []byte     // for assembling what is written
	out   [][]byte   // for the segments of one write
	batch [][]byte   // those of out that are to be written
}

// OpenPortable opens the device named in c like Open, with a single queue.
func OpenPortable(c Config) (*Portable, error) {
	if err := c.setDefaults(); err != nil {
		return nil, err
	}
	fd, err := openQueue(c, portableFlags)
	if err != nil {
		return nil, err
	}
	if err := c.persist(fd); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return newPortable(c, fd)
}

// newPortable drives an open queue, and takes ownership of it.
func newPortable(c Config, fd int) (*Portable, error) {
	dev, _, err := wgtun.CreateUnmonitoredTUNFromFD(fd)
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("open tun %q: %w", c.Name, err)
	}
	n := dev.BatchSize()
	p := &Portable{dev: dev, fd: fd, mtu: c.MTU, size: make([]int, n), flat: make([]byte, portableBuffer), held: -1, wait: -1}
	if err := p.initWait(); err != nil {
		_ = p.Close()
		return nil, fmt.Errorf("open tun %q: %w", c.Name, err)
	}
	// The device trusts a segment's size to fit, which the pod sets. Most of this memory is never touched.
	space := make([]byte, n*portableBuffer)
	for i := range n {
		p.bufs = append(p.bufs, space[i*portableBuffer:][:portableBuffer:portableBuffer])
		p.out = append(p.out, make([]byte, packet.VnetLen+c.MTU))
	}
	p.out[0] = make([]byte, portableBuffer) // the device merges what follows into it
	p.batch = make([][]byte, 0, n)
	return p, nil
}

// portableBuffer takes any packet, with the device's header and once more its length, for which the device asks when it
// merges.
const portableBuffer = 2*packet.VnetLen + 40 + packet.MaxSize

// initWait makes what FD returns. A reader that stops in the middle of what a super-packet was split into must be told of
// the rest, of which the device's own descriptor knows nothing.
func (p *Portable) initWait() (err error) {
	if p.held, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("make eventfd: %w", err)
	}
	if p.wait, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("make epoll: %w", err)
	}
	for _, fd := range []int{p.fd, p.held} {
		if err := unix.EpollCtl(p.wait, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN}); err != nil {
			return fmt.Errorf("watch descriptor: %w", err)
		}
	}
	return nil
}

// FD returns the descriptor to wait on.
func (p *Portable) FD() int { return p.wait }

// MTU returns the MTU that the device was opened with.
func (p *Portable) MTU() int { return p.mtu }

// SetPersist says whether the interface outlives its queue.
func (p *Portable) SetPersist(on bool) error { return setPersist(p.fd, on) }

// Close closes the queue. No Read or Write may be under way.
func (p *Portable) Close() error {
	for _, fd := range []*int{&p.wait, &p.held} {
		if *fd >= 0 {
			_ = unix.Close(*fd)
			*fd = -1
		}
	}
	return p.dev.Close()
}

// Read is Queue.Read. It asks whether the descriptor is readable first, since the device's own Read would block.
func (p *Portable) Read(frame []byte) (int, error) {
	if p.next == p.n {
		polled := [1]unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(polled[:], 0); err != nil || n == 0 {
			return 0, unix.EAGAIN
		}
		if polled[0].Revents&unix.POLLERR != 0 { // the interface is gone; of the device's own Read there is no telling
			return 0, unix.EBADFD
		}
		// Errors about a frame, which a pod can cause, are passed over: its first packets may be there, or none.
		n, err := p.dev.Read(p.bufs, p.size, packet.VnetLen)
		if errors.Is(err, os.ErrClosed) { // what the device makes of unix.EBADFD
			return 0, unix.EBADFD
		}
		if deviceFailed(err) {
			return 0, fmt.Errorf("read tun: %w", err)
		}
		p.next, p.n = 0, max(n, 0)
		if p.n == 0 {
			return 0, unix.EAGAIN
		}
		if p.n > 1 {
			_, _ = unix.Write(p.held, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		}
	}
	b := p.bufs[p.next][:packet.VnetLen+p.size[p.next]]
	if p.next++; p.next == p.n && p.n > 1 {
		_, _ = unix.Read(p.held, p.count[:])
	}
	packet.Offload{}.Encode(b)
	return copy(frame, b), nil
}

// deviceFailed reports whether an error of the device comes from its descriptor and not from what was read.
func deviceFailed(err error) bool {
	var path *fs.PathError
	return errors.As(err, &path)
}

// Takes reports false for every kind of super-packet: the device splits and merges by itself.
func (p *Portable) Takes(kind packet.GSO) bool { return kind == packet.GSONone }

// Write is Queue.Write: what is unfinished in the frame is finished before it is written.
func (p *Portable) Write(frame []byte, more [][]byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	flat := append(p.flat[:0], frame...)
	for _, m := range more {
		flat = append(flat, m...)
	}
	o, err := packet.DecodeOffload(flat)
	if err != nil {
		return unix.EINVAL
	}
	b := flat[packet.VnetLen:]
	var parsed packet.Parsed
	if packet.Parse(b, &parsed) != packet.Kept || o.Check(b, &parsed) != packet.Kept {
		return unix.EINVAL
	}
	if o.GSO == packet.GSONone {
		flat = flat[:packet.VnetLen+parsed.Len]
		packet.FinishChecksum(flat[packet.VnetLen:], &o)
		p.batch = append(p.batch[:0], flat)
		_, err := p.dev.Write(p.batch, packet.VnetLen)
		return err
	}
	split, ok := packet.Split(b, &parsed, o, false)
	if !ok || split.NextLen() > p.mtu {
		return unix.EMSGSIZE
	}
	return p.writeSegments(split)
}

// writeSegments needs p.mu held.
func (p *Portable) writeSegments(split packet.Segments) error {
	for split.Left() {
		p.batch = p.batch[:0]
		for split.Left() && len(p.batch) < len(p.out) {
			buf := p.out[len(p.batch)]
			n := packet.VnetLen + split.HeaderLen()
			payload, _ := split.Next(buf[packet.VnetLen:])
			n += copy(buf[n:], payload)
			p.batch = append(p.batch, buf[:n])
		}
		if _, err := p.dev.Write(p.batch, packet.VnetLen); err != nil {
			return err
		}
	}
	return nil
}
