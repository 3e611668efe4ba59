package tun

import (
	"fmt"
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

	mu   sync.Mutex // guards what follows
	flat []byte     // for assembling what is written
	out  [][]byte   // for the segments of one write
}

// OpenPortable opens the device named in c like Open, with a single queue.
func OpenPortable(c Config) (*Portable, error) {
	fd, err := openQueue(c.Name, portableFlags)
	if err != nil {
		return nil, err
	}
	if err := c.persist(fd); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	dev, _, err := wgtun.CreateUnmonitoredTUNFromFD(fd)
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("open tun %q: %w", c.Name, err)
	}
	p := &Portable{dev: dev, fd: fd, mtu: c.MTU, size: make([]int, dev.BatchSize()), flat: make([]byte, packet.VnetLen+packet.MaxSize)}
	for range dev.BatchSize() {
		p.bufs = append(p.bufs, make([]byte, packet.VnetLen+c.MTU))
		p.out = append(p.out, make([]byte, packet.VnetLen+c.MTU))
	}
	return p, nil
}

// FD returns the descriptor to wait on.
func (p *Portable) FD() int { return p.fd }

// MTU returns the MTU that the device was opened with.
func (p *Portable) MTU() int { return p.mtu }

// SetPersist says whether the interface outlives its queue.
func (p *Portable) SetPersist(on bool) error { return setPersist(p.fd, on) }

// Close closes the queue. No Read or Write may be under way.
func (p *Portable) Close() error { return p.dev.Close() }

// Read is Queue.Read. It asks whether the descriptor is readable first, since the device's own Read would block.
func (p *Portable) Read(frame []byte) (int, error) {
	if p.next == p.n {
		polled := [1]unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(polled[:], 0); err != nil || n == 0 {
			return 0, unix.EAGAIN
		}
		n, err := p.dev.Read(p.bufs, p.size, packet.VnetLen)
		if err != nil {
			return 0, fmt.Errorf("read tun: %w", err)
		}
		p.next, p.n = 0, n
		if n == 0 {
			return 0, unix.EAGAIN
		}
	}
	b := p.bufs[p.next][:packet.VnetLen+p.size[p.next]]
	p.next++
	packet.Offload{}.Encode(b)
	return copy(frame, b), nil
}

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
		return err
	}
	b := flat[packet.VnetLen:]
	if o.GSO == packet.GSONone {
		packet.FinishChecksum(b, &o)
		_, err := p.dev.Write([][]byte{flat}, packet.VnetLen)
		return err
	}
	var parsed packet.Parsed
	if packet.Parse(b, &parsed) != packet.Kept {
		return unix.EINVAL
	}
	split, ok := packet.Split(b, &parsed, o, false)
	if !ok || split.HeaderLen()+split.Size() > p.mtu {
		return unix.EMSGSIZE
	}
	return p.writeSegments(split)
}

// writeSegments needs p.mu held.
func (p *Portable) writeSegments(split packet.Segments) error {
	batch := make([][]byte, 0, len(p.out))
	for split.Left() {
		buf := p.out[len(batch)]
		payload, _ := split.Next(buf[packet.VnetLen:])
		n := packet.VnetLen + split.HeaderLen()
		n += copy(buf[n:], payload)
		batch = append(batch, buf[:n])
		if len(batch) == cap(batch) || !split.Left() {
			if _, err := p.dev.Write(batch, packet.VnetLen); err != nil {
				return err
			}
			batch = batch[:0]
		}
	}
	return nil
}
