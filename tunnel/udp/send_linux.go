package udp

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/packet"
)

// Limits of one message and one batch.
const (
	// MaxTrain is the most datagrams of one train (UDP_MAX_SEGMENTS before Linux 6.9).
	MaxTrain = 64
	// MaxTrainLen is the most bytes of one train: what an IPv4 packet holds beside its headers.
	MaxTrainLen = 65507
	maxMessages = 128
	maxParts    = 1024
)

// Addr is a destination in the kernel's form.
type Addr struct {
	raw unix.RawSockaddrInet6
	len uint32
	// refused is why the route there does not take trains, as an errno; 0 if it does.
	refused atomic.Uint32
}

// RefusesTrains reports whether the route to the address has refused a train since the last RetryTrains: it gets datagrams one
// by one. Any goroutine may ask.
func (a *Addr) RefusesTrains() bool { return a.refused.Load() != 0 }

// Refusal returns the kernel's reason for RefusesTrains, or nil.
func (a *Addr) Refusal() error {
	if errno := a.refused.Load(); errno != 0 {
		return unix.Errno(errno)
	}
	return nil
}

// Refuse notes that the route has refused a train, by the reason.
func (a *Addr) Refuse(errno unix.Errno) { a.refused.Store(uint32(errno)) }

// RetryTrains lets the next train try the route again.
func (a *Addr) RetryTrains() { a.refused.Store(0) }

// NewAddr returns the kernel's form of a.
func NewAddr(a netip.AddrPort) *Addr {
	if a.Addr().Is4() {
		d := &Addr{len: unix.SizeofSockaddrInet4}
		raw := (*unix.RawSockaddrInet4)(unsafe.Pointer(&d.raw))
		raw.Family, raw.Addr = unix.AF_INET, a.Addr().As4()
		binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&raw.Port))[:], a.Port())
		return d
	}
	d := &Addr{len: unix.SizeofSockaddrInet6}
	d.raw.Family, d.raw.Addr = unix.AF_INET6, a.Addr().As16()
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&d.raw.Port))[:], a.Port())
	return d
}

// Batch gathers messages for one socket. Their parts are borrowed until Flush. It is for one goroutine.
//
//	b.Begin(to)         a message starts
//	b.Part(head)        its parts, in order
//	b.Part(payload)
//	b.End(segment)      it is complete: a train of datagrams of segment bytes, or one datagram if segment is 0
type Batch struct {
	conn     *Conn
	headers  [maxMessages]mmsghdr
	iovecs   [maxParts]unix.Iovec
	controls []byte // controlSpace a message
	segments [maxMessages]int
	to       [maxMessages]*Addr
	messages int
	parts    int
	started  int // first part of the message under way
}

// NewBatch returns an empty batch for c.
func NewBatch(c *Conn) *Batch {
	b := &Batch{conn: c, controls: make([]byte, maxMessages*controlSpace)}
	for i := range maxMessages {
		control := b.controls[i*controlSpace:]
		segment := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
		segment.Level, segment.Type = unix.SOL_UDP, unix.UDP_SEGMENT
		segment.SetLen(unix.CmsgLen(2))
		tos := (*unix.Cmsghdr)(unsafe.Pointer(&control[segmentSpace]))
		tos.Level, tos.Type = unix.IPPROTO_IP, unix.IP_TOS
		if c.v6 {
			tos.Level, tos.Type = unix.IPPROTO_IPV6, unix.IPV6_TCLASS
		}
		tos.SetLen(unix.CmsgLen(4))
	}
	return b
}

// A message's room for control messages: the size of its segments, an uint16, and behind it its traffic class, an int. Each
// is sent only where it says something, so that both stand ready.
var (
	segmentSpace = unix.CmsgSpace(2)
	controlSpace = segmentSpace + unix.CmsgSpace(4)
)

// Fits reports whether a further message of the given number of parts has room; if not the caller flushes first.
func (b *Batch) Fits(parts int) bool {
	return b.messages < maxMessages && b.parts+parts <= maxParts
}

// Empty reports whether nothing is pending.
func (b *Batch) Empty() bool { return b.messages == 0 }

// Begin starts a message. Precondition: Fits.
func (b *Batch) Begin(to *Addr) {
	b.started = b.parts
	b.to[b.messages] = to
	h := &b.headers[b.messages].hdr
	h.Name, h.Namelen = (*byte)(unsafe.Pointer(&to.raw)), to.len
}

// Part adds bytes to the message.
func (b *Batch) Part(p []byte) {
	b.iovecs[b.parts].Base = unsafe.SliceData(p)
	b.iovecs[b.parts].SetLen(len(p))
	b.parts++
}

// End completes the message. Its IP headers get the ECN field; those of a train's datagrams share it.
func (b *Batch) End(segment int, ecn packet.ECN) {
	m := b.messages
	h := &b.headers[m].hdr
	h.Iov = &b.iovecs[b.started]
	h.SetIovlen(b.parts - b.started)
	h.Control = nil
	h.SetControllen(0)
	b.segments[m] = segment
	if segment > 0 {
		control := b.controls[m*controlSpace:][:segmentSpace]
		binary.NativeEndian.PutUint16(control[unix.CmsgLen(0):], uint16(segment))
		h.Control = &control[0]
		h.SetControllen(segmentSpace)
	}
	if ecn != packet.NotECT {
		control := b.controls[m*controlSpace+segmentSpace:][:controlSpace-segmentSpace]
		binary.NativeEndian.PutUint32(control[unix.CmsgLen(0):], uint32(ecn))
		if segment == 0 {
			h.Control = &control[0]
		}
		h.SetControllen(int(h.Controllen) + len(control))
	}
	b.messages++
}

// Flush sends everything. failed is called for each message that the kernel refused, with how many datagrams of the batch stand before
// it, how many it has, and the reason. A train that the route refuses is sent again datagram by datagram, and so are all later ones to this address.
func (b *Batch) Flush(failed func(before, datagrams int, err error)) {
	for next := 0; next < b.messages; {
		if b.refused(next) {
			b.sendSingly(next, failed)
			next++
			continue
		}
		n, errno := b.send(next, b.run(next))
		next += n
		switch {
		case errno == 0 || errno == unix.EINTR:
		case b.segments[next] > 0 && (errno == unix.EIO || errno == unix.EINVAL):
			b.to[next].Refuse(errno)
		default:
			failed(b.before(next), b.datagrams(next), errno)
			next++
		}
	}
	b.messages, b.parts = 0, 0
}

// refused reports whether message i is a train to an address whose route refuses them.
func (b *Batch) refused(i int) bool { return b.segments[i] > 0 && b.to[i].RefusesTrains() }

// run returns how many messages from first on may go in one call: up to the next train that the route refuses.
func (b *Batch) run(first int) int {
	end := first + 1
	for end < b.messages && !b.refused(end) {
		end++
	}
	return end - first
}

func (b *Batch) send(first, n int) (sent int, errno unix.Errno) {
	r, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(b.conn.fd), uintptr(unsafe.Pointer(&b.headers[first])), uintptr(n), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(r), 0
}

// datagrams returns how many datagrams message i has.
func (b *Batch) datagrams(i int) int {
	if b.segments[i] == 0 {
		return 1
	}
	return (b.length(i) + b.segments[i] - 1) / b.segments[i]
}

// before returns how many datagrams the messages before i have.
func (b *Batch) before(i int) (n int) {
	for m := range i {
		n += b.datagrams(m)
	}
	return n
}

func (b *Batch) partsOf(i int) []unix.Iovec {
	h := &b.headers[i].hdr
	return unsafe.Slice(h.Iov, int(h.Iovlen))
}

func (b *Batch) length(i int) (n int) {
	for _, v := range b.partsOf(i) {
		n += int(v.Len)
	}
	return n
}

// sendSingly sends a train without UDP_SEGMENT. Precondition: every datagram's bytes are whole parts.
func (b *Batch) sendSingly(i int, failed func(int, int, error)) {
	h := b.headers[i].hdr
	if h.SetControllen(int(h.Controllen) - segmentSpace); h.Controllen > 0 {
		h.Control = &b.controls[i*controlSpace+segmentSpace]
	} else {
		h.Control = nil
	}
	parts := b.partsOf(i)
	for sent := 0; len(parts) > 0; sent++ {
		n, size := 0, 0
		for n < len(parts) && size < b.segments[i] {
			size += int(parts[n].Len)
			n++
		}
		h.Iov = &parts[0]
		h.SetIovlen(n)
		_, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(b.conn.fd), uintptr(unsafe.Pointer(&h)), unix.MSG_DONTWAIT)
		if errno != 0 {
			failed(b.before(i)+sent, 1, errno)
		}
		parts = parts[n:]
	}
}

// IsTooBig reports whether the kernel refused a datagram because it is larger than the path takes.
func IsTooBig(err error) bool { return errors.Is(err, unix.EMSGSIZE) }
