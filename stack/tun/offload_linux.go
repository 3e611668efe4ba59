package tun

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/packet"
)

// Bits of TUNSETOFFLOAD: what the kernel may hand to us unfinished (include/uapi/linux/if_tun.h). The USO bits exist since
// Linux 6.2 and are set together.
const (
	offloadTCP = unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
	offloadUDP = unix.TUN_F_USO4 | unix.TUN_F_USO6
)

// Offloads are what a device and whoever drives it may leave to each other unfinished. Segmentation needs Checksum.
type Offloads struct {
	Checksum bool // transport checksums (ethtool: tx-checksumming)
	TSO      bool // TCP super-packets (ethtool: tcp-segmentation-offload)
	USO      bool // UDP super-packets (ethtool: tx-udp-segmentation; Linux 6.2)
}

// without returns o less what is turned off, and less what that carries.
func (o Offloads) without(off Offloads) Offloads {
	sum := o.Checksum && !off.Checksum
	return Offloads{Checksum: sum, TSO: sum && o.TSO && !off.TSO, USO: sum && o.USO && !off.USO}
}

func (o Offloads) bits() (bits int) {
	if o.Checksum {
		bits |= unix.TUN_F_CSUM
	}
	if o.TSO {
		bits |= offloadTCP
	}
	if o.USO {
		bits |= offloadUDP
	}
	return bits
}

// allOffloads is what a current kernel has.
var allOffloads = Offloads{Checksum: true, TSO: true, USO: true}

// setOffloads allows the kernel to hand over what is not turned off, as far as it knows it, and returns what that is.
func setOffloads(fd int, off Offloads) (has Offloads, err error) {
	for _, try := range []Offloads{allOffloads, {Checksum: true, TSO: true}, {Checksum: true}, {}} {
		try = try.without(off)
		if err = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, try.bits()); err == nil {
			return try, nil
		}
	}
	return Offloads{}, err
}

// Probe returns the offloads of TUN devices in the network namespace of the calling thread, less what off turns off. It
// tries them on a device of its own, which is gone when it returns.
func Probe(off Offloads) (Offloads, error) { return probe(Config{Without: off, clonePath: clonePath}) }

// probeName is the name of the device that is tried on; the kernel counts.
const probeName = "mwprobe%d"

func probe(c Config) (Offloads, error) {
	c.Name = probeName
	fd, err := openQueue(c, flags)
	if err != nil {
		return Offloads{}, err
	}
	defer unix.Close(fd)
	has, err := setOffloads(fd, c.Without)
	if err != nil {
		return Offloads{}, fmt.Errorf("set offloads of a tun device: %w", err)
	}
	return has, nil
}

// finisher finishes frames for a device that does not take them as they are.
type finisher struct {
	offloads Offloads

	mu   sync.Mutex // guards what follows
	flat []byte     // a frame's parts in one
	out  []byte     // a segment
}

// takes reports whether the device takes super-packets of that kind.
func (f *finisher) takes(kind packet.GSO) bool {
	switch kind {
	case packet.GSONone:
		return true
	case packet.GSOUDP:
		return f.offloads.USO
	}
	return f.offloads.TSO
}

// takesFrame reports whether the device takes a frame as it is.
func (f *finisher) takesFrame(frame []byte) bool {
	if f.offloads == allOffloads {
		return true
	}
	o, err := packet.DecodeOffload(frame)
	return err != nil || f.takes(o.GSO) && (f.offloads.Checksum || !o.NeedsChecksum)
}

// write calls out with each packet that a frame stands for, cut and summed as far as the device asks for it. What cannot
// be read is unix.EINVAL.
func (f *finisher) write(frame []byte, more [][]byte, out func(frame []byte) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	flat := append(f.flat[:0], frame...)
	for _, m := range more {
		flat = append(flat, m...)
	}
	f.flat = flat
	o, err := packet.DecodeOffload(flat)
	if err != nil {
		return unix.EINVAL
	}
	b := flat[packet.VnetLen:]
	var p packet.Parsed
	if packet.Parse(b, &p) != packet.Kept || o.Check(b, &p) != packet.Kept {
		return unix.EINVAL
	}
	if o.GSO == packet.GSONone {
		flat = flat[:packet.VnetLen+p.Len]
		packet.FinishChecksum(b[:p.Len], &o)
		o.Encode(flat)
		return out(flat)
	}
	return f.cut(b, &p, o, out)
}

// cut needs f.mu held.
func (f *finisher) cut(b []byte, p *packet.Parsed, o packet.Offload, out func([]byte) error) error {
	s, ok := packet.Split(b, p, o, f.offloads.Checksum)
	if !ok {
		return unix.EINVAL
	}
	var each packet.Offload
	if f.offloads.Checksum {
		each = packet.PartialOffload(p)
	}
	if need := packet.VnetLen + s.HeaderLen() + s.Size(); len(f.out) < need {
		f.out = make([]byte, need)
	}
	for s.Left() {
		each.Encode(f.out)
		n := packet.VnetLen + s.HeaderLen()
		payload, _ := s.Next(f.out[packet.VnetLen:])
		n += copy(f.out[n:], payload)
		if err := out(f.out[:n]); err != nil {
			return err
		}
	}
	return nil
}
