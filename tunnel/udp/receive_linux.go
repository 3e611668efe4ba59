package udp

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

// receiveSlots is how many messages one call receives: each slot has room for a whole train. More brought nothing.
const receiveSlots = 4

// controlLen is the room for one control message with an int.
var controlLen = unix.CmsgSpace(4)

// SlotSize is the length in bytes of the memory that a Receiver needs for each message.
const SlotSize = 1 << 16

// Received is one message: datagrams of one sender, each of Segment bytes but the last, which may be shorter.
type Received struct {
	From    netip.Addr
	Data    []byte
	Segment int
}

// Receiver receives from one socket. It is for one goroutine.
type Receiver struct {
	conn     *Conn
	headers  [receiveSlots]mmsghdr
	iovecs   [receiveSlots]unix.Iovec
	names    [receiveSlots]unix.RawSockaddrInet6
	controls []byte
	slabs    [receiveSlots][]byte
	received [receiveSlots]Received
}

// NewReceiver returns a receiver of c.
func NewReceiver(c *Conn) *Receiver {
	r := &Receiver{conn: c, controls: make([]byte, receiveSlots*controlLen)}
	for i := range r.headers {
		r.slabs[i] = make([]byte, SlotSize)
		r.iovecs[i].Base = &r.slabs[i][0]
		r.iovecs[i].SetLen(SlotSize)
		h := &r.headers[i].hdr
		h.Name = (*byte)(unsafe.Pointer(&r.names[i]))
		h.Iov = &r.iovecs[i]
		h.SetIovlen(1)
		h.Control = &r.controls[i*controlLen]
	}
	return r
}

// Receive receives what is there, without blocking. The result and its data are valid until the next call; the caller may
// write to the data.
func (r *Receiver) Receive() []Received {
	for i := range r.headers {
		r.headers[i].hdr.Namelen = uint32(unsafe.Sizeof(r.names[i]))
		r.headers[i].hdr.SetControllen(controlLen)
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(r.conn.fd), uintptr(unsafe.Pointer(&r.headers)), receiveSlots, unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return nil // EAGAIN, EINTR, or an error of an earlier send: the next wait tells whether there is more
	}
	for i := range r.received[:n] {
		r.received[i] = r.message(i)
	}
	return r.received[:n]
}

func (r *Receiver) message(i int) Received {
	h := &r.headers[i]
	m := Received{Data: r.slabs[i][:h.n], Segment: int(h.n)}
	if r.conn.v6 {
		m.From = netip.AddrFrom16(r.names[i].Addr)
	} else {
		m.From = netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(&r.names[i])).Addr)
	}
	// The only control message asked for is UDP_GRO's.
	control := r.controls[i*controlLen:][:h.hdr.Controllen]
	if len(control) < unix.CmsgLen(4) {
		return m
	}
	c := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
	if c.Level == unix.SOL_UDP && c.Type == unix.UDP_GRO {
		if size := int(binary.NativeEndian.Uint32(control[unix.CmsgLen(0):])); size > 0 {
			m.Segment = size
		}
	}
	return m
}
